"""Replays and backtests: past verdicts judged again.

May import: ``offline.session`` and below.
"""
