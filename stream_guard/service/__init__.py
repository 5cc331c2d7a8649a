"""The running service: composition, health, HTTP and diagnostics.

May import: ``kafka`` and below.
"""
