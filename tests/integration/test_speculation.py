"""Speculation by the real vLLM engine, on the demo model: the same verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_guard.policies.policy import PolicySet
from stream_guard.settings import EngineSettings
from tests.integration.test_constraint import POLICIES, POSTS, Recorded, judged, request_of

if TYPE_CHECKING:
    from stream_guard.judging.contract import Judgement

pytestmark = [
    pytest.mark.asyncio,
    # vLLM and torch warn of themselves while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SOME = POSTS[::2]
CONSTRAINTS = ("always", "answer", "on_retry")


def settings(**changes: object) -> EngineSettings:
    return EngineSettings.model_validate(
        {
            "model": "demo",
            "constraint": "on_retry",
            "max_model_len": 2_048,
            "max_num_seqs": 16,
            "max_num_batched_tokens": 2_048,
            "request_timeout_s": 200,
            "kv_cache_memory_bytes": 256 << 20,
            "rationale_tokens_max": 48,
            "in_flight_requests_max": 32,
            **changes,
        }
    )


async def judged_under_all(wanted: EngineSettings) -> dict[str, list[Judgement]]:
    """Judge the posts under each constraint by one engine."""
    judge = Recorded(wanted)
    try:
        await judge.start(PolicySet(dict(POLICIES)))
        found = {}
        for constraint in CONSTRAINTS:
            with judge.under(constraint):
                found[constraint] = await judged(judge, [request_of(*post) for post in SOME])
        return found
    finally:
        await judge.close()


async def test_verdicts_are_the_same_with_speculation() -> None:
    plain = await judged_under_all(settings())
    ahead = await judged_under_all(settings(speculation="ngram"))
    for constraint in CONSTRAINTS:
        pairs = zip(plain[constraint], ahead[constraint], strict=True)
        for before, after in pairs:
            assert before.answer is not None
            assert after.answer is not None
            assert after.answer.decision == before.answer.decision
            assert after.answer.parse_status == before.answer.parse_status
            assert after.provenance is not None
            assert before.provenance is not None
            assert after.provenance.reasoning_cut == before.provenance.reasoning_cut
            assert after.confidence == pytest.approx(before.confidence, abs=0.01)
