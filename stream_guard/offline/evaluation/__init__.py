"""Evaluation of golden sets: read, judge, count, compare, report (``stream-guard eval``).

May import: ``offline.session``, ``offline.calibrate`` and below.
"""
