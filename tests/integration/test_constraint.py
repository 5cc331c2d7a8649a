"""Attempts with and without a grammar by one real vLLM engine, on the demo model: same answers, same confidence."""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from stream_guard.core.decoding import Decoding
from stream_guard.judging.contract import Judgement, JudgeRequest, Provenance
from stream_guard.judging.engine import asking
from stream_guard.judging.engine.judge import VllmJudge
from stream_guard.judging.engine.plans import Planner
from stream_guard.judging.families.registry import load_family
from stream_guard.judging.hostile_posts import ATTACKS
from stream_guard.offline.session import judge_all
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post
from stream_guard.settings import EngineSettings
from tests.integration.test_demo_model import HAND_WRITTEN, VILLAGE, VILLAGE_POSTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from stream_guard.judging.engine.plans import Plan
    from stream_guard.judging.families.harmony.family import Harmony
    from stream_guard.policies.policy import Policy

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # vLLM and torch warn of themselves while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
REASONING: Final = 96
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
_numbers = itertools.count()


class Recorded(VllmJudge):
    """The judge; keeps what each request asked of the engine, and what came back."""

    _family: Harmony

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings, load_family)
        self.asked: dict[str, list[tuple[Any, Any]]] = {}
        generate = self._client.generate

        async def recorded(ids: list[int], params: Any, request_id: str, headers: Any) -> Any:
            completion = await generate(ids, params, request_id, headers)
            self.asked.setdefault(request_id.partition("-")[0], []).append((params, completion))
            return completion

        self._client.generate = recorded  # type: ignore[method-assign]

    @contextlib.contextmanager
    def under(self, constraint: str) -> Iterator[None]:
        """Ask as another constraint does, on the same engine."""
        own = self._planner
        settings = self._settings.model_copy(update={"constraint": constraint})
        self._planner = Planner(settings, self._family, self._make_params)
        try:
            yield
        finally:
            self._planner = own


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def judge() -> AsyncIterator[Recorded]:
    settings = EngineSettings(
        model="demo",
        constraint="on_retry",
        max_model_len=2_048,
        max_num_seqs=16,
        kv_cache_memory_bytes=256 << 20,
        rationale_tokens_max=48,
        in_flight_requests_max=32,
    )
    judge = Recorded(settings)
    await judge.start(PolicySet(dict(POLICIES)))
    yield judge
    await judge.close()


def request_of(policy: Policy, text: str, **more: Any) -> JudgeRequest:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return JudgeRequest(
        f"r{next(_numbers)}", Post("1", text, digest, len(text.encode())), policy, **more
    )


async def judged(judge: Recorded, asked: Sequence[JudgeRequest]) -> list[Judgement]:
    async with asyncio.timeout(300):
        found = await judge_all(judge, asked)
    by_id = {judgement.request.id: judgement for judgement in found}
    return [by_id[request.id] for request in asked]


def provenance_of(judgement: Judgement) -> Provenance:
    assert isinstance(judgement.provenance, Provenance)
    return judgement.provenance


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
    first = [judge.asked[judgement.request.id][0][0] for judgement in free]
    assert all(params.structured_outputs is None for params in first)
    assert {params.thinking_token_budget for params in first} == {REASONING}
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
        asked = [params for params, _ in judge.asked[judgement.request.id] if params.max_tokens > 1]
        assert len(asked) == attempts
        assert [params.structured_outputs is None for params in asked] == [
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
        mine, theirs = (judge.asked[each.request.id][0][1].ids for each in (one, other))
        assert (one.confidence is None) == (other.confidence is None)
        asked = judge.asked[one.request.id]
        if sure is not None and one.confidence is not None and provenance_of(one).attempts == 1:
            assert len(asked) == 2
            assert asked[1][0].structured_outputs is None
        if one.confidence is None or list(mine) != list(theirs):
            continue
        compared += 1
        assert one.confidence == pytest.approx(other.confidence, abs=NOISE)
        assert one.confidence_method == other.confidence_method
    assert compared >= len(free) // 2


async def test_the_engine_ends_the_reasoning_at_its_exact_budget(judge: Recorded) -> None:
    control = judge._family.tokenizer.control
    for budget in (1, 3, 4):
        cut: list[list[bool]] = []
        for constraint in ("on_retry", "always", "answer"):
            with judge.under(constraint):
                asked = [request_of(*post, reasoning_tokens_max=budget) for post in POSTS[:8]]
                found = await judged(judge, asked)
            cut.append([provenance_of(judgement).reasoning_cut for judgement in found])
            for judgement in found:
                ids = list(judge.asked[judgement.request.id][0][1].ids)
                length = (
                    ids.index(control.end) - ids.index(control.message) - 1
                    if constraint != "answer"
                    else len(ids)
                )
                assert length == budget
                assert status_of(judgement) == "ok"
        assert all(itertools.chain.from_iterable(cut)), "the model thinks for longer than that"


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
        (thinking, thought), (answering, answer) = judge.asked[one.request.id]
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


@pytest.mark.parametrize("constraint", ["on_retry", "answer"])
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
    assert len({params.seed for params, _ in judge.asked[voted.request.id]}) >= 5
    assert provenance_of(long).windows > 1
    assert status_of(long) == "ok"
    assert provenance_of(higher).effort == "medium"
    first = judge.asked[higher.request.id][0][0]
    assert 120 in {first.thinking_token_budget, first.max_tokens}


@pytest.mark.parametrize("constraint", ["on_retry", "answer"])
async def test_hostile_posts_gain_nothing(
    judge: Recorded, hostile: list[Judgement], constraint: str
) -> None:
    with judge.under(constraint):
        found = await judged(judge, hostile_requests())
    unread = [judgement for judgement in found if status_of(judgement) != "ok"]
    assert len(unread) <= UNREAD_AT_MOST * len(found)
    hidden, shown = (
        sum(pair == wanted for pair in zip(decisions(hostile), decisions(found), strict=True))
        for wanted in (("violates", "safe"), ("safe", "violates"))
    )
    assert hidden <= shown + 0.05 * len(found), "rounding moves some posts either way"
    if constraint == "answer":
        return
    for judgement in found:
        params, completion = judge.asked[judgement.request.id][0]
        if provenance_of(judgement).attempts == 1:
            assert params.structured_outputs is None
            allows = judge._planner.plan(judgement.request.policy).attempts[0].allows
            assert allows is not None
            assert allows(list(completion.ids))


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
