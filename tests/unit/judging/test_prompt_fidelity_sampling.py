"""Answers may be drawn at a temperature and put to a vote, and reasoning that was cut never passes for an answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from pydantic import ValidationError

from stream_guard.core.decoding import GREEDY, Decoding
from stream_guard.core.errors import EngineError, PolicyError, PromptError
from stream_guard.judging.archive.entry import Judging, read_entry, write_entry
from stream_guard.judging.contract import (
    Answer,
    Judgement,
    JudgeRequest,
    ParseStatus,
    Provenance,
    Sampled,
    Votes,
)
from stream_guard.judging.engine.voting import Cast, decide, seed_of
from stream_guard.judging.tiers.ladder import Ladder
from stream_guard.judging.verdict import build_verdict
from stream_guard.offline.audit.replay import compare
from stream_guard.policies.describe import describe_policy, show_lines
from stream_guard.policies.diff import diff_policies
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post
from stream_guard.settings import CascadeSettings
from stream_guard.settings.judging import RungSettings
from tests.unit.judging.cascade_doubles import POLICY as SPAM
from tests.unit.judging.cascade_doubles import Rig, with_tiers
from tests.unit.judging.engine_doubles import POLICY, Thinker, World, world_of
from tests.verdicts import FakeRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FIVE = replace(POLICY, decoding=Decoding(1.0, 0.9, 5))
FOUR = replace(POLICY, decoding=Decoding(1.0, 1.0, 4))
SAFE = Answer("safe")
ESCALATED = Answer("undetermined", labels=("ESCALATE",))


def violates(category: str | None = None, *, cut: bool = False) -> Cast:
    return Cast(Answer("violates", category), cut)


def unread(status: ParseStatus = "malformed") -> Cast:
    return Cast(Answer("undetermined", parse_status=status))


@pytest.fixture
async def world(random_model: Path) -> AsyncIterator[World]:
    async with world_of(random_model, attempts_max=1) as world:
        yield world


# The vote


def test_more_than_half_of_the_votes_decide_and_the_share_is_the_confidence() -> None:
    outcome = decide([violates(), Cast(SAFE), violates(), violates(), Cast(SAFE)])
    assert (outcome.answer, outcome.confidence) == (Answer("violates"), 0.6)
    assert outcome.votes == Votes(violates=3, safe=2)
    outcome = decide([Cast(SAFE), violates(), Cast(SAFE)])
    assert outcome.answer == SAFE
    assert outcome.confidence == pytest.approx(1 / 3)


def test_a_tie_is_undetermined_and_says_why() -> None:
    for casts in (
        [violates(), Cast(SAFE)],
        [violates(), violates(), Cast(SAFE), Cast(ESCALATED)],
        [violates(), Cast(SAFE), Cast(ESCALATED)],
    ):
        outcome = decide(casts)
        assert outcome.answer == Answer("undetermined")
        assert outcome.votes.majority() is None
        assert outcome.confidence is not None
        assert 0.2 < outcome.confidence < 0.8


def test_a_majority_that_asks_for_a_person_is_undetermined_as_one_sample_is() -> None:
    outcome = decide([Cast(ESCALATED), violates(), Cast(ESCALATED)])
    assert (outcome.answer, outcome.confidence) == (ESCALATED, None)
    assert outcome.votes == Votes(violates=1, undetermined=2)


def test_a_sample_that_cannot_be_read_has_no_vote_and_makes_the_rest_less_sure() -> None:
    outcome = decide([violates(), unread(), unread("timeout"), violates(), Cast(SAFE)])
    assert outcome.answer == Answer("violates")
    assert outcome.votes == Votes(violates=2, safe=1, unread=2)
    assert outcome.confidence == pytest.approx(3 / 5)
    sure = decide([violates()] * 5)
    assert sure.confidence == 1.0
    lone = decide([unread("empty"), violates(), unread(), unread(), unread()])
    assert lone.answer == Answer("violates")
    assert lone.confidence == pytest.approx(3 / 5)


def test_without_any_vote_the_answer_is_what_a_single_sample_would_be() -> None:
    outcome = decide([unread("truncated"), unread("malformed")])
    assert outcome.answer == Answer("undetermined", parse_status="truncated")
    assert (outcome.confidence, outcome.votes) == (None, Votes(unread=2))


def test_the_majoritys_most_common_category_and_its_first_sample_make_the_answer() -> None:
    first = Answer("violates", "B", ("B.1",), "the first of B")
    outcome = decide(
        [
            Cast(SAFE),
            violates("A"),
            Cast(first),
            Cast(Answer("violates", "B", ("B.2",), "the second of B")),
            Cast(SAFE),
        ]
    )
    assert (outcome.answer, outcome.chosen) == (first, 2)
    equal = decide([violates("A"), violates("B"), violates("B"), violates("A"), violates("C")])
    assert (equal.answer.category, equal.chosen) == ("A", 0)


def test_a_decision_that_rests_on_cut_reasoning_is_marked() -> None:
    whole, cut = violates(), violates(cut=True)
    assert not decide([whole, whole, whole, cut, cut]).reasoning_cut
    assert decide([whole, whole, cut, cut, cut]).reasoning_cut
    assert not decide([whole, whole, whole, Cast(SAFE, reasoning_cut=True)]).reasoning_cut
    assert decide([cut]).reasoning_cut
    assert not decide([whole]).reasoning_cut
    assert decide([cut, Cast(SAFE)]).reasoning_cut, "a tie in which one side was cut"


def test_a_seed_depends_on_the_verdicts_identity_and_the_sample_alone() -> None:
    def request(**changes: Any) -> JudgeRequest:  # noqa: ANN401
        post = Post("p", "text", "a" * 64, 4)
        return replace(JudgeRequest("1", post, POLICY), **changes)

    seed = seed_of(request(), "low", 0, 1)
    assert 0 <= seed < 2**63
    assert seed == seed_of(request(id="2", context=object()), "low", 0, 1)
    others = [
        seed_of(request(), "low", 1, 1),
        seed_of(request(), "low", 0, 2),
        seed_of(request(), "high", 0, 1),
        seed_of(request(run=1), "low", 0, 1),
        seed_of(request(post=Post("p", "text", "b" * 64, 4)), "low", 0, 1),
        seed_of(request(policy=replace(POLICY, sha256="c" * 64)), "low", 0, 1),
    ]
    assert len({seed, *others}) == 7


# The judge of an engine


async def test_without_settings_the_most_probable_answer_is_asked_for_once(world: World) -> None:
    (judgement,) = await world.judged("1")
    params = world.client.params[-1]
    assert (params.decoding, params.seed) == (GREEDY, None)
    assert judgement.provenance is not None
    assert (judgement.provenance.sampling, judgement.provenance.attempts) == (None, 1)
    assert judgement.confidence_method == "violation_token_probability_after_reasoning"


async def test_samples_of_one_prompt_vote_and_their_cost_is_summed(world: World) -> None:
    (judgement,) = await world.judged("1 0 1 1 0", policy=FIVE)
    assert judgement.answer == Answer("violates")
    assert (judgement.confidence, judgement.confidence_method) == (0.6, "self_consistency")
    provenance = judgement.provenance
    assert provenance is not None
    assert provenance.sampling == Sampled(1.0, 0.9, 5, Votes(violates=3, safe=2))
    prompts = world.client.prompts[-5:]
    assert len(set(prompts)) == 1
    length = len(world.client.plain.encode(prompts[0]))
    assert (provenance.attempts, provenance.prompt_tokens) == (5, 5 * length)
    assert (provenance.cached_tokens, provenance.output_tokens) == (35, 5)
    assert len(world.heard) == 5
    params = world.client.params[-5:]
    assert {one.decoding for one in params} == {FIVE.decoding}
    seeds = [one.seed for one in params]
    assert len(set(seeds)) == 5
    await world.judged("1 0 1 1 0", policy=FIVE)
    assert [one.seed for one in world.client.params[-5:]] == seeds, "a replay draws the same"
    await world.judged("1 0 1 1 0", policy=FIVE, run=1)
    assert not {one.seed for one in world.client.params[-5:]} & set(seeds)


async def test_one_drawn_answer_has_the_confidence_of_its_own_label(world: World) -> None:
    one = replace(POLICY, decoding=Decoding(0.7))
    (judgement,) = await world.judged("0", policy=one)
    assert judgement.confidence == pytest.approx(0.25)
    assert judgement.confidence_method == "violation_token_probability_after_reasoning"
    assert judgement.provenance is not None
    assert judgement.provenance.sampling == Sampled(0.7, 1.0, 1, Votes(safe=1))
    assert world.client.params[-1].seed is not None


async def test_a_malformed_sample_is_tried_again_and_then_has_no_vote(random_model: Path) -> None:
    async with world_of(random_model, attempts_max=2) as world:
        # The second sample cannot be read in two attempts, the last one is read in its second.
        (judgement,) = await world.judged("1 maybe maybe 0 1 maybe 1", policy=FIVE)
        provenance = judgement.provenance
        assert provenance is not None
        assert provenance.sampling is not None
        assert provenance.sampling.votes == Votes(violates=3, safe=1, unread=1)
        assert (judgement.answer, provenance.attempts) == (Answer("violates"), 7)
        seeds = [one.seed for one in world.client.params[-7:]]
        assert len(set(seeds)) == 7, "a second attempt draws anew"
        (judgement,) = await world.judged("maybe", policy=FIVE)
        assert judgement.answer == Answer("undetermined", parse_status="malformed")
        assert judgement.confidence is None
        assert judgement.confidence_method is None


async def test_a_timeout_leaves_the_votes_of_the_samples_that_were_in_time(
    random_model: Path,
) -> None:
    async with world_of(random_model, attempts_max=1, request_timeout_s=0.05) as world:
        first, second = await world.judged("1 wait 1 wait 0", "wait", policy=FIVE)
        assert first.answer == Answer("violates")
        assert first.provenance is not None
        assert first.provenance.sampling is not None
        assert first.provenance.sampling.votes == Votes(violates=2, safe=1, unread=2)
        assert second.answer == Answer("undetermined", parse_status="timeout")
        assert (world.client.held, world.client.stopped) == (0, 7)


async def test_each_sample_takes_a_place_in_the_engine(random_model: Path) -> None:
    async with world_of(random_model, attempts_max=1, in_flight_requests_max=9) as world:
        requests = [
            JudgeRequest(str(n), Post(str(n), "wait", str(n), 4), policy)
            for n, policy in enumerate((FOUR, FOUR, FOUR, FOUR))
        ]
        world.judge.submit(requests, world.deliver)
        await world.client.until(lambda: world.client.held == 8)
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.client.held == 8, "a third post would make 12 of at most 9"
        world.judge.cancel(requests[:2])
        await world.client.until(lambda: world.client.stopped == 8 == world.client.held)
        world.client.gate.set()
        await world.until(2)
        assert [one.request.id for one in world.delivered] == ["2", "3"]
        assert world.judge.in_flight() == 0


async def test_a_post_of_more_samples_than_places_is_asked_alone(random_model: Path) -> None:
    async with world_of(random_model, in_flight_requests_max=2) as world:
        first, second = await world.judged("1", "0", policy=FIVE)
        assert (first.answer, second.answer) == (Answer("violates"), SAFE)


async def test_a_prompt_that_the_engine_rejects_is_the_posts_fault(world: World) -> None:
    (judgement,) = await world.judged("1 reject wait wait 1", policy=FIVE)
    assert isinstance(judgement.error, PromptError)
    assert judgement.answer is None
    assert (world.client.held, world.client.stopped) == (0, 2)


async def test_an_engine_that_dies_over_a_sample_delivers_nothing(world: World) -> None:
    request = JudgeRequest("1", Post("1", "1 1 die wait 1", "1", 1), FIVE)
    world.judge.submit([request], world.deliver)
    assert isinstance(await world.judge.wait_failed(), EngineError)
    await world.client.until(lambda: world.client.stopped == 1)
    assert world.delivered == []


# Policies and rungs


def policy_of(metadata: str) -> Any:  # noqa: ANN401
    return make_policy("cats", b"No cats.", metadata=metadata.encode())


def test_a_policy_says_how_its_answers_are_drawn() -> None:
    assert policy_of("effort: low").decoding == GREEDY
    drawn = policy_of("temperature: 1\ntop_p: 0.9\nsamples: 5")
    assert drawn.decoding == Decoding(1.0, 0.9, 5)
    assert policy_of("temperature: 0.5").decoding == Decoding(0.5)
    assert policy_of("temperature: 0\nsamples: 1").decoding == GREEDY
    described = describe_policy(drawn)
    assert [described[key] for key in ("temperature", "top_p", "samples")] == [1.0, 0.9, 5]
    assert any(line.split() == ["samples", "5"] for line in show_lines(drawn))
    assert not any(line.startswith("samples") for line in show_lines(policy_of("effort: low")))
    before, after = (
        PolicySet({"cats": policy_of(text)}) for text in ("temperature: 1", "temperature: 0.5")
    )
    (change,) = diff_policies(before, after).policies
    assert [field.field for field in change.metadata] == ["temperature"]


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("samples: 5", "samples has no effect without a temperature"),
        ("temperature: 0\nsamples: 5", "samples has no effect without a temperature"),
        ("top_p: 0.5", "top_p has no effect without a temperature"),
        ("temperature: 2.5", "temperature"),
        ("temperature: 1\nsamples: 26", "samples"),
        ("temperature: 1\nsamples: 0", "samples"),
        ("temperature: 1\ntop_p: 0", "top_p"),
    ],
)
def test_declarations_that_have_no_effect_are_rejected(metadata: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        policy_of(metadata)
    values = {key: float(value) for key, value in (x.split(": ") for x in metadata.split("\n"))}
    with pytest.raises(ValidationError, match=said):
        RungSettings(effort="high", reasoning_tokens_max=512, **values)  # type: ignore[arg-type]


def test_a_rung_draws_as_it_says_and_else_as_the_policy() -> None:
    settings = CascadeSettings(
        ladder=(
            RungSettings(effort="medium", reasoning_tokens_max=1_024),
            RungSettings(effort="high", reasoning_tokens_max=2_048, temperature=1, samples=7),
        )
    )
    assert [rung.decoding for rung in Ladder(settings).rungs(SPAM)] == [
        GREEDY,
        GREEDY,
        Decoding(1.0, 1.0, 7),
    ]
    drawn = replace(SPAM, decoding=Decoding(0.5, 0.9, 3))
    assert [rung.decoding for rung in Ladder(settings).rungs(drawn)] == [
        Decoding(0.5, 0.9, 3),
        Decoding(0.5, 0.9, 3),
        Decoding(1.0, 0.9, 7),
    ]
    greedy = CascadeSettings(
        ladder=(RungSettings(effort="high", reasoning_tokens_max=2_048, temperature=0),)
    )
    assert Ladder(greedy).rungs(drawn)[1].decoding == GREEDY


def test_a_tie_climbs_and_the_rung_above_asks_in_its_own_way() -> None:
    rung = RungSettings(effort="high", reasoning_tokens_max=2_048, temperature=1, samples=7)
    rig = Rig(ladder=(rung,))
    (request,) = rig.ask("odd")
    tie = Sampled(1.0, 1.0, 4, Votes(violates=2, safe=2))
    rig.inner.say(Answer("undetermined"), 0.5, sampling=tie)
    assert (request.effort, request.decoding) == ("high", Decoding(1.0, 1.0, 7))
    rig.inner.say(Answer("undetermined"), 0.5, sampling=tie)
    assert rig.trail(request)[1:] == [
        ("safeguard", "escalated", "no_majority"),
        ("safeguard", "settled", "last_rung:no_majority"),
    ]
    verdict = build_verdict(FakeRecord(), rig.of(request), consumed_ms=1, published_ms=2)
    assert (verdict["decision"], verdict["needs_review"]) == ("undetermined", True)
    assert verdict["review_reasons"] == ["no_majority"]
    (again,) = rig.ask("odd")
    assert rig.waiting == ["odd"], "what has no majority is no answer for equal posts"
    rig.inner.say()
    assert rig.of(again).answer == SAFE


def test_a_majority_that_asks_for_a_person_is_no_tie() -> None:
    rig = Rig(ladder=())
    (request,) = rig.ask("odd")
    sampling = Sampled(1.0, 1.0, 4, Votes(violates=1, undetermined=3))
    rig.inner.say(ESCALATED, sampling=sampling)
    assert rig.trail(request)[1:] == [("safeguard", "settled", "last_rung:escalated")]
    verdict = build_verdict(FakeRecord(), rig.of(request), consumed_ms=1, published_ms=2)
    assert verdict["review_reasons"] == ["label"]


async def test_reasoning_that_was_cut_never_passes_for_an_answer(world: World) -> None:
    """From the engine to the verdict: marked, asked again, not kept for equal posts, and left to people."""
    thinker = Thinker(world.client.plain._tokenizer, world.client.plain._date)
    world.judge._asker._family = thinker
    (marked,) = await world.judged("hmmm/1", policy=replace(POLICY, reasoning_tokens_max=4))
    assert marked.provenance is not None
    assert (marked.provenance.reasoning_cut, marked.provenance.finish_reason) == (True, "stop")
    rig = Rig()
    (request,) = rig.ask("long")
    for effort in ("low", "medium", "high"):
        assert (rig.inner.asked[-1][1] or "low") == effort
        rig.inner.say(Answer("violates", "S1"), 1.0, cut=True)
    assert rig.trail(request)[-1] == ("safeguard", "settled", "last_rung:reasoning_cut")
    verdict = build_verdict(FakeRecord(), rig.of(request), consumed_ms=1, published_ms=2)
    assert verdict["review_reasons"] == ["reasoning_cut"]
    assert (verdict["decision"], verdict["provenance"]["reasoning_cut"]) == ("violates", True)
    rig.ask("long")
    assert rig.waiting == ["long"]


def test_low_agreement_climbs() -> None:
    rig = Rig()
    (request,) = rig.ask("odd")
    rig.inner.say(Answer("violates", "S1"), 0.6)
    assert rig.inner.asked[-1][1] == "medium"
    rig.inner.say(Answer("violates", "S1"), 1.0)
    assert rig.trail(request)[1] == ("safeguard", "escalated", "uncertain")


def test_under_pressure_a_policy_is_asked_once_and_the_verdict_says_so() -> None:
    drawn = with_tiers("safeguard", decoding=Decoding(1.0, 1.0, 5))
    rig = Rig()
    rig.ask("old")
    rig.clock.advance(61)
    rig.cascade.observe(None)
    (request,) = rig.ask("under pressure", policy=drawn)
    assert request.decoding == Decoding(1.0, 1.0, 1)
    rig.inner.say()
    provenance = rig.of(request).provenance
    assert provenance is not None
    assert provenance.degraded == ("samples_lowered",)


# Verdicts, archive and replay


async def test_a_verdict_says_how_its_answer_was_drawn(world: World) -> None:
    drawn, greedy = await world.judged("1 0 1 1 0", "1 0", policy=FIVE), await world.judged("0")
    verdict = build_verdict(FakeRecord(), drawn[0], consumed_ms=1, published_ms=2)
    assert verdict["provenance"]["sampling"] == {
        "temperature": 1.0,
        "top_p": 0.9,
        "samples": 5,
        "votes": {"violates": 3, "safe": 2, "undetermined": 0, "unread": 0},
    }
    assert not verdict["needs_review"]
    verdict = build_verdict(FakeRecord(), greedy[0], consumed_ms=1, published_ms=2)
    assert verdict["provenance"]["sampling"] is None


def test_the_archive_keeps_how_answers_are_drawn() -> None:
    policy = policy_of("temperature: 1\nsamples: 5")
    name, content = write_entry(policy, Judging("scripted", "m", None, None, "2025-01-01"), None)
    assert read_entry(name, content, "here").policy().decoding == Decoding(1.0, 1.0, 5)


def test_a_replay_names_another_way_of_drawing_where_the_answer_differs() -> None:
    sampling = {"temperature": 1.0, "top_p": 0.9, "samples": 5, "votes": {}}
    then = {
        "decision": "safe",
        "policy": {"category": None, "rule_ids": [], "labels": []},
        "provenance": {"sampling": sampling},
    }
    assert compare(then, SAFE) == ()
    assert compare(then, Answer("violates")) == (
        "decision: safe then, violates now",
        "sampling: temperature 1, top_p 0.9, samples 5 then, greedy now",
    )
    same = Sampled(1.0, 0.9, 5, Votes(violates=5))
    assert compare(then, Answer("violates"), sampling=same) == (
        "decision: safe then, violates now",
    )


def test_a_replay_compares_the_labels_of_the_policy() -> None:
    then = {
        "decision": "undetermined",
        "policy": {"category": None, "rule_ids": [], "labels": ["ESCALATE"]},
        "provenance": {"sampling": None},
    }
    assert compare(then, ESCALATED) == ()
    assert compare(then, Answer("undetermined", labels=("AGE_GATE",), rule_ids=("b", "a"))) == (
        "labels: ESCALATE then, AGE_GATE now",
        "rule_ids: none then, a, b now",
    )


def test_a_curve_of_another_way_to_measure_confidence_is_not_applied() -> None:
    curve = {
        "policy_sha256": policy_of("temperature: 1\nsamples: 5").sha256,
        "model": "m",
        "revision": None,
        "confidence_method": "violation_token_probability_after_reasoning",
        "fitted_on": 100,
        "method": "platt",
        "a": 2.0,
        "b": 1.0,
    }
    for method, used in (
        ("self_consistency", False),
        ("violation_token_probability_after_reasoning", True),
    ):
        policy = make_policy(
            "cats",
            b"No cats.",
            metadata=b"temperature: 1\nsamples: 5",
            calibration=orjson.dumps(curve),
        )
        request = JudgeRequest("1", Post("p", "t", "a" * 64, 1), policy)
        judgement = Judgement(
            request,
            Answer("violates"),
            provenance=Provenance("safeguard", "m"),
            confidence=0.6,
            confidence_method=method,
        )
        confidence = build_verdict(FakeRecord(), judgement, consumed_ms=1, published_ms=2)[
            "confidence"
        ]
        assert (confidence["value"] != 0.6) is used
        assert ("platt" in confidence["method"]) is used
