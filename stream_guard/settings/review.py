"""Settings of the review queue: which verdicts people look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SecretStr

from stream_guard.core.json_pointer import JsonPointer
from stream_guard.core.vocabulary import Severity
from stream_guard.settings.section import Section

ANY: Final = "*"
"""Instead of a policy or a decision in ``review.sample``: all that have no entry of their own."""


def _pointer(value: object) -> object:
    if isinstance(value, str):
        JsonPointer(value)
    return value


_Share = Annotated[float, Field(ge=0, le=1)]
_Sampled: TypeAlias = Literal["violates", "safe", "undetermined", "*"]


class ReviewSettings(Section):
    """Which verdicts people review, if ``kafka.review_topic`` is set."""

    sample: dict[str, dict[_Sampled, _Share]] = Field(default_factory=dict)
    """Shares of verdicts that people review to measure quality, by policy and decision; ``*`` stands for the rest.
    Example: ``{"*": {"violates": 0.05, "safe": 0.002}}``. Recall needs a share of ``safe``. Empty: no sample."""
    severity_min: Severity | None = "high"
    """Violations of this severity or above are reviewed. Unset: severity alone puts no verdict into review."""
    second_share: _Share = 0.05
    """Share of the items that two people review, neither of whom sees the other's decision. Agreement is measured on
    these."""
    reach: Annotated[str | None, BeforeValidator(_pointer)] = None
    """A JSON pointer to the number of people that a post reaches, such as ``/author/followers``. A wider reach means a
    higher priority. Unset: reach is unknown."""
    database: SecretStr = SecretStr("review.sqlite")
    """The database of the review commands: a file of SQLite, or ``postgresql://USER:PASSWORD@HOST/NAME``. The topics
    can rebuild it, without leases and the audit trail."""
    lease_s: float = Field(600.0, gt=0)
    """How long a reviewer has an item alone."""
    host: str = "127.0.0.1"
    """The address on which ``review serve`` listens: this machine alone by default. It has no TLS of its own."""
    port: int = Field(8_090, ge=0, le=65_535)
    """The port of ``review serve``; 0 takes a free one."""
    connections_max: int = Field(256, ge=1)
    """Most open connections of ``review serve``. At the limit, the one without a request for the longest is closed."""
    tokens_file: Path | None = None
    """For ``review serve``: a file with one ``ROLE PSEUDONYM TOKEN`` a line; the role is reviewer, lead or read-only.
    Tokens have at least 32 characters. Required, and readable by the service alone."""
    follow_interval_s: float = Field(5.0, gt=0)
    """How often ``review serve`` reads the topics on."""
    quality_days: float = Field(28.0, gt=0)
    """How far back the figures of quality at ``/metrics`` go, in days, so that they follow a change."""
    text: bool = False
    """Whether items hold the post's text. The review topic then holds personal data: limit who may read it, and for
    how long it is kept. If not, review tools read the text from the post's own topic."""
