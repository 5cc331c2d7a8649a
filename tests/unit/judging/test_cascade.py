"""The cascade: tiers in order, each settles or escalates; every request comes back exactly once, unless cancelled."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from stream_guard.core.errors import EngineError, PolicyError, PromptError
from stream_guard.judging.contract import Answer
from stream_guard.judging.tiers.registry import make_tiers
from stream_guard.judging.tiers.tiered_request import SLICE_BYTES_MAX, SLICE_POSTS_MAX
from stream_guard.judging.tiers.worker import SCREENED_MAX
from stream_guard.policies.policy import Policy, PolicySet, make_policy
from stream_guard.settings import Settings
from tests.hang import HANG_S
from tests.unit.judging.cascade_doubles import (
    POLICY,
    SAFE,
    VIOLATES,
    Rig,
    WordTier,
    asks,
    with_tiers,
)

if TYPE_CHECKING:
    from stream_guard.judging.contract import JudgeRequest


def rules(word: str = "spam") -> WordTier:
    return WordTier("rules", word)


def classifier(word: str = "scam") -> WordTier:
    return WordTier("classifier", word, blocking=True)


ALL = ("duplicates", "rules", "classifier", "safeguard")


def scored(*tiers: str) -> Policy:
    """Return a policy with these tiers."""
    return with_tiers(*(tiers or ALL))


async def test_each_tier_settles_or_escalates_and_says_why() -> None:
    rig = Rig(rules(), classifier())
    await rig.cascade.start(PolicySet({}))
    policy = scored()
    spam, scam, fine = rig.ask("spam", "scam", "fine", policy=policy)
    assert rig.trail(spam) == [
        ("duplicates", "escalated", "new"),
        ("rules", "settled", "word:spam"),
    ]
    await rig.until(waiting=1)
    rig.inner.say(SAFE, 0.01)
    assert rig.trail(scam) == [
        ("duplicates", "escalated", "new"),
        ("rules", "escalated", "no_word"),
        ("classifier", "settled", "word:scam"),
    ]
    assert rig.trail(fine) == [
        ("duplicates", "escalated", "new"),
        ("rules", "escalated", "no_word"),
        ("classifier", "escalated", "no_word"),
        ("safeguard", "settled", "answered"),
    ]
    judgement = rig.of(scam)
    provenance = judgement.provenance
    assert provenance is not None
    assert judgement.answer is VIOLATES
    assert (judgement.confidence, judgement.confidence_method) == (1.0, "exact")
    assert (provenance.tier, provenance.model) == ("classifier", "words-1")
    assert (provenance.attempts, provenance.output_tokens, provenance.effort) == (0, 0, None)
    assert [text for text, _, _ in rig.inner.asked] == ["fine"]
    assert rig.counts() == {
        ("duplicates", "escalated"): 3,
        ("rules", "settled"): 1,
        ("rules", "escalated"): 2,
        ("classifier", "settled"): 1,
        ("classifier", "escalated"): 1,
        ("safeguard", "settled"): 1,
    }
    await rig.cascade.close()


def test_a_policy_has_its_own_tiers_in_its_own_order() -> None:
    tier = rules()
    rig = Rig(tier)
    (first,) = rig.ask("spam", policy=with_tiers("safeguard"))
    assert tier.looks == []
    assert rig.waiting == ["spam"]
    policy = with_tiers("rules", "duplicates", "safeguard")
    rig.ask("fine", policy=policy)
    rig.inner.say()
    assert rig.trail(first) == [("safeguard", "settled", "answered")]
    (second,) = rig.ask("fine", policy=policy)
    assert [name for name, _, _ in rig.trail(second)] == ["rules", "duplicates"]


def test_an_empty_post_is_safe_and_comes_to_no_tier() -> None:
    tier = rules()
    rig = Rig(tier)
    requests = asks("", "spam", "fine", policy=scored("rules", "safeguard"))
    requests[0].post.empty = True
    rig.cascade.submit(requests, rig.deliver)
    assert rig.trail(requests[0]) == [("empty", "settled", "no_text")]
    assert rig.of(requests[0]).answer == Answer("safe", parse_status="not_applicable")
    assert rig.trail(requests[1]) == [("rules", "settled", "word:spam")]
    assert rig.waiting == ["fine"]
    assert rig.counts()["empty", "settled"] == 1


def test_the_settings_tiers_are_those_of_policies_that_do_not_say() -> None:
    tier = rules()
    rig = Rig(tier, tiers=("safeguard",))
    rig.ask("spam")
    assert tier.looks == []
    assert rig.waiting == ["spam"]


def test_a_tier_that_has_nothing_to_say_under_a_policy_is_passed_over() -> None:
    tier = rules()
    tier.wanted = False
    rig = Rig(tier)
    (request,) = rig.ask("spam")
    rig.inner.say()
    assert tier.looks == []
    assert [name for name, _, _ in rig.trail(request)] == ["duplicates", "safeguard"]


def test_rules_are_for_policies_with_rules_and_the_classifier_for_those_with_thresholds() -> None:
    from stream_guard.policies.metadata import Thresholds

    tiers = {tier.name: tier for tier in make_tiers(Settings())}
    assert set(tiers) == {"rules", "classifier"}
    bare = make_policy("spam", b"S1: Advertising")
    terms = b"rules:\n  - {id: ads, outcome: safe, terms: [hello]}\n"
    with_rules = make_policy("spam", b"S1: Advertising", rules={"rules.yaml": terms})
    with_thresholds = replace(bare, thresholds=Thresholds())
    wanted = [
        [tiers[name].wants(policy) for policy in (bare, with_rules, with_thresholds)]
        for name in ("rules", "classifier")
    ]
    assert wanted == [[False, True, False], [False, False, True]]


def test_what_no_tier_settles_is_undetermined() -> None:
    rig = Rig(rules())
    spam, fine = rig.ask("spam", "fine", policy=with_tiers("rules"))
    assert rig.of(spam).answer is VIOLATES
    judgement = rig.of(fine)
    assert judgement.answer == Answer("undetermined", parse_status="not_applicable")
    assert judgement.provenance is not None
    assert (judgement.provenance.tier, judgement.provenance.model) == ("none", "none")
    assert rig.trail(fine) == [("rules", "escalated", "no_word")]
    assert rig.waiting == []


def test_what_a_cheap_tier_settled_is_known_when_it_comes_again() -> None:
    tier = rules()
    rig = Rig(tier)
    (first,) = rig.ask("spam")
    (second,) = rig.ask("spam")
    assert rig.trail(second) == [("duplicates", "settled", f"repeats:{first.post.id}")]
    assert tier.looks == [["spam"]]


def test_a_list_is_looked_at_together_and_delivered_together() -> None:
    tier = rules()
    rig = Rig(tier)
    rig.ask("spam 1", "fine 1", "spam 2", "fine 2")
    assert tier.looks == [["spam 1", "fine 1", "spam 2", "fine 2"]]
    assert rig.lists == [2]
    assert rig.waiting == ["fine 1", "fine 2"]
    rig.inner.say()
    assert rig.lists == [2, 2]


async def test_policies_of_one_list_are_looked_at_apart() -> None:
    tier = rules()
    rig = Rig(tier)
    one, two = with_tiers("rules", "safeguard"), with_tiers("safeguard")
    rig.cascade.submit([*asks("spam", policy=one), *asks("spam", policy=two)], rig.deliver)
    await rig.until(got=1)
    await rig.until(waiting=1)
    assert tier.looks == [["spam"]]


# Slices: the event loop gets its turn


@pytest.mark.parametrize(
    ("text", "count", "first"),
    [("fine", SLICE_POSTS_MAX + 5, SLICE_POSTS_MAX), ("x" * 1_000, 140, SLICE_BYTES_MAX // 1_000)],
)
async def test_a_long_list_is_looked_at_in_slices(text: str, count: int, first: int) -> None:
    tier = rules()
    rig = Rig(tier)
    texts = [f"{text} {n:04}" for n in range(count)]
    rig.ask(*texts)
    assert abs(len(tier.looks[0]) - first) <= 1
    late = rig.ask("late")
    assert len(tier.looks) == 1
    await rig.until(waiting=count + 1)
    assert [text for look in tier.looks for text in look] == [*texts, "late"]
    assert rig.inner.waiting[-1] is late[0]


async def test_what_is_cancelled_before_its_slice_is_not_looked_at() -> None:
    tier = rules()
    rig = Rig(tier)
    requests = rig.ask(*(f"fine {n}" for n in range(SLICE_POSTS_MAX + 5)))
    rig.cascade.cancel(requests[SLICE_POSTS_MAX:-1])
    await rig.until(waiting=SLICE_POSTS_MAX + 1)
    assert tier.looks[1] == [requests[-1].post.text]


# The thread


async def test_a_tier_that_blocks_runs_in_one_thread_and_gathers_what_comes_meanwhile() -> None:
    tier = classifier()
    rig = Rig(tier)
    policy = scored("classifier", "safeguard")
    tier.gate.clear()
    rig.ask("a", policy=policy)
    rig.ask("b", policy=policy)
    rig.ask("c", "scam", policy=policy)
    tier.gate.set()
    await rig.until(got=1)
    await rig.until(waiting=3)
    assert tier.looks == [["a"], ["b", "c", "scam"]]
    assert len(tier.threads) == 1
    assert threading.get_ident() not in tier.threads
    await rig.cascade.close()


async def test_one_look_takes_no_more_than_so_many_posts_and_no_policy_waits_for_ever() -> None:
    tier = classifier()
    rig = Rig(tier)
    many, few = scored("classifier", "safeguard"), scored("classifier", "safeguard")
    tier.gate.clear()
    rig.ask("first", policy=many)
    requests = asks(*(f"many {n}" for n in range(SCREENED_MAX + 3)), policy=many)
    for at in range(0, len(requests), 64):
        rig.cascade.submit(requests[at : at + 64], rig.deliver)
    rig.ask("few", policy=few)
    tier.gate.set()
    await rig.until(waiting=SCREENED_MAX + 5)
    assert [len(look) for look in tier.looks] == [1, SCREENED_MAX, 1, 3]
    await rig.cascade.close()


async def test_what_is_cancelled_while_the_thread_works_is_dropped() -> None:
    tier = classifier()
    rig = Rig(tier)
    policy = scored("classifier", "safeguard")
    tier.gate.clear()
    at_work = rig.ask("scam 1", "fine 1", policy=policy)
    waiting = rig.ask("scam 2", "fine 2", policy=policy)
    rig.cascade.cancel([*at_work, waiting[0]])
    tier.gate.set()
    await rig.until(waiting=1)
    assert tier.looks == [["scam 1", "fine 1"], ["fine 2"]]
    rig.inner.say()
    assert [judgement.request for judgement in rig.got] == [waiting[1]]
    await rig.cascade.close()


async def test_a_tier_that_fails_ends_the_judge_with_its_error() -> None:
    for tier in (classifier(), rules()):
        rig = Rig(tier)
        await rig.cascade.start(PolicySet({}))
        tier.error = RuntimeError("broken")
        failed = asyncio.create_task(rig.cascade.wait_failed())
        await asyncio.sleep(0)
        texts = [f"post {n}" for n in range(SLICE_POSTS_MAX + 1)]
        if tier.blocking:
            rig.ask(*texts, policy=scored("classifier", "safeguard"))
        else:  # within submit() the caller has it; in a later turn nobody is above
            tier.error = None
            rig.ask(*texts)
            tier.error = RuntimeError("broken")
        assert str(await asyncio.wait_for(failed, HANG_S)) == "broken"
        await rig.cascade.close()


async def test_the_failure_of_the_judge_inside_is_the_cascades() -> None:
    rig = Rig()
    await rig.cascade.start(PolicySet({}))
    error = EngineError("dead")
    rig.inner.fail(error)
    assert await rig.cascade.wait_failed() is error


async def test_every_tier_is_prepared_before_the_model() -> None:
    tiers = rules(), classifier()
    rig = Rig(*tiers)
    policies = PolicySet({"spam": POLICY})
    await rig.cascade.start(policies)
    assert [tier.prepared for tier in tiers] == [[policies], [policies]]
    assert rig.inner.policies is policies

    def refuse(policies: PolicySet) -> None:  # noqa: ARG001
        raise PolicyError("spam/rules.yaml:3: bad")

    tiers[1].prepare = refuse  # type: ignore[method-assign]
    edited = PolicySet({"spam": replace(POLICY, sha256="1" * 64)})
    with pytest.raises(PolicyError, match=r"rules\.yaml:3"):
        await rig.cascade.prepare(edited)
    assert rig.inner.policies is policies
    await rig.cascade.close()


async def test_nothing_is_left_after_close() -> None:
    tier = classifier()
    rig = Rig(tier)
    rig.ask("fine", policy=scored("classifier", "safeguard"))
    await rig.until(waiting=1)
    rig.ask("late", policy=scored("classifier", "safeguard"))
    await rig.cascade.close()
    assert rig.cascade.in_flight() == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tiers")]


# Pressure


def test_under_more_pressure_only_severe_policies_are_asked() -> None:
    rig = Rig(rules(), pressure_severe_only_age_s_max=100)
    mild = with_tiers(*ALL, taxonomy=replace(POLICY.taxonomy, categories=()))
    rig.ask("old")
    rig.clock.advance(101)
    rig.cascade.observe(None)
    assert rig.cascade.level == 2
    (severe,) = rig.ask("fine")
    spam, fine = rig.ask("spam", "fine", policy=mild)
    assert severe in rig.inner.waiting
    assert rig.of(spam).provenance is not None
    assert rig.of(spam).provenance.degraded == ()  # type: ignore[union-attr]
    judgement = rig.of(fine)
    assert judgement.answer is not None
    assert judgement.answer.decision == "undetermined"
    assert judgement.provenance is not None
    assert judgement.provenance.degraded == ("safeguard_skipped",)
    assert rig.trail(fine)[-1] == ("safeguard", "skipped", "pressure:severe_only")
    assert rig.counts()["safeguard", "skipped"] == 1


def test_under_the_most_pressure_the_model_is_not_asked_and_it_recovers_by_itself() -> None:
    rig = Rig(rules(), pressure_undetermined_lag_records_max=1_000, pressure_hold_s=10)
    rig.cascade.observe(1_001)
    assert rig.cascade.level == 3
    (request,) = rig.ask("fine")
    assert rig.trail(request)[-1] == ("safeguard", "skipped", "pressure:undetermined")
    rig.cascade.observe(10)
    rig.clock.advance(10)
    rig.cascade.observe(10)
    rig.clock.advance(10)
    rig.cascade.observe(10)
    assert rig.cascade.level == 0
    (again,) = rig.ask("fine")  # what was left out is not a known answer
    rig.inner.say()
    assert rig.of(again).answer is SAFE


def test_a_change_of_pressure_is_logged_and_counted_once() -> None:
    rig = Rig(pressure_hold_s=0)
    rig.ask("old")
    rig.clock.advance(61)
    with structlog.testing.capture_logs() as logs:
        rig.cascade.observe(7)
        rig.cascade.observe(7)
        rig.inner.say()
        rig.cascade.observe(0)
        rig.cascade.observe(0)
    assert [(log["event"], log["before"], log["level"]) for log in logs] == [
        ("pressure_changed", "normal", "effort"),
        ("pressure_changed", "effort", "normal"),
    ]
    assert (logs[0]["oldest_s"], logs[0]["lag_records"]) == (61.0, 7)
    assert logging.getLevelName(logging.WARNING).lower() == logs[0]["log_level"]
    value = rig.metrics.registry.get_sample_value
    assert value("stream_guard_pressure_changes_total", {"level": "effort"}) == 1
    assert value("stream_guard_pressure_changes_total", {"level": "normal"}) == 1
    assert value("stream_guard_pressure_level") == 0


def test_the_oldest_post_is_the_oldest_that_is_not_delivered() -> None:
    rig = Rig()
    assert rig.cascade.oldest_s() == 0
    (first,) = rig.ask("a")
    rig.clock.advance(5)
    rig.ask("b")
    assert rig.cascade.oldest_s() == 5
    rig.inner.say(requests=[first])
    assert rig.cascade.oldest_s() == 0
    rig.clock.advance(2)
    assert rig.cascade.oldest_s() == 2


# Exactly once


class ExactlyOnce(RuleBasedStateMachine):
    """Whatever is asked, answered and cancelled, in whatever order: each request comes back once, or was cancelled."""

    lists = Bundle("lists")

    @initialize()
    def begin(self) -> None:
        self.rig = Rig(
            rules(),
            pressure_effort_lag_records_max=10,
            pressure_severe_only_lag_records_max=20,
            pressure_undetermined_lag_records_max=30,
            pressure_hold_s=0,
            duplicates_entries_max=3,
        )
        self.asked: set[str] = set()
        self.cancelled: set[str] = set()
        self.policies = (
            POLICY,
            with_tiers("rules", "duplicates", "safeguard"),
            with_tiers("duplicates", "rules"),
            with_tiers("duplicates", "safeguard", effort="medium"),
        )

    @rule(
        target=lists,
        texts=st.lists(st.sampled_from("abcde") | st.just("spam"), min_size=1, max_size=6),
        policy=st.integers(0, 3),
    )
    def ask(self, texts: list[str], policy: int) -> list[JudgeRequest]:
        requests = asks(*texts, policy=self.policies[policy])
        self.asked |= {request.id for request in requests}
        self.rig.cascade.submit(requests, self.rig.deliver)
        return requests

    @rule(
        share=st.floats(0, 1),
        answer=st.sampled_from(
            [SAFE, VIOLATES, Answer("undetermined", parse_status="empty"), None]
        ),
        confidence=st.none() | st.floats(0, 1),
    )
    def answer(self, share: float, answer: Answer | None, confidence: float | None) -> None:
        waiting = self.rig.inner.waiting
        some = waiting[: round(share * len(waiting))]
        error = PromptError("bad") if answer is None else None
        self.rig.inner.say(answer or SAFE, confidence, error=error, requests=some)

    @rule(requests=consumes(lists), every=st.integers(1, 2))
    def cancel(self, requests: list[JudgeRequest], every: int) -> None:
        delivered = {judgement.request.id for judgement in self.rig.got}
        gone = requests[::every]
        self.cancelled |= {request.id for request in gone if request.id not in delivered}
        self.rig.cascade.cancel(gone)

    @rule(lag=st.sampled_from([0, 11, 21, 31]), seconds=st.floats(0, 5_000))
    def observe(self, lag: int, seconds: float) -> None:
        self.rig.clock.advance(seconds)
        self.rig.cascade.observe(lag)

    @invariant()
    def nothing_is_delivered_twice_or_after_its_cancellation(self) -> None:
        got = [judgement.request.id for judgement in self.rig.got]
        assert len(set(got)) == len(got)
        assert self.cancelled.isdisjoint(got)
        assert set(got) <= self.asked
        assert self.rig.cascade.in_flight() == len(self.asked) - len(got) - len(self.cancelled)

    @invariant()
    def each_has_an_answer_or_an_error_and_says_what_was_left_out(self) -> None:
        for judgement in self.rig.got:
            assert (judgement.answer is None) != (judgement.error is None)
            if judgement.answer is not None:
                assert judgement.provenance is not None
                skipped = any(step.outcome == "skipped" for step in judgement.provenance.trail)
                left_out = "safeguard_skipped" in judgement.provenance.degraded
                assert left_out <= (skipped or judgement.provenance.tier == "duplicates")

    def teardown(self) -> None:
        """Answer all that is left: nothing may stay behind."""
        if not hasattr(self, "rig"):
            return
        while self.rig.inner.waiting:
            self.rig.inner.say(SAFE, 0.01)
        assert self.rig.cascade.in_flight() == 0
        assert not self.rig.cascade._shared._leaders


TestExactlyOnce = ExactlyOnce.TestCase
TestExactlyOnce.settings = hypothesis_settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
