"""Who comes next at the engine: lanes by weight, tenants within a lane, and quotas.

May import: what ``judging`` may.
"""
