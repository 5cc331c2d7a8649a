"""Compares a policy and the longest post with the model's context. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.policies.lint.findings import CODES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_guard.policies.lint.findings import Finding
    from stream_guard.policies.policy import Policy

__all__ = ["BYTES_PER_TOKEN", "ROOM_MIN", "Context", "check_context"]

ROOM_MIN: Final = 256
"""A policy should leave this many tokens for a post, so that windows of long posts make sense."""
BYTES_PER_TOKEN: Final = 4
"""About, for English text. Other scripts need more tokens."""
_FRAMING_TOKENS: Final = 500
"""About what a prompt has besides policy and post, and an answer besides reasoning and rationale."""


class Context(NamedTuple):
    """What bounds a prompt.

    Attributes:
        tokens: of the model's context.
        rationale_tokens_max: of an answer.
        text_bytes_max: of a post (``post.max_text_bytes``).
    """

    tokens: int
    rationale_tokens_max: int
    text_bytes_max: int


def check_context(
    policy: Policy, source: str, count_tokens: Callable[[str], int], context: Context
) -> Iterator[Finding]:
    """Yield a finding if the policy leaves too little of the context for posts."""
    answer = policy.reasoning_tokens_max + context.rationale_tokens_max
    room = context.tokens - count_tokens(policy.text) - answer - _FRAMING_TOKENS
    if room < ROOM_MIN:
        detail = f"the policy leaves about {max(0, room):,} of {context.tokens:,} tokens for a post"
        yield CODES["SG501"].at(source, detail=detail)
    elif room * BYTES_PER_TOKEN < context.text_bytes_max:
        detail = (
            f"posts over about {room * BYTES_PER_TOKEN:,} bytes are judged in windows: post.max_text_bytes is "
            f"{context.text_bytes_max:,}, and the context has {context.tokens:,} tokens"
        )
        yield CODES["SG502"].at(source, detail=detail)
