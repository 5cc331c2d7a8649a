"""Several samples of one prompt by the real vLLM engine, on the demo model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from stream_guard.core.decoding import Decoding
from stream_guard.judging.engine.asking import SAMPLES_METHOD
from stream_guard.policies.policy import make_policy
from tests.integration.demo_judge import Recorded, demo_judge, judged, request_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream_guard.judging.contract import Judgement
    from stream_guard.policies.policy import Policy

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # vLLM and torch warn of themselves while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
POLICY = make_policy(
    "harbour",
    b"# Harbour rules\n\nHB1: Posts that offer sharks for sale are not allowed.\n\nHB0: Other posts are allowed.\n",
    metadata=b"temperature: 1\nsamples: 5\ncategories:\n  HB0: {violates: false}\n",
    reasoning_tokens_max=48,
)
GREEDY = make_policy("greedy", POLICY.text.encode(), reasoning_tokens_max=48)
TEXTS = (
    "Sharks for sale at pier four, cheap.",
    "The fog lifts at noon.",
    "Who wants to buy a shark?",
    "Sharks are fish, and fish are sold.",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def judge() -> AsyncIterator[Recorded]:
    # Samples that do not count without a grammar would add attempts; tests/integration/test_constraint.py has them.
    async with demo_judge(
        (POLICY, GREEDY), constraint="always", in_flight_requests_max=10
    ) as judge:
        yield judge


async def asked(judge: Recorded, policy: Policy = POLICY, run: int = 0) -> list[Judgement]:
    return await judged(judge, [request_of(policy, text, run=run) for text in TEXTS])


def votes_of(judgements: list[Judgement]) -> list[tuple[int, ...]]:
    return [
        tuple(judgement.provenance.sampling.votes)
        for judgement in judgements
        if judgement.provenance is not None and judgement.provenance.sampling is not None
    ]


async def test_every_sample_has_the_policys_form_and_the_prompt_is_computed_once(
    judge: Recorded,
) -> None:
    for judgement in await asked(judge):
        provenance, answer = judgement.provenance, judgement.answer
        assert provenance is not None
        assert answer is not None
        assert provenance.sampling is not None
        votes = provenance.sampling.votes
        assert (sum(votes), votes.unread, provenance.attempts) == (5, 0, 5)
        assert judgement.confidence == pytest.approx(votes.violates / 5)
        assert judgement.confidence_method == SAMPLES_METHOD
        assert answer.decision == ("violates" if votes.violates > votes.safe else "safe")
        assert answer.parse_status == "ok"
        # All but the last, partial block of the prompt is shared, also within one step of the engine.
        assert provenance.cached_tokens > 0.8 * provenance.prompt_tokens


async def test_the_same_post_draws_the_same_samples_and_another_run_draws_others(
    judge: Recorded,
) -> None:
    hot = replace(POLICY, decoding=Decoding(2.0, 1.0, 25))
    first = await asked(judge, hot)
    again = await asked(judge, hot)
    assert votes_of(first) == votes_of(again)
    assert [one.answer for one in first] == [one.answer for one in again]
    tokens = [one.provenance.output_tokens for one in first if one.provenance is not None]
    other = await asked(judge, hot, run=1)
    assert tokens != [one.provenance.output_tokens for one in other if one.provenance is not None]


async def test_the_most_probable_answer_is_that_of_one_greedy_completion(judge: Recorded) -> None:
    for judgement in await asked(judge, GREEDY):
        assert judgement.provenance is not None
        assert (judgement.provenance.attempts, judgement.provenance.sampling) == (1, None)
