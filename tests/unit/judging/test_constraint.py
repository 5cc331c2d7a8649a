"""``engine.constraint``: which attempts have a constraint, what counts without one, and what the confidence is then."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog

from stream_guard.core.decoding import Decoding
from stream_guard.judging.contract import Answer, Provenance
from stream_guard.judging.engine import arguments
from stream_guard.judging.engine.first_attempts import LOOKED_AT, FirstAttempts
from stream_guard.judging.families.family import Constraint
from stream_guard.settings import EngineSettings
from tests.unit.judging.engine_doubles import POLICY, Params, World, world_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from stream_guard.judging.contract import Judgement


@pytest.fixture
async def world(random_model: Path) -> AsyncIterator[World]:
    async with world_of(random_model, constraint="on_retry") as world:
        world.client.params.clear()
        yield world


def provenance_of(judgement: Judgement) -> Provenance:
    assert judgement.provenance is not None
    return judgement.provenance


def constrained(world: World) -> list[bool]:
    """Return which of the attempts had a constraint, in order."""
    asked: list[Params] = world.client.params
    return [params.constraint == Constraint("choice", ["0", "1"]) for params in asked]


async def test_the_first_attempt_is_free_and_its_exact_answer_counts(world: World) -> None:
    world.client.chosen = 0.9999
    (judgement,) = await world.judged("1")
    assert judgement.answer == Answer("violates")
    assert provenance_of(judgement).attempts == 1
    assert constrained(world) == [False]


@pytest.mark.parametrize(
    ("text", "answer", "attempts"),
    [
        ("maybe 1", Answer("violates"), 2),
        ("endless 0", Answer("safe"), 2),
        ("broken 0", Answer("safe"), 2),
        ("maybe maybe 0", Answer("safe"), 3),
        ("1 maybe", Answer("violates"), 1),
        ("maybe maybe maybe", Answer("undetermined", parse_status="malformed"), 3),
    ],
)
async def test_what_does_not_count_is_asked_again_under_the_constraint(
    world: World, text: str, answer: Answer, attempts: int
) -> None:
    world.client.chosen = 0.9999
    (judgement,) = await world.judged(text)
    assert judgement.answer == answer
    assert provenance_of(judgement).attempts == attempts
    assert constrained(world) == [False, *[True] * (attempts - 1)]


async def test_an_answer_that_is_only_repaired_does_not_count_without_the_constraint(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = world.judge._family
    read = family.read

    def lenient(*given: object, **more: object) -> object:
        found = read(*given, **more)  # type: ignore[arg-type]
        return replace(found, answer=replace(found.answer, parse_status="repaired"))

    monkeypatch.setattr(family, "read", lenient)
    (judgement,) = await world.judged("1 0")
    assert judgement.answer == Answer("safe", parse_status="repaired")
    assert constrained(world) == [False, True]


async def test_confidence_is_the_share_of_the_two_labels_where_the_answer_is_free(
    world: World,
) -> None:
    free, held = await world.judged("1", "maybe 1")
    assert free.confidence == pytest.approx(0.8), "0.4 of the 0.5 that both have"
    assert held.confidence == pytest.approx(0.75), "the mask leaves the two labels alone"
    assert free.confidence_method == held.confidence_method
    pairs = [params for params in world.client.params if params.pair]
    assert len(pairs) == 1
    spent = provenance_of(free)
    assert (spent.attempts, spent.cached_tokens, spent.output_tokens) == (1, 7 + 5, 1 + 1)


@pytest.mark.parametrize(("text", "confidence"), [("1", 0.9995), ("0", 0.0005)])
async def test_a_sure_label_is_not_asked_for_again(
    world: World, text: str, confidence: float
) -> None:
    world.client.chosen = 0.9995
    (judgement,) = await world.judged(text)
    assert judgement.confidence == pytest.approx(confidence)
    assert not any(params.pair for params in world.client.params)


async def test_samples_vote_and_need_no_labels_probabilities(world: World) -> None:
    five = replace(POLICY, decoding=Decoding(1.0, 0.9, 5))
    (judgement,) = await world.judged("1", policy=five)
    assert judgement.confidence == 1
    assert constrained(world) == [False] * 5
    assert len({params.seed for params in world.client.params}) == 5


async def test_always_asks_nothing_without_the_constraint(random_model: Path) -> None:
    async with world_of(random_model, constraint="always") as world:
        world.client.params.clear()
        await world.judged("1", "maybe 1")
        assert constrained(world) == [True] * 3


async def test_auto_stops_first_attempts_that_seldom_count_and_says_so(random_model: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with world_of(random_model, constraint="auto", in_flight_requests_max=1) as world:
            await world.judged(*[f"maybe 1 {number}" for number in range(LOOKED_AT)])
            assert world.judge._planner.plan(POLICY).first.stopped
            (judgement,) = await world.judged("1", run=1)
    assert provenance_of(judgement).attempts == 1
    assert world.client.params[-1].constraint is not None
    (stopped,) = logs
    assert stopped["event"] == "first_attempts_seldom_count"
    assert (stopped["share"], stopped["constraint"]) == (0, "always")
    assert (stopped["policy"], stopped["effort"]) == (POLICY.id, POLICY.effort)


async def test_first_attempts_go_on_under_other_policies(random_model: Path) -> None:
    drawn = replace(POLICY, decoding=Decoding(1.0, 0.9, 1))
    with structlog.testing.capture_logs() as logs:
        async with world_of(random_model, constraint="auto", in_flight_requests_max=1) as world:
            texts = [f"maybe 1 {number}" for number in range(LOOKED_AT)]
            await world.judged(*texts, policy=drawn)
            world.client.params.clear()
            await world.judged("1", policy=drawn)
            await world.judged("1", run=1)
    assert constrained(world)[:2] == [True, False]
    assert len(logs) == 1


async def test_the_judge_describes_what_was_chosen_and_why(random_model: Path) -> None:
    """The service logs the description when it is ready."""
    async with world_of(random_model, constraint="auto") as world:
        about = world.judge.describe()
    assert about["constraint"] == "on_retry"
    assert about["constraint_reason"]


def test_only_auto_stops_and_only_where_too_few_count() -> None:
    enough, own, auto = (FirstAttempts("p", "low", may_stop=may) for may in (True, False, True))
    with structlog.testing.capture_logs() as logs:
        for number in range(3 * LOOKED_AT):
            enough.record(counts=number % 4 != 0)  # exactly three quarters
            own.record(counts=number % 2 == 0)
            auto.record(counts=number < LOOKED_AT)
    assert [each.stopped for each in (enough, own, auto)] == [False, False, True]
    assert [log["constraint"] for log in logs] == ["on_retry", "always"]


def test_how_many_must_count_is_the_callers() -> None:
    few, many = (FirstAttempts("p", "low", may_stop=True, counted_min=one) for one in (0.5, 0.9))
    with structlog.testing.capture_logs():
        for number in range(LOOKED_AT):
            few.record(counts=number % 4 != 0)
            many.record(counts=number % 4 != 0)
    assert (few.stopped, many.stopped) == (False, True)


@pytest.mark.parametrize("build", [True, False])
def test_auto_takes_what_is_faster_on_the_kind_of_machine(
    monkeypatch: pytest.MonkeyPatch, *, build: bool
) -> None:
    monkeypatch.setattr(arguments, "is_cpu_build", lambda: build)
    chosen = arguments.choose_constraint(EngineSettings(model="demo"))
    assert chosen.constraint == "on_retry"
    assert ("CPU" in chosen.reason) == build
    # There the model's own work is the limit: what a first attempt gains is soon lost by those that do not count.
    assert (chosen.counted_min > arguments.Chosen("on_retry", "").counted_min) == build
    explicit = EngineSettings(model="demo", constraint="always")
    assert arguments.choose_constraint(explicit).constraint == "always"
