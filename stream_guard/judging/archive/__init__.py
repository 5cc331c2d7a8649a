"""The archive of policies: what makes a verdict explicable years later.

May import: ``families`` and below.
"""
