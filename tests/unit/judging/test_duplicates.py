"""Duplicates: which posts are the same, what is kept and for how long, and what equal posts in flight share."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_guard.core.errors import PromptError
from stream_guard.judging.contract import Answer
from stream_guard.judging.tiers.duplicates import NAME_CHARACTERS_MAX, digest, fold
from stream_guard.policies.lanes import Lane, Quota
from stream_guard.policies.policy import make_policy
from stream_guard.records.thread import ThreadEntry
from tests.unit.judging.cascade_doubles import POLICY, SAFE, VIOLATES, Rig, asks, post

if TYPE_CHECKING:
    from stream_guard.records.post import Post

SAME = [
    ("two  words", "two words"),
    (" ends \n", "ends"),
    ("line\r\nline", "line\nline"),
    ("line \n\n\n line", "line\nline"),
    ("no-break\u00a0space", "no-break space"),
    ("cafe\u0301", "caf\u00e9"),
]
DIFFERENT = [
    ("polish", "Polish"),
    ("one line", "one\nline"),
    ("sla\u200bng", "slang"),
    ("x\u00b2", "x2"),
    ("p\u0430y", "pay"),
    ("stop!", "stop"),
    ("the rapist", "therapist"),
    ("sooo", "so"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_no_reader_sees_makes_no_difference(one: str, other: str) -> None:
    assert digest(post(one)) == digest(post(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_may_change_a_verdict_makes_a_difference(one: str, other: str) -> None:
    assert digest(post(one)) != digest(post(other))


def test_language_title_and_thread_belong_to_the_post() -> None:
    def reply(*context: tuple[Any, ...], **more: str) -> Post:
        return post("a", context=tuple(ThreadEntry(*entry) for entry in context), **more)

    posts = [
        post("a", language="en"),
        post("a", language="de"),
        post("na", language="e"),
        post("2:ena"),
        post("a", language=""),
        post("-a"),
        post("a"),
        post("a", title="b"),
        post("a", title=""),
        post("ab", title=""),
        post("-1:b\na"),
        post("1:b-\na"),
        post("1;-a"),
        post("2;-parent,0,1:b-a"),
        reply(("parent", "b")),
        reply(("quoted", "b")),
        reply(("earlier", "b")),
        reply(("earlier", "b"), ("parent", "b")),
        reply(("parent", "b"), ("earlier", "b")),
        reply(("parent", "b", "x")),
        reply(("parent", "b", "x"), author="x"),
        reply(("parent", "b", "x"), ("quoted", "c", "x")),
        reply(("parent", "b", "x"), ("quoted", "c", "y")),
        reply(("parent", "b"), title="c"),
        reply(("parent", "c"), title="b"),
        reply(("parent", "bquoted,0,1:c")),
    ]
    assert len({digest(each) for each in posts}) == len(posts)
    assert digest(post("a", title="b  c")) == digest(post("a ", title="b c"))
    # The prompt says the same of both.
    assert digest(reply(("parent", "b", "x"))) == digest(reply(("parent", "b ", "z"), author="y"))


def test_a_post_with_another_context_gets_no_cached_answer() -> None:
    rig = Rig()
    context = (ThreadEntry("parent", "Do you sell pills?", "2"),)
    rig.ask("yes", context=context, author="1")
    rig.inner.say(VIOLATES, 0.99)
    (bare,) = rig.ask("yes", author="1")
    (other,) = rig.ask("yes", author="1", context=(context[0]._replace(text="Do you sell bread?"),))
    (own,) = rig.ask("yes", author="2", context=context)
    (same,) = rig.ask("yes", author="1", context=context)
    assert [request.id for request in rig.inner.waiting] == [bare.id, other.id, own.id]
    assert rig.of(same).answer == VIOLATES


@given(st.text())
def test_folding_twice_changes_no_more(text: str) -> None:
    once = fold(text)
    assert fold(once) == once
    assert unicodedata.is_normalized("NFC", once)


def test_a_repeat_has_the_answer_and_its_confidence_and_costs_nothing() -> None:
    rig = Rig()
    (first,) = rig.ask("buy now")
    rig.inner.say(VIOLATES, 0.99)
    (second,) = rig.ask("buy  now")
    judgement = rig.of(second)
    provenance = judgement.provenance
    assert provenance is not None
    assert judgement.answer is rig.of(first).answer
    assert (judgement.confidence, judgement.confidence_method) == (0.99, "test")
    assert (provenance.tier, provenance.model, provenance.effort) == ("duplicates", "manual", "low")
    assert (provenance.prompt_tokens, provenance.output_tokens, provenance.attempts) == (0, 0, 0)
    assert rig.trail(second) == [("duplicates", "settled", f"repeats:{first.post.id}")]
    assert rig.trail(first) == [
        ("duplicates", "escalated", "new"),
        ("safeguard", "settled", "answered"),
    ]
    assert len(rig.inner.asked) == 1
    assert rig.counts() == {
        ("duplicates", "escalated"): 1,
        ("duplicates", "settled"): 1,
        ("safeguard", "settled"): 1,
    }


@pytest.mark.parametrize(
    "policy",
    [
        make_policy("spam", b"another text"),
        replace(POLICY, id="other"),
    ],
)
def test_another_policy_has_answers_of_its_own(policy: object) -> None:
    rig = Rig()
    rig.judged("buy now")
    rig.ask("buy now", policy=policy)  # type: ignore[arg-type]
    assert rig.waiting == ["buy now"]


@pytest.mark.parametrize("other", ["green", None, ""])
def test_another_tenant_has_answers_of_its_own(other: str | None) -> None:
    rig = Rig()
    (first,) = rig.ask("buy now", tenant="blue")
    rig.inner.say(VIOLATES, 0.99)
    (foreign,) = rig.ask("buy now", tenant=other)
    assert rig.waiting == ["buy now"]
    rig.inner.say(VIOLATES, 0.99)
    (own,) = rig.ask("buy now", tenant="blue")
    assert rig.trail(foreign)[0] == ("duplicates", "escalated", "new")
    assert rig.trail(own) == [("duplicates", "settled", f"repeats:{first.post.id}")]


def test_equal_posts_in_flight_of_two_tenants_are_both_judged() -> None:
    rig = Rig()
    requests = asks("buy now", "buy now", "buy now", "buy now")
    for request, tenant in zip(requests, ("blue", "green", "blue", None), strict=True):
        request.post.tenant = tenant
    rig.cascade.submit(requests, rig.deliver)
    assert [r.post.tenant for r in rig.inner.waiting] == ["blue", "green", None]
    rig.cascade.cancel(requests[:1])
    assert [r.post.tenant for r in rig.inner.waiting] == ["green", None, "blue"]
    rig.inner.say(SAFE)
    named = [reason for request in requests[1:] for _, _, reason in rig.trail(request)]
    assert not any(reason.startswith(("repeats:", "joins:")) for reason in named)


def test_posts_without_a_tenant_share_answers() -> None:
    rig = Rig()
    (first,) = rig.ask("buy now", tenant=None)
    rig.inner.say()
    (second,) = rig.ask("buy now", tenant=None)
    assert rig.trail(second) == [("duplicates", "settled", f"repeats:{first.post.id}")]


def test_tenants_share_answers_where_that_is_set() -> None:
    rig = Rig(duplicates_across_tenants=True)
    first, joined = asks("buy now", "buy now")
    first.post.tenant, joined.post.tenant = "blue", "green"
    rig.cascade.submit([first, joined], rig.deliver)
    rig.inner.say()
    (repeated,) = rig.ask("buy now", tenant="red")
    assert rig.trail(joined) == [("duplicates", "settled", f"joins:{first.post.id}")]
    assert rig.trail(repeated) == [("duplicates", "settled", f"repeats:{first.post.id}")]


async def test_another_model_has_answers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from stream_guard.policies.policy import PolicySet

    rig = Rig()
    monkeypatch.setattr(rig.inner, "describe", lambda: {"model": "m", "revision": "1"})
    await rig.cascade.start(PolicySet({}))
    rig.judged("buy now")
    monkeypatch.setattr(rig.inner, "describe", lambda: {"model": "m", "revision": "2"})
    await rig.cascade.start(PolicySet({}))
    rig.ask("buy now")
    assert rig.waiting == ["buy now"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer("undetermined", parse_status="timeout"),
        Answer("undetermined", parse_status="truncated"),
        Answer("violates", "S1", parse_status="repaired"),
        Answer("violates", parse_status="category_dropped"),
    ],
)
def test_what_was_not_decided_or_not_read_exactly_is_not_kept(answer: Answer) -> None:
    rig = Rig(ladder=())
    rig.judged("buy now", answer)
    rig.ask("buy now")
    assert rig.waiting == ["buy now"]


def test_an_answer_that_leaves_a_post_to_people_is_kept() -> None:
    rig = Rig(ladder=())
    rig.judged("buy now", Answer("undetermined", labels=("ESCALATE",), needs_review=True))
    rig.ask("buy now")
    assert rig.waiting == []


def test_an_answer_after_cut_reasoning_is_not_kept_and_those_who_waited_for_it_say_so() -> None:
    rig = Rig(ladder=())
    posts = [*rig.ask("buy now"), *rig.ask("buy  now")]
    rig.inner.say(VIOLATES, 0.99, cut=True)
    provenances = [rig.of(one).provenance for one in posts]
    assert [p is not None and p.reasoning_cut for p in provenances] == [True, True]
    rig.ask("buy now")
    assert rig.waiting == ["buy now"]
    rig.inner.say(VIOLATES, 0.99)
    rig.ask("buy now")
    assert rig.waiting == []


def test_an_error_is_not_kept() -> None:
    rig = Rig()
    rig.ask("buy now")
    rig.inner.say(error=PromptError("too long"))
    rig.ask("buy now")
    assert rig.waiting == ["buy now"]


def test_what_was_made_under_pressure_is_not_kept_and_not_joined() -> None:
    rig = Rig(pressure_effort_age_s_max=10)
    policy = replace(POLICY, effort="high", sha256="1" * 64)
    rig.ask("old")
    rig.clock.advance(11)
    rig.cascade.observe(None)
    assert rig.cascade.level == 1
    rig.ask("buy now", policy=policy)
    rig.ask("buy now", policy=policy)
    assert rig.waiting == ["old", "buy now", "buy now"]
    rig.inner.say(VIOLATES, 0.99)
    assert [j.provenance.degraded for j in rig.got if j.provenance] == [
        (),
        ("effort_lowered",),
        ("effort_lowered",),
    ]
    rig.ask("buy now", policy=policy)
    assert rig.waiting == ["buy now"]


def test_answers_are_kept_for_their_time_and_no_longer() -> None:
    rig = Rig(duplicates_ttl_s=60)
    rig.judged("buy now")
    rig.clock.advance(59)
    rig.ask("buy now")
    assert rig.waiting == []
    rig.clock.advance(2)
    rig.ask("buy now")
    assert rig.waiting == ["buy now"]


def test_no_more_answers_are_kept_than_allowed_and_the_least_used_go_first() -> None:
    rig = Rig(duplicates_entries_max=2)
    rig.judged("one")
    rig.judged("two")
    rig.ask("one")
    rig.judged("three")
    rig.ask("one", "three", "two")
    assert rig.waiting == ["two"]
    assert len(rig.cascade._duplicates) == 2


def test_a_post_is_named_by_no_more_than_the_beginning_of_a_long_id() -> None:
    rig = Rig()
    requests = asks("buy now", "buy now")
    requests[0].post.id = "x" * 10_000
    rig.cascade.submit(requests[:1], rig.deliver)
    rig.inner.say()
    rig.cascade.submit(requests[1:], rig.deliver)
    assert rig.trail(requests[1])[0][2] == "repeats:" + "x" * NAME_CHARACTERS_MAX


def test_equal_posts_in_flight_share_one_judgement_and_have_a_verdict_each() -> None:
    rig = Rig()
    first, second, third = rig.ask("buy now", "buy now", "buy  now")
    assert rig.waiting == ["buy now"]
    assert rig.cascade.in_flight() == 3
    rig.clock.advance(0.25)
    rig.inner.say(VIOLATES, 0.9)
    assert rig.lists == [3]
    assert {j.request for j in rig.got} == {first, second, third}
    for request in (second, third):
        assert rig.trail(request) == [("duplicates", "settled", f"joins:{first.post.id}")]
        assert rig.of(request).answer is VIOLATES
        provenance = rig.of(request).provenance
        assert provenance is not None
        assert provenance.output_tokens == 0
        assert provenance.trail[0].duration_us == 250_000
    assert rig.cascade.in_flight() == 0
    assert rig.counts()["duplicates", "settled"] == 2


def test_equal_posts_in_flight_share_what_was_not_decided_and_errors_too() -> None:
    rig = Rig(ladder=())
    rig.ask("a", "a")
    rig.inner.say(Answer("undetermined", parse_status="timeout"))
    error = PromptError("too long")
    rig.ask("b", "b")
    rig.inner.say(error=error)
    assert [j.answer and j.answer.decision for j in rig.got] == ["undetermined"] * 2 + [None] * 2
    assert [j.error for j in rig.got] == [None, None, error, error]


def test_when_a_leader_is_cancelled_the_next_is_asked_in_its_place() -> None:
    rig = Rig()
    first, second, third = rig.ask("buy now", "buy now", "buy now")
    rig.cascade.cancel([first])
    assert rig.inner.cancelled == [first.id]
    assert [r.id for r in rig.inner.waiting] == [second.id]
    rig.inner.say(SAFE)
    assert {j.request for j in rig.got} == {second, third}
    assert rig.trail(second)[0] == ("duplicates", "escalated", "new")
    assert rig.trail(third) == [("duplicates", "settled", f"joins:{second.post.id}")]


HISTORY = Lane("history", backfill=True)
LIVE = Lane("live")
METERED = Lane("metered", quota=Quota(tokens_per_s=1_000, burst_tokens=1_000_000))


@pytest.mark.parametrize(
    ("leader", "other", "asked"),
    [
        (HISTORY, LIVE, 2),
        (HISTORY, None, 2),
        (HISTORY, HISTORY, 1),
        (LIVE, HISTORY, 1),
        (METERED, METERED, 1),
        (METERED, LIVE, 2),
    ],
)
def test_no_post_waits_for_an_equal_one_that_waits_on_purpose(
    leader: Lane, other: Lane | None, asked: int
) -> None:
    rig = Rig()
    requests = asks("buy now", "buy now")
    requests[0].lane, requests[1].lane = leader, other
    rig.cascade.submit(requests, rig.deliver)
    assert rig.inner.waiting == requests[:asked]


def test_no_tenant_waits_for_the_quota_of_another() -> None:
    rig = Rig(duplicates_across_tenants=True)
    requests = asks("buy now", tenant="blue") + asks("buy now", tenant="green")
    for request in requests:
        request.lane = METERED
    rig.cascade.submit(requests, rig.deliver)
    assert rig.inner.waiting == requests


def test_the_next_in_a_leaders_place_waits_on_purpose_only_if_all_do() -> None:
    rig = Rig()
    requests = asks("buy now", "buy now", "buy now")
    for request, lane in zip(requests, (LIVE, HISTORY, LIVE), strict=True):
        request.lane = lane
    rig.cascade.submit(requests, rig.deliver)
    rig.cascade.cancel(requests[:1])
    assert rig.inner.waiting == requests[2:]
    rig.inner.say(SAFE)
    assert {one.request.id for one in rig.got} == {request.id for request in requests[1:]}


def test_when_all_are_cancelled_nobody_is_asked() -> None:
    rig = Rig()
    requests = rig.ask("buy now", "buy now", "buy now")
    rig.cascade.cancel(requests)
    assert rig.waiting == []
    assert len(rig.inner.asked) == 1
    assert rig.cascade.in_flight() == 0
    rig.ask("buy now")
    assert rig.waiting == ["buy now"]


def test_a_cancelled_follower_is_not_delivered_and_the_leader_is_left_alone() -> None:
    rig = Rig()
    first, second = rig.ask("buy now", "buy now")
    rig.cascade.cancel([second])
    assert rig.inner.cancelled == []
    rig.inner.say()
    assert [j.request for j in rig.got] == [first]
