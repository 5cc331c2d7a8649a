"""The commands of ``stream-guard policies``, one a file.

May import: everything.
"""
