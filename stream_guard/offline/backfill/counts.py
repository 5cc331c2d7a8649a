"""Counts what went into a block and what came out of it, so that nothing can be lost unseen. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["Counts"]


@dataclass(slots=True)
class Counts:
    """What went in and what came out.

    Attributes:
        places: lines, rows or offsets of the source.
        blank: empty lines; offsets without a record.
        skipped: records that are no posts by ``post.where``, or deletions, by reason.
        refused: rows without a valid post, by reason; each is a dead letter.
        posts: valid posts.
        verdicts: of all policies.
        failed: posts under a policy that could not be judged, by reason; each is a dead letter.
        prompt_tokens, cached_tokens, output_tokens: of the model.
    """

    places: int = 0
    blank: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    posts: int = 0
    verdicts: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def of(cls, document: dict[str, Any]) -> Counts:
        """Return the counts of :meth:`describe`."""
        counters = {name: Counter(document[name]) for name in ("skipped", "refused", "failed")}
        return cls(**(document | counters))

    def describe(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return {k: dict(v) if isinstance(v, Counter) else v for k, v in plain.items()}

    def add(self, other: Counts) -> None:
        """Add others, in place."""
        self.places += other.places
        self.blank += other.blank
        self.skipped += other.skipped
        self.refused += other.refused
        self.posts += other.posts
        self.verdicts += other.verdicts
        self.failed += other.failed
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.output_tokens += other.output_tokens

    @property
    def letters(self) -> int:
        """Number of dead letters."""
        return self.refused.total() + self.failed.total()

    def fault(self, policies: int) -> str | None:
        """Return in words how the sums differ; None if everything that went in came out.

        Args:
            policies: how many judge each post.
        """
        read = self.blank + self.skipped.total() + self.refused.total() + self.posts
        if read != self.places:
            return f"{self.places} rows went in, and {read} were read"
        judged = self.verdicts + self.failed.total()
        if judged != self.posts * policies:
            return f"{self.posts} posts under {policies} policies have {judged} outcomes"
        return None
