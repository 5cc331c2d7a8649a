"""The commands of ``stream-guard export``, one a file.

May import: everything.
"""
