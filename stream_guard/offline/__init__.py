"""Judging outside the live service: sessions, evaluation, replays, exports.

May import: ``kafka`` and below.
"""
