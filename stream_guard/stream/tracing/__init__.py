"""The spans of records in flight.

May import: ``telemetry`` and ``judging.contract``.
"""
