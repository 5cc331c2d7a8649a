"""The commands of ``stream-guard dlq``, one a file, and the options that they share.

May import: everything.
"""
