"""Decides posts without any text: they are safe. Pure.

It comes before all tiers and has no place in their order: ``post.empty_text`` decides, and no policy.
"""

from __future__ import annotations

from typing import Final

from stream_guard.judging.contract import Answer
from stream_guard.judging.tiers.tier import Settled

__all__ = ["OUTCOME", "TIER"]

TIER: Final = "empty"
OUTCOME: Final = Settled(Answer("safe", parse_status="not_applicable"), "no_text", "none")
