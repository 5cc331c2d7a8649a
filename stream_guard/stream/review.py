"""Chooses the verdicts that people review, and builds their items. It sends nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import RecordError
from stream_guard.core.json_pointer import JsonPointer
from stream_guard.records.review_item import build_review_item, review_item_id
from stream_guard.records.verdict_changes import HUMAN
from stream_guard.settings.review import ANY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.core.kafka_types import Record
    from stream_guard.records.escalation import Escalation
    from stream_guard.records.post import Post, PostParser
    from stream_guard.records.review_item import Why
    from stream_guard.settings import ReviewSettings, Settings

_RANKS: Final = ("low", "medium", "high", "critical")
_ESCALATED: Final = frozenset({"label", "category"})
_CUT: Final = frozenset({"reasoning_cut", "context_dropped"})
_HASH_DIGITS: Final = 13  # 52 bits, which a float holds exactly


class Reviews:
    """Chooses verdicts by the ``review`` settings.

    Args:
        settings: the section.
        topic: the review topic.
        parser: of posts, for ``review.reach``.

    Attributes:
        topic: the review topic.
    """

    def __init__(self, settings: ReviewSettings, topic: str, parser: PostParser) -> None:
        self.topic = topic
        self._settings = settings
        self._parser = parser
        self._reach = None if settings.reach is None else JsonPointer(settings.reach)
        least = settings.severity_min
        self._severe = frozenset(() if least is None else _RANKS[_RANKS.index(least) :])

    def item(
        self,
        record: Record,
        verdict: Mapping[str, Any],
        post: Post,
        escalation: Escalation | None = None,
    ) -> dict[str, Any] | None:
        """Return the item of a verdict; None where no person need review it.

        Shadows are never reviewed, nor what a person decided.

        Args:
            record: the post's own, or that of its escalation.
            verdict: which may be reviewed.
            post: which it is about.
            escalation: what another deployment said of the post; None for the post's own record.
        """
        provenance = verdict["provenance"]
        if provenance["route_mode"] == "shadow" or provenance["tier"] == HUMAN:
            return None
        why = self._why(verdict)
        share = sample_share(self._settings, verdict["policy"]["id"], verdict["decision"])
        sampled = is_drawn(verdict["id"], share)
        if sampled:
            why.append("sample")
        if not why:
            return None
        second = is_drawn(review_item_id(verdict["id"]), self._settings.second_share)
        return build_review_item(
            verdict,
            why,
            sample_share=share if sampled else None,
            reviews=2 if second else 1,
            reach=self.reach(record, escalation),
            text=post.text if self._settings.text else None,
        )

    def _why(self, verdict: Mapping[str, Any]) -> list[Why]:
        reasons = frozenset(verdict["review_reasons"])
        policy, decision = verdict["policy"], verdict["decision"]
        escalated = bool(reasons & _ESCALATED)
        found: dict[Why, bool] = {
            "undetermined": decision == "undetermined" and not escalated,
            "escalated": escalated,
            "severe": decision == "violates" and policy["severity"] in self._severe,
            "cut": bool(reasons & _CUT),
            "unclear": "parse_status" in reasons,
            "action": verdict["action"] == "review",
            "disagreement": decision == "safe" and _was_flagged(verdict["provenance"]["trail"]),
        }
        return [name for name, holds in found.items() if holds]

    def reach(self, record: Record, escalation: Escalation | None = None) -> float | None:
        """Return how many people a post reaches, by ``review.reach``; None where that is unknown.

        Args:
            record: the post's own, or that of its escalation.
            escalation: brings what the first deployment found; it has no document of the post.
        """
        if escalation is not None:
            return escalation.reach
        if self._reach is None:
            return None
        try:
            _, document = self._parser.of_topic(record.topic).parse_document(
                record.value, record.headers
            )
        except RecordError:
            return None  # it was read once; a schema may be gone from memory since
        found = self._reach.find(document)
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        return found if found >= 0 and math.isfinite(found) else None


def make_reviews(settings: Settings, parser: PostParser) -> Reviews | None:
    """Return what chooses verdicts for review; None without ``kafka.review_topic``."""
    topic = settings.kafka.review_topic
    return None if topic is None else Reviews(settings.review, topic, parser)


def sample_share(settings: ReviewSettings, policy_id: str, decision: str) -> float:
    """Return the share of a policy's verdicts with this decision that are sampled."""
    shares: dict[Any, float] = {**(settings.sample.get(policy_id) or settings.sample.get(ANY, {}))}
    return shares.get(decision, shares.get(ANY, 0.0))


def is_drawn(hex_id: str, share: float) -> bool:
    """Return whether an id is in a sample of this share. It depends on the id alone, so a repeat draws the same.

    Args:
        hex_id: an id that is a digest in hex, so that its digits are evenly spread.
        share: from 0 to 1.
    """
    return int(hex_id[:_HASH_DIGITS], 16) < share * 16**_HASH_DIGITS


def _was_flagged(trail: list[Mapping[str, Any]]) -> bool:
    """Return whether a rule matched, or a lower rung found a severe violation, before a later tier decided."""
    return any(
        step["outcome"] == "escalated"
        and (step["reason"] == "severe" or (step["tier"] == "rules" and "rule:" in step["reason"]))
        for step in trail
    )
