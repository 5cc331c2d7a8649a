"""Words, errors and small types that every room uses.

May import: nothing of ours.
"""
