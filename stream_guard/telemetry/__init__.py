"""Logs, metrics and the parts of tracing that know no record in flight.

May import: ``settings`` and below.
"""
