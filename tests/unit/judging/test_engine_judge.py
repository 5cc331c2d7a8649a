"""The engine's judge works with any model family: here with one of the tests, and an engine that follows a script."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.decoding import GREEDY
from stream_guard.core.errors import EngineError
from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance
from stream_guard.judging.engine.prefixes import PrefixCache, PrefixKey
from stream_guard.judging.families.family import Constraint
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post
from tests.unit.judging.engine_doubles import POLICY, Params, Thinker, World, world_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


@pytest.fixture
async def world(random_model: Path) -> AsyncIterator[World]:
    async with world_of(random_model) as world:
        yield world


async def test_another_familys_prompt_is_sent_and_its_answer_read(world: World) -> None:
    no, yes = await world.judged("0", "1")
    assert (no.answer, yes.answer) == (Answer("safe"), Answer("violates"))
    assert [no.confidence, yes.confidence] == pytest.approx([0.25, 0.75])
    assert world.client.prompts[-1].endswith("1 for yes.\n\nText: 1\nAnswer:")
    assert "<|" not in "".join(world.client.prompts)
    assert world.client.params[-1] == Params(Constraint("choice", ["0", "1"]), 4, True, GREEDY)  # noqa: FBT003
    provenance = yes.provenance
    assert provenance is not None
    prefix = world.client.plain.prefix(POLICY, "low")
    assert (provenance.prompt_sha256, provenance.cached_tokens) == (prefix.sha256, 7)
    assert [(one.completion, one.analysis) for one in world.heard] == [("0", ""), ("1", "")]
    assert yes.thoughts == (), "this family has no reasoning to keep"


async def test_what_another_family_cannot_read_is_retried_and_then_undetermined(
    world: World,
) -> None:
    again, never, endless = await world.judged("maybe 1", "maybe maybe", "endless")
    assert again.answer == Answer("violates")
    assert never.answer == Answer("undetermined", parse_status="malformed")
    assert endless.answer == Answer("undetermined", parse_status="truncated")
    for judgement in (again, never, endless):
        assert isinstance(judgement.provenance, Provenance)
        assert judgement.provenance.attempts == 2


async def test_reasoning_that_used_its_whole_budget_is_told_of_the_attempt_that_answered(
    world: World,
) -> None:
    # The first attempt may reason for four tokens, the second for half of that.
    policy = replace(POLICY, reasoning_tokens_max=4)
    plain = world.client.plain
    world.judge._asker._family = Thinker(plain._tokenizer, plain._date)
    told = {
        "hmm/1": False,
        "hmmm/1": True,
        "hmmm/maybe h/1": False,
        "hmmm/maybe hm/1": True,
        "h/maybe h/maybe": False,
        "hmmm/maybe endless": False,
        "hmmm/maybe broken": False,
    }
    judgements = await world.judged(*told, policy=policy)
    for judgement, cut in zip(judgements, told.values(), strict=True):
        assert judgement.provenance is not None
        assert judgement.provenance.reasoning_cut is cut, judgement.request.id


async def test_nothing_is_delivered_after_the_engine_has_died(world: World) -> None:
    assert world.client.dead is not None
    error = EngineError("the engine's process died")
    world.client.dead.set_result(error)
    assert await world.judge.wait_failed() is error
    world.judge.submit([JudgeRequest("late", Post("late", "1", "", 1), POLICY)], world.deliver)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.delivered == []


async def test_the_model_of_the_cache_knows_all_policies_and_forgets_what_posts_push_out(
    random_model: Path,
) -> None:
    other = make_policy("dogs", b"Posts about dogs are not allowed.")
    cats, dogs = (PrefixKey(policy.sha256, policy.effort) for policy in (POLICY, other))
    prefixes = PrefixCache()
    async with world_of(random_model, prefixes) as world:
        await world.judge.prepare(PolicySet({"cats": POLICY, "dogs": other}))
        # The engine has room for 1,000 tokens (see the double), and each post may be as long as an answer.
        assert [prefixes.is_warm(key) for key in (cats, dogs)] == [True, True]
        for run in range(40):
            prefixes.enter(cats, f"{run}")
            await world.judged("safe", run=run)
        assert [prefixes.is_warm(key) for key in (cats, dogs)] == [True, False]


async def test_an_error_of_one_caller_ends_the_judge_and_keeps_nothing_from_another(
    world: World,
) -> None:
    error = ValueError("this verdict cannot be built")

    def broken(_judgements: Sequence[Judgement]) -> None:
        raise error

    world.judge.submit([JudgeRequest("first", Post("first", "1", "", 1), POLICY)], broken)
    (second,) = await world.judged("1")
    assert second.answer == Answer("violates")
    assert await world.judge.wait_failed() is error
