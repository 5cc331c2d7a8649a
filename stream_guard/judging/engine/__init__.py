"""The engine that runs the model: its process, its requests, its supervision.

May import: ``families``, ``tiers`` and below.
"""
