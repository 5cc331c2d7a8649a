"""Harmony, the format of gpt-oss models. The only package that knows its markers and channels.

May import: ``judging.contract`` and below.
"""
