"""Wire formats to and from plain data: posts, verdicts, dead letters, their schemas.

May import: ``telemetry`` and below.
"""
