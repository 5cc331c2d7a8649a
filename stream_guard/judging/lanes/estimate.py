"""Estimates what a request costs the engine, in tokens. Pure.

The estimate is the post's own tokens, at four bytes each, a constant for every request, and as many tokens as answers
under the policy had lately. The policy's prompt does not count: it is cached, and the same for everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.contract import JudgeRequest

__all__ = ["TokenEstimate"]

_BYTES_PER_TOKEN: Final = 4
_REQUEST_TOKENS: Final = 32
"""What a request costs beside its post and answer: the frame of the post, and the last block of the prompt, which is
computed though the rest is cached."""
_NEWEST: Final = 0.05
"""Share of the newest answer in the moving mean."""
_BEFORE: Final = 0.25
"""Before any answer: this share of the policy's reasoning budget."""


class TokenEstimate:
    """Keeps a moving mean of generated tokens for each policy and effort."""

    def __init__(self) -> None:
        self._generated: dict[tuple[str, Effort], float] = {}

    def price(self, requests: Iterable[JudgeRequest]) -> None:
        """Write the estimate into each of these requests, which are under one policy."""
        alike: tuple[object, ...] | None = None
        beside = 0
        for request in requests:
            # Nearly always all of a list ask alike, and cost the same beside their posts.
            asked = request.effort, request.reasoning_tokens_max, request.decoding
            if asked != alike:
                alike, beside = asked, _REQUEST_TOKENS + self._answer_tokens(request)
            request.tokens = request.post.text_bytes // _BYTES_PER_TOKEN + beside

    def _answer_tokens(self, request: JudgeRequest) -> int:
        policy = request.policy
        generated = self._generated.get((policy.id, request.effort or policy.effort))
        if generated is None:
            budget = request.reasoning_tokens_max or policy.reasoning_tokens_max
            samples = (request.decoding or policy.decoding).samples
            generated = _BEFORE * budget * samples
        return round(generated)

    def learn(self, request: JudgeRequest, output_tokens: int) -> None:
        """Take the tokens that a request's answer really had."""
        key = (request.policy.id, request.effort or request.policy.effort)
        before = self._generated.get(key, float(output_tokens))
        self._generated[key] = before + _NEWEST * (output_tokens - before)
