"""Logs, metrics, and the parts of tracing that need no record in flight.

May import: ``settings`` and below.
"""
