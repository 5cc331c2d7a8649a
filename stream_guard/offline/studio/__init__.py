"""A local process that keeps an engine warm, and the judge through which other commands use it.

May import: ``judging`` and below.
"""
