"""A judge without a model, which decides at once by a fixed rule. For load tests, and for learning the tool.

Its verdicts name ``scripted`` as their tier and model, so that nobody takes them for moderation.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from stream_guard.judging.contract import Answer, Judgement, Provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.policies.policy import Policy, PolicySet

_PROVENANCE: Final = Provenance(tier="scripted", model="scripted", engine_version="1")
_SAFE: Final = Answer("safe", parse_status="not_applicable")


class ScriptedJudge:
    """Judges a post that contains a word as violating, and any other as safe.

    Args:
        violates_word: the word.
    """

    def __init__(self, violates_word: str = "[violates]") -> None:
        self._violates_word = violates_word
        self._violates: dict[str, Answer] = {}
        self._failed: asyncio.Future[BaseException] | None = None

    async def start(self, policies: PolicySet) -> None:
        """Prepare the answers of each policy."""
        await self.prepare(policies)
        self._failed = asyncio.get_running_loop().create_future()

    async def prepare(self, policies: PolicySet) -> None:
        """Prepare the answers of these policies; answers of other policies are made on demand."""
        self._violates = {
            policy.sha256: _violating_answer(policy) for policy in policies.policies.values()
        }

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        """Answer at once, in one list."""
        now_ns = time.time_ns()
        deliver(
            [
                Judgement(
                    request,
                    (self._violates.get(request.policy.sha256) or _violating_answer(request.policy))
                    if self._violates_word in request.post.text
                    else _SAFE,
                    None,
                    _PROVENANCE,
                    None,
                    None,
                    now_ns,
                    now_ns,
                )
                for request in requests
            ]
        )

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        """Do nothing: every request is answered at once."""

    def in_flight(self) -> int:
        """Return 0: every request is answered at once."""
        return 0

    async def wait_failed(self) -> BaseException:
        """Never returns: it cannot fail."""
        assert self._failed is not None, "start() comes first"
        return await asyncio.shield(self._failed)

    def describe(self) -> Mapping[str, str]:
        """Describe it as ``scripted``."""
        return {"engine": "scripted", "model": "scripted", "version": "1"}

    async def close(self) -> None:
        """Do nothing."""


def _violating_answer(policy: Policy) -> Answer:
    category = next((c.code for c in policy.taxonomy.categories if c.violates), None)
    rules = tuple(r for r in policy.taxonomy.rule_ids if category and r.startswith(f"{category}."))[
        :1
    ]
    return Answer("violates", category, rules, "scripted", "not_applicable")
