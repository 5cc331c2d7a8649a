"""The commands of ``stream-guard review``, one a file, and the options that they share.

May import: everything.
"""
