"""Whether the service makes progress: state, stalls, lag, the event loop.

May import: ``stream`` and below.
"""
