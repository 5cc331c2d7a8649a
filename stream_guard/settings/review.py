"""Settings of the review queue: which verdicts people look at."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field

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
    text: bool = False
    """Whether items hold the post's text. The review topic then holds personal data: limit who may read it, and for
    how long it is kept. If not, review tools read the text from the post's own topic."""
