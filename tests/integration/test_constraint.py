"""Attempts with and without a grammar by one real vLLM engine, on the demo model: same answers, same confidence."""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from stream_guard.core.decoding import Decoding
from stream_guard.judging.contract import Answer
from stream_guard.judging.engine import asking
from stream_guard.judging.families.family import Budget
from stream_guard.judging.hostile_posts import ATTACKS
from stream_guard.policies.policy import make_policy
from tests.integration.demo_judge import Recorded, demo_judge, judged, provenance_of, request_of
from tests.integration.test_demo_model import HAND_WRITTEN, VILLAGE, VILLAGE_POSTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest
    from stream_guard.judging.engine.plans import Plan
    from stream_guard.judging.families.family import Reading
    from stream_guard.policies.policy import Policy

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # vLLM and torch warn of themselves while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
REASONING: Final = 96
CONSTRAINTS: Final = ("always", "answer", "on_retry")
NOISE: Final = 0.005
"""Two batches of one model differ by rounding."""
SAME_AT_LEAST: Final = 0.9
UNREAD_AT_MOST: Final = 0.005


def policy_of(name: str, text: str, **more: Any) -> Policy:
    return make_policy(name, text.encode(), effort="low", reasoning_tokens_max=REASONING, **more)


POLICIES: Final = {
    **{name: policy_of(name, text) for name, text, _ in HAND_WRITTEN},
    "native": policy_of("native", VILLAGE, metadata=b"answer: native\n"),
    "village": policy_of("village", VILLAGE),
}
POSTS: Final = [
    *((POLICIES[name], text) for name, _, posts in HAND_WRITTEN for text, _ in posts),
    *((POLICIES[name], text) for name in ("native", "village") for text, _ in VILLAGE_POSTS),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def judge() -> AsyncIterator[Recorded]:
    # With statistics, as the service runs it.
    extra = {"disable_log_stats": False}
    async with demo_judge(tuple(POLICIES.values()), constraint="on_retry", extra=extra) as judge:
        yield judge


def opening_tokens(judge: Recorded) -> int:
    """Return how many tokens come before the reasoning."""
    parts = judge._family.in_parts(POLICIES["village"], Budget(1, 1))
    return len(parts.opening)


def status_of(judgement: Judgement) -> str:
    assert judgement.answer is not None, judgement.error
    return judgement.answer.parse_status


def decisions(judgements: Sequence[Judgement]) -> list[str]:
    return [judgement.answer.decision for judgement in judgements if judgement.answer]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(judge: Recorded) -> tuple[list[Judgement], list[Judgement]]:
    """The same posts, first as ``on_retry`` and then as ``always``."""
    free = await judged(judge, [request_of(*post) for post in POSTS])
    with judge.under("always"):
        held = await judged(judge, [request_of(*post) for post in POSTS])
    return free, held


async def test_most_posts_are_answered_without_a_grammar_and_alike(
    judge: Recorded, both: tuple[list[Judgement], list[Judgement]]
) -> None:
    free, held = both
    for judgement in (*free, *held):
        assert status_of(judgement) == "ok"
    first = [judge.asked[judgement.request.id][0].params for judgement in free]
    assert all(params.structured_outputs is None for params in first)
    assert {params.max_tokens for params in first} == {opening_tokens(judge) + REASONING}
    assert {params.thinking_token_budget for params in first} == {None}, "vLLM's own is slow"
    attempts = Counter(provenance_of(judgement).attempts for judgement in free)
    assert attempts[1] >= SAME_AT_LEAST * len(free), attempts
    assert {provenance_of(judgement).attempts for judgement in held} == {1}
    same = sum(one == other for one, other in zip(decisions(free), decisions(held), strict=True))
    assert same >= SAME_AT_LEAST * len(free)


async def test_what_was_not_accepted_was_asked_again_under_the_grammar(
    judge: Recorded, both: tuple[list[Judgement], list[Judgement]]
) -> None:
    free, _ = both
    for judgement in free:
        attempts = provenance_of(judgement).attempts
        asked = judge.first(judgement)
        assert len(asked) == attempts
        assert [one.params.structured_outputs is None for one in asked] == [
            number == 0 for number in range(attempts)
        ]


async def test_an_answer_that_does_not_count_becomes_the_answer_of_always(
    judge: Recorded, both: tuple[list[Judgement], list[Judgement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, held = both
    plan = judge._planner.plan

    def refusing(*asked: Any) -> Plan:
        found = plan(*asked)
        first, *rest = found.attempts
        return replace(found, attempts=(replace(first, allows=lambda _: False), *rest))

    monkeypatch.setattr(judge._planner, "plan", refusing)
    again = await judged(judge, [request_of(*post) for post in POSTS])
    assert {provenance_of(judgement).attempts for judgement in again} == {2}
    for judgement in again:
        assert status_of(judgement) == "ok"
    same = sum(one.answer == other.answer for one, other in zip(again, held, strict=True))
    assert same >= SAME_AT_LEAST * len(again), "rounding explains a few"


@pytest.mark.parametrize("sure", [None, 2.0])
async def test_confidence_is_what_the_grammars_mask_makes_of_it(
    judge: Recorded,
    both: tuple[list[Judgement], list[Judgement]],
    monkeypatch: pytest.MonkeyPatch,
    sure: float | None,
) -> None:
    """With 2, no probability is high enough: each post is asked for both labels."""
    free, held = both
    if sure is not None:
        monkeypatch.setattr(asking, "SURE", sure)
        free = await judged(judge, [request_of(*post) for post in POSTS])
    compared = 0
    for one, other in zip(free, held, strict=True):
        mine, theirs = (judge.completed[each.request.id][0].ids for each in (one, other))
        assert (one.confidence is None) == (other.confidence is None)
        last = judge.asked[one.request.id][-1].params
        if sure is not None and one.confidence is not None and provenance_of(one).attempts == 1:
            assert last.structured_outputs is None
            assert len(last.logprob_token_ids) == 2
        if one.confidence is None or list(mine) != list(theirs):
            continue
        compared += 1
        assert one.confidence == pytest.approx(other.confidence, abs=NOISE)
        assert one.confidence_method == other.confidence_method
    assert compared >= len(free) // 2


@pytest.mark.parametrize("budget", [1, 4])
async def test_reasoning_ends_at_its_exact_budget(judge: Recorded, budget: int) -> None:
    control = judge._family.tokenizer.control
    for constraint in CONSTRAINTS:
        with judge.under(constraint):
            asked = [request_of(*post, reasoning_tokens_max=budget) for post in POSTS[:8]]
            found = await judged(judge, asked)
        for judgement in found:
            assert provenance_of(judgement).reasoning_cut, "the model thinks for longer than that"
            ids = list(judge.completed[judgement.request.id][0].ids)
            assert ids.index(control.end) - ids.index(control.message) - 1 == budget
            assert status_of(judgement) == "ok"


async def test_an_answer_longer_than_the_budget_is_whole_and_has_its_confidence(
    judge: Recorded, both: tuple[list[Judgement], list[Judgement]]
) -> None:
    """The first request ends within the answer, before its label or behind it; a second one goes on."""
    free, _ = both
    control = judge._family.tokenizer.control
    compared = 0
    whole = [judgement for judgement in free if provenance_of(judgement).attempts == 1][:8]
    for more in (1, 16):
        asked = []
        for judgement in whole:
            ids = list(judge.completed[judgement.request.id][0].ids)
            thought = ids.index(control.end) - ids.index(control.message) - 1
            asked.append(
                replace(
                    request_of(judgement.request.policy, judgement.request.post.text),
                    reasoning_tokens_max=thought + more,
                )
            )
        for one, other in zip(whole, await judged(judge, asked), strict=True):
            assert [each.id.endswith("-more") for each in judge.asked[other.request.id]][:2] == [
                False,
                True,
            ]
            assert not provenance_of(other).reasoning_cut
            compared += one.answer == other.answer
            if one.answer == other.answer and one.confidence is not None:
                assert other.confidence == pytest.approx(one.confidence, abs=NOISE)
    assert compared >= SAME_AT_LEAST * 2 * len(whole)


async def test_an_answer_by_two_requests_is_that_of_one(
    judge: Recorded, both: tuple[list[Judgement], list[Judgement]]
) -> None:
    _, held = both
    with judge.under("answer"):
        found = await judged(judge, [request_of(*post) for post in POSTS])
    same = compared = 0
    for one, other in zip(found, held, strict=True):
        assert status_of(one) == "ok"
        assert provenance_of(one).attempts == 1
        (_, thinking, thought), (_, answering, answer) = judge.asked[one.request.id]
        assert thinking.structured_outputs is None
        assert thinking.max_tokens == REASONING
        assert answering.structured_outputs is not None
        spent = provenance_of(one)
        assert spent.output_tokens == len(thought.ids) + len(answer.ids)
        assert spent.prompt_tokens > 2 * provenance_of(other).prompt_tokens
        same += one.answer == other.answer
        if one.answer == other.answer and one.confidence is not None:
            compared += 1
            assert one.confidence == pytest.approx(other.confidence, abs=NOISE)
    assert same >= SAME_AT_LEAST * len(found)
    assert compared >= len(found) // 2


@pytest.mark.parametrize("constraint", CONSTRAINTS)
async def test_an_answer_that_cannot_be_read_is_asked_for_again_and_thought_about_less(
    judge: Recorded, monkeypatch: pytest.MonkeyPatch, constraint: str
) -> None:
    read, readings = judge._family.read, itertools.count()

    def broken_at_first(*asked: Any, **more: Any) -> Reading:
        found = read(*asked, **more)
        if next(readings) > 0:
            return found
        return replace(found, answer=Answer("undetermined", parse_status="malformed"))

    monkeypatch.setattr(judge._family, "read", broken_at_first)
    budget = 40
    with judge.under(constraint):
        (found,) = await judged(judge, [request_of(*POSTS[0], reasoning_tokens_max=budget)])
    assert status_of(found) == "ok"
    assert found.confidence is not None
    assert provenance_of(found).attempts == 2
    first, again = (one.params for one in judge.first(found))
    if constraint == "answer":
        assert (first.max_tokens, again.max_tokens) == (budget, budget // 2)
    elif constraint == "always":
        assert first.max_tokens - again.max_tokens == budget // 2
    else:
        assert first.structured_outputs is None
        assert again.structured_outputs is not None, "the first attempt under it has the budget"


@pytest.mark.parametrize("constraint", CONSTRAINTS)
async def test_samples_vote_windows_are_merged_and_rungs_are_climbed(
    judge: Recorded, constraint: str
) -> None:
    policy, text = POLICIES["harbour"], "saw two sharks near the pier"
    with judge.under(constraint):
        voted, long, higher = await judged(
            judge,
            [
                request_of(policy, text, decoding=Decoding(1.0, 0.9, 5)),
                request_of(policy, "the boats are white and the sea is calm today. " * 300),
                request_of(policy, text, effort="medium", reasoning_tokens_max=120),
            ],
        )
    sampling = provenance_of(voted).sampling
    assert sampling is not None
    assert sum(sampling.votes) == 5
    assert len({each.params.seed for each in judge.asked[voted.request.id]}) >= 5
    assert provenance_of(long).windows > 1
    assert status_of(long) == "ok"
    assert provenance_of(higher).effort == "medium"
    first = judge.asked[higher.request.id][0].params
    if constraint != "always":
        assert first.max_tokens == 120 + opening_tokens(judge) * (constraint == "on_retry")


@pytest.mark.parametrize("constraint", CONSTRAINTS)
async def test_hostile_posts_gain_nothing(
    judge: Recorded, hostile: list[Judgement], constraint: str
) -> None:
    found = hostile
    if constraint != "always":
        with judge.under(constraint):
            found = await judged(judge, hostile_requests())
    unread = [judgement for judgement in found if status_of(judgement) != "ok"]
    assert len(unread) <= UNREAD_AT_MOST * len(found)
    hidden, shown = (
        sum(pair == wanted for pair in zip(decisions(hostile), decisions(found), strict=True))
        for wanted in (("violates", "safe"), ("safe", "violates"))
    )
    assert hidden <= shown + 0.05 * len(found), "rounding moves some posts either way"
    if constraint != "on_retry":
        return
    for judgement in found:
        if provenance_of(judgement).attempts == 1:
            assert judge.asked[judgement.request.id][0].params.structured_outputs is None
            allows = judge._planner.plan(judgement.request.policy).attempts[0].allows
            assert allows is not None
            assert allows(list(judge.completed[judgement.request.id][0].ids))


def hostile_requests() -> list[JudgeRequest]:
    return [
        request_of(policy, attack.apply(text, policy.taxonomy))
        for policy, text in (POSTS[0], POSTS[7], POSTS[15])
        for attack in ATTACKS
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hostile(judge: Recorded) -> list[Judgement]:
    """Hostile posts under the grammar."""
    with judge.under("always"):
        return await judged(judge, hostile_requests())
