"""Replays and backtests: past verdicts judged again, prompts rebuilt and compared.

May import: ``offline.session``, ``kafka`` and below.
"""
