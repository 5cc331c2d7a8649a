"""The ladder: where it begins, when it climbs, how it ends, and what it adds up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from stream_guard.core.errors import PromptError
from stream_guard.judging.contract import Answer
from stream_guard.judging.tiers.ladder import Ladder, Rung
from stream_guard.policies.calibration import IsotonicCalibration
from stream_guard.settings import CascadeSettings
from tests.unit.judging.cascade_doubles import POLICY, SAFE, SEVERE, VIOLATES, Rig

TRUNCATED = Answer("undetermined", parse_status="truncated")


def rig(**settings: Any) -> Rig:  # noqa: ANN401
    return Rig(tiers=("safeguard",), **settings)


def test_it_begins_at_the_policys_own_effort_and_budget() -> None:
    ladder = Ladder(CascadeSettings())
    assert ladder.rungs(POLICY) == (Rung("low", 512), Rung("medium", 1_024), Rung("high", 2_048))
    medium = replace(POLICY, effort="medium", reasoning_tokens_max=1_500)
    assert ladder.rungs(medium) == (Rung("medium", 1_500), Rung("high", 2_048))
    high = replace(POLICY, effort="high", reasoning_tokens_max=3_000)
    assert ladder.rungs(high) == (Rung("high", 3_000),)
    assert Ladder(CascadeSettings(ladder=())).rungs(POLICY) == (Rung("low", 512),)


def test_a_policys_own_budget_is_kept_where_it_is_larger() -> None:
    policy = replace(POLICY, reasoning_tokens_max=1_600)
    assert Ladder(CascadeSettings()).rungs(policy)[1:] == (
        Rung("medium", 1_600),
        Rung("high", 2_048),
    )


@pytest.mark.parametrize(
    ("ladder", "says"),
    [
        ([{"effort": "low", "reasoning_tokens_max": 1}], "'medium' or 'high'"),
        ([{"effort": "medium"}], "reasoning_tokens_max"),
        ([{"effort": "medium", "reasoning_tokens_max": 0}], "greater than or equal to 1"),
        ([{"effort": "high", "reasoning_tokens_max": 9}] * 2, "each effort at most once"),
        (
            [
                {"effort": "high", "reasoning_tokens_max": 9},
                {"effort": "medium", "reasoning_tokens_max": 9},
            ],
            "medium before high",
        ),
        (
            [
                {"effort": "medium", "reasoning_tokens_max": 9},
                {"effort": "high", "reasoning_tokens_max": 8},
            ],
            "at least the budget of the one below",
        ),
    ],
)
def test_a_ladder_that_makes_no_sense_is_refused(ladder: Any, says: str) -> None:  # noqa: ANN401
    with pytest.raises(ValidationError, match=says):
        CascadeSettings(ladder=ladder)


def test_a_band_that_is_upside_down_is_refused() -> None:
    with pytest.raises(ValidationError, match="lower end first"):
        CascadeSettings(uncertain_band=(0.8, 0.2))


@pytest.mark.parametrize(
    ("answer", "confidence"),
    [
        (SAFE, None),
        (SAFE, 0.19),
        (VIOLATES, 0.81),
        (Answer("violates", "S1", parse_status="repaired"), None),
        (Answer("undetermined", parse_status="timeout"), None),
        (Answer("safe", "S2"), 0.01),
    ],
)
def test_one_rung_is_enough(answer: Answer, confidence: float | None) -> None:
    r = rig()
    r.judged("post", answer, confidence)
    assert r.waiting == []
    assert len(r.got) == 1


@pytest.mark.parametrize(
    ("answer", "confidence", "reason"),
    [
        (SAFE, 0.2, "uncertain"),
        (VIOLATES, 0.8, "uncertain"),
        (TRUNCATED, None, "truncated"),
        (Answer("undetermined", parse_status="malformed"), None, "malformed"),
        (Answer("undetermined", labels=("ESCALATE",)), None, "escalated"),
        (Answer("undetermined", parse_status="empty"), None, "empty"),
        (SEVERE, 0.99, "severe"),
        (SEVERE, None, "severe"),
    ],
)
def test_the_next_rung_is_asked(answer: Answer, confidence: float | None, reason: str) -> None:
    r = rig()
    (request,) = r.ask("post")
    r.inner.say(answer, confidence)
    assert r.got == []
    assert r.inner.asked == [("post", None, None), ("post", "medium", 1_024)]
    r.inner.say(SAFE, 0.01)
    assert r.trail(request) == [
        ("safeguard", "escalated", reason),
        ("safeguard", "settled", "answered"),
    ]
    assert r.counts() == {("safeguard", "escalated"): 1, ("safeguard", "settled"): 1}


def test_an_answer_after_cut_reasoning_climbs_to_an_answer_that_is_not() -> None:
    r = rig()
    (request,) = r.ask("post")
    r.inner.say(SAFE, 0.01, cut=True)
    r.inner.say(VIOLATES, 0.99)
    assert r.trail(request) == [
        ("safeguard", "escalated", "reasoning_cut"),
        ("safeguard", "settled", "answered"),
    ]
    judgement = r.of(request)
    assert judgement.answer is VIOLATES
    assert judgement.provenance is not None
    assert not judgement.provenance.reasoning_cut


def test_a_cut_on_the_last_rung_stays_with_the_answer() -> None:
    r = rig()
    (request,) = r.ask("post")
    for _ in range(3):
        r.inner.say(SAFE, 0.01, cut=True)
    assert r.trail(request)[-1] == ("safeguard", "settled", "last_rung:reasoning_cut")
    judgement = r.of(request)
    assert judgement.answer is SAFE
    assert judgement.provenance is not None
    assert judgement.provenance.reasoning_cut
    assert r.waiting == []


def test_whether_the_published_answer_was_cut_is_what_counts() -> None:
    r = rig()
    cut_below, cut_above = r.ask("cut below", "cut above")
    r.inner.say(VIOLATES, 0.99, cut=True, requests=[cut_below])
    r.inner.say(VIOLATES, 0.5, requests=[cut_above])
    for _ in range(2):  # no higher rung decides
        r.inner.say(TRUNCATED, cut=True, requests=[cut_above])
        r.inner.say(TRUNCATED, requests=[cut_below])
    for request, cut in ((cut_below, True), (cut_above, False)):
        provenance = r.of(request).provenance
        assert provenance is not None
        assert (provenance.effort, provenance.reasoning_cut) == ("low", cut)


def test_how_sure_an_answer_is_is_read_off_the_policys_curve_where_it_has_one_for_it() -> None:
    # Everything up to 0.9 is worth 0.5; of another model it would say nothing.
    points = ((0.9, 0.5), (0.95, 0.99))
    for model, asked in (("manual", 2), ("another", 1)):
        curve = IsotonicCalibration(
            policy_sha256=POLICY.sha256,
            model=model,
            confidence_method="test",
            fitted_on=100,
            method="isotonic",
            points=points,
        )
        r = rig()
        r.ask("post", policy=replace(POLICY, calibration=curve))
        r.inner.say(VIOLATES, 0.85)
        assert len(r.inner.asked) == asked


def test_all_rungs_add_up_and_the_last_ones_answer_holds() -> None:
    r = rig()
    (request,) = r.ask("post")
    started_ns = r.clock.wall_ns() - 5_000_000
    r.inner.say(SAFE, 0.5)
    r.clock.advance(1)
    r.inner.say(VIOLATES, 0.5)
    r.clock.advance(1)
    r.inner.say(VIOLATES, 0.6)
    judgement = r.of(request)
    provenance = judgement.provenance
    assert provenance is not None
    assert judgement.answer is VIOLATES
    assert judgement.confidence == 0.6
    assert provenance.effort == "high"
    assert (provenance.prompt_tokens, provenance.cached_tokens) == (300, 270)
    assert (provenance.output_tokens, provenance.attempts) == (30, 3)
    assert [(s.effort, s.outcome, s.reason) for s in provenance.trail] == [
        ("low", "escalated", "uncertain"),
        ("medium", "escalated", "uncertain"),
        ("high", "settled", "last_rung:uncertain"),
    ]
    assert all(step.duration_us == 5_000 for step in provenance.trail)
    assert (judgement.started_ns, judgement.finished_ns) == (started_ns, r.clock.wall_ns())
    assert [budget for _, _, budget in r.inner.asked] == [None, 1_024, 2_048]


def test_what_no_rung_can_read_is_undetermined() -> None:
    r = rig()
    (request,) = r.ask("post")
    for _ in range(3):
        r.inner.say(TRUNCATED)
    assert r.of(request).answer == TRUNCATED
    assert r.trail(request)[-1] == ("safeguard", "settled", "last_rung:truncated")
    assert r.waiting == []


@pytest.mark.parametrize(("last", "doubt"), [("escalated", "escalated"), ("cut off", "truncated")])
def test_an_answer_for_people_holds_on_the_last_rung_and_over_one_that_cannot_be_read(
    last: str, doubt: str
) -> None:
    escalated = Answer("undetermined", labels=("ESCALATE",), needs_review=True)
    r = rig()
    (request,) = r.ask("post")
    r.inner.say(escalated)
    r.inner.say(escalated)
    r.inner.say(escalated if last == "escalated" else TRUNCATED)
    assert r.of(request).answer == escalated
    assert r.trail(request)[-1] == ("safeguard", "settled", f"last_rung:{doubt}")
    assert r.waiting == []


def test_a_rung_that_decides_nothing_does_not_undo_the_one_below() -> None:
    r = rig()
    (request,) = r.ask("post")
    r.inner.say(VIOLATES, 0.7)
    r.inner.say(TRUNCATED)
    r.inner.say(Answer("undetermined", parse_status="timeout"))
    judgement = r.of(request)
    assert judgement.answer is VIOLATES
    assert judgement.confidence == 0.7
    assert judgement.provenance is not None
    assert (judgement.provenance.effort, judgement.provenance.attempts) == ("low", 3)
    assert [reason for _, _, reason in r.trail(request)] == ["uncertain", "truncated", "timeout"]


def test_a_higher_rung_decides_after_one_that_did_not() -> None:
    r = rig()
    (request,) = r.ask("post")
    r.inner.say(TRUNCATED)
    r.inner.say(SAFE, 0.1)
    assert r.of(request).answer is SAFE
    assert r.of(request).confidence == 0.1


def test_a_rung_that_the_engine_refuses_keeps_the_answer_below() -> None:
    r = rig()
    (request,) = r.ask("post")
    r.inner.say(VIOLATES, 0.7)
    r.inner.say(error=PromptError("too long with this budget"))
    assert r.of(request).answer is VIOLATES
    assert r.of(request).error is None
    assert r.trail(request) == [
        ("safeguard", "escalated", "uncertain"),
        ("safeguard", "skipped", "refused:prompt"),
    ]


def test_a_post_that_the_engine_refuses_at_once_is_an_error() -> None:
    r = rig()
    (request,) = r.ask("post")
    error = PromptError("too long")
    r.inner.say(error=error)
    assert (r.of(request).answer, r.of(request).error) == (None, error)


def test_a_severe_violation_is_confirmed_once() -> None:
    r = rig()
    (request,) = r.ask("post")
    r.inner.say(SEVERE, 0.99)
    r.inner.say(SEVERE, 0.99)
    assert r.of(request).answer is SEVERE
    assert [reason for _, _, reason in r.trail(request)] == ["severe", "answered"]


def test_a_severe_violation_that_is_new_on_a_rung_is_confirmed_there() -> None:
    r = rig()
    (request,) = r.ask("post")
    r.inner.say(VIOLATES, 0.5)
    r.inner.say(SEVERE, 0.99)
    r.inner.say(SEVERE, 0.99)
    assert [reason for _, _, reason in r.trail(request)] == ["uncertain", "severe", "answered"]


def test_which_severities_are_severe_is_a_setting() -> None:
    r = rig(severe=("critical",))
    r.judged("post", SEVERE, 0.99)
    assert len(r.got) == 1


def test_a_post_that_is_cancelled_on_a_rung_is_asked_no_more() -> None:
    r = rig()
    (request,) = r.ask("post")
    r.inner.say(SAFE, 0.5)
    r.cascade.cancel([request])
    assert r.inner.cancelled == [request.id]
    assert r.waiting == []
    assert r.cascade.in_flight() == 0


def test_under_pressure_nothing_climbs_and_the_verdict_says_so() -> None:
    r = rig()
    uncertain, sure = r.ask("uncertain", "sure")
    r.clock.advance(61)
    r.cascade.observe(None)
    r.inner.say(VIOLATES, 0.5, requests=[uncertain])
    r.inner.say(SAFE, 0.01, requests=[sure])
    provenance = r.of(uncertain).provenance
    assert provenance is not None
    assert provenance.degraded == ("ladder_cut",)
    assert r.trail(uncertain) == [("safeguard", "settled", "last_rung:uncertain")]
    provenance = r.of(sure).provenance
    assert provenance is not None
    assert provenance.degraded == ()


def test_an_effort_that_was_lowered_is_made_up_for_once_pressure_is_gone() -> None:
    r = rig(pressure_hold_s=0)
    policy = replace(POLICY, effort="medium")
    r.ask("old")
    r.clock.advance(61)
    r.cascade.observe(None)
    (request,) = r.ask("post", policy=policy)
    assert r.inner.asked[-1] == ("post", "low", None)
    r.inner.say(requests=r.inner.waiting[:1])
    r.cascade.observe(None)
    assert r.cascade.level == 0
    r.inner.say(SAFE, 0.5)
    assert r.inner.asked[-1] == ("post", "medium", 512)
    r.inner.say(SAFE, 0.1)
    provenance = r.of(request).provenance
    assert provenance is not None
    assert provenance.degraded == ()
    assert [step.effort for step in provenance.trail] == ["low", "medium"]
