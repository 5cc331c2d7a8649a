"""The schema registry: its HTTP client, the schemas in memory, and the source that waits for them.

May import: ``kafka`` and below. Only :mod:`.client` speaks HTTP.
"""
