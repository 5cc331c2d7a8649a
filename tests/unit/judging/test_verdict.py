"""Verdicts: schema, ids, headers."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import unquote

import orjson
import pytest
from jsonschema import Draft202012Validator

from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance, TierStep
from stream_guard.judging.verdict import build_verdict, recommended_action
from stream_guard.policies.policy import Policy, make_policy
from stream_guard.records.markup import resolve
from stream_guard.records.post import Post, ThreadEntry
from stream_guard.records.verdict_event import (
    VerdictEvents,
    decode_verdict,
    encode_verdict,
    smaller_verdict,
    verdict_id,
    verdict_schema,
)
from tests.verdicts import FakeRecord

POLICY = make_policy("spam", b"# Spam\nS1: Unwanted advertising\n")
SCHEMA = Draft202012Validator(verdict_schema())
MS_1970 = 0
MS_2099 = 4_102_444_799_999
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def make(
    answer: Answer | None = None,
    record: FakeRecord | None = None,
    *,
    now_ms: int = 1_700_000_000_500,
    provenance: Provenance | None = None,
    policy: Policy = POLICY,
    **post: Any,  # noqa: ANN401
) -> dict[str, Any]:
    request = JudgeRequest(
        "1", Post(id="p1", text="t", sha256="0" * 64, text_bytes=1, **post), policy
    )
    judgement = Judgement(
        request,
        answer=answer or Answer("safe"),
        provenance=provenance or Provenance(tier="model", model="m", effort="low"),
        confidence=0.75,
        confidence_method="logprobs",
        finished_ns=now_ms * 1_000_000,
    )
    verdict: dict[str, Any] = orjson.loads(
        encode_verdict(
            build_verdict(
                record or FakeRecord(), judgement, consumed_ms=now_ms, published_ms=now_ms
            )
        )
    )
    SCHEMA.validate(verdict)
    return verdict


ADDED = {
    "prompt_ids_sha256",
    "reasoning_cut",
    "sampling",
    "repaired",
    "nulled",
    "labels",
    "review_reasons",
    "windows",
    "context_dropped",
    "prompt_tokens_max",
    "markup",
}  # after the schema was first released: older verdicts do without


def test_the_schema_is_a_schema_and_refuses_what_it_does_not_describe() -> None:
    Draft202012Validator.check_schema(verdict_schema())
    verdict = make()
    for part in (verdict, *(v for v in verdict.values() if isinstance(v, dict))):
        part["surprise"] = 1
        assert not SCHEMA.is_valid(verdict)
        del part["surprise"]
        for name in list(part):
            value = part.pop(name)
            assert SCHEMA.is_valid(verdict) == (name in ADDED), f"{name} may be missing"
            part[name] = value
    assert SCHEMA.is_valid(verdict)


def test_the_schema_describes_every_field() -> None:
    def fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
        own = list(schema.get("properties", {}).values())
        return own + [deep for each in own for deep in fields(each)]

    described = fields(verdict_schema())
    assert len(described) > 40
    assert all(each.get("description") for each in described)


@pytest.mark.parametrize(
    ("answer", "action", "review"),
    [
        (Answer("violates", "S1", ("S1",), "an advert"), "review", False),
        (Answer("violates", None, (), None, "category_dropped"), "review", True),
        (Answer("safe"), "none", False),
        (Answer("safe", parse_status="not_applicable"), "none", False),
        (Answer("safe", parse_status="repaired"), "none", True),
        (Answer("undetermined", parse_status="truncated"), "review", True),
        (Answer("undetermined"), "review", True),
    ],
)
def test_decisions_carry_the_advice(answer: Answer, action: str, review: bool) -> None:  # noqa: FBT001
    verdict = make(answer)
    assert (verdict["decision"], verdict["action"], verdict["needs_review"]) == (
        answer.decision,
        action,
        review,
    )
    assert verdict["policy"]["rule_ids"] == list(answer.rule_ids)
    assert verdict["policy"]["category"] == answer.category


OUTCOMES = make_policy(
    "films",
    b"Answer REMOVE, ALLOW, ESCALATE or AGE_GATE.\n\n| Code | Meaning | Verdict |\n| --- | --- | --- |\n"
    b"| F1 | copies | REMOVE |\n| F2 | adult | AGE_GATE |\n| F3 | unclear | ESCALATE |\n| F0 | rest | ALLOW |\n",
    metadata=b"undetermined: fail_open\naction: hide\n"
    b"outcomes: {ALLOW: {decision: safe, action: publish}}\n",
)


@pytest.mark.parametrize(
    ("answer", "action", "reasons"),
    [
        (Answer("violates", "F2", labels=("AGE_GATE",)), "age_gate", []),
        (Answer("violates", "F2"), "age_gate", []),
        (Answer("violates", "F1", labels=("REMOVE",)), "hide", []),
        (Answer("safe", "F0", labels=("ALLOW",)), "publish", []),
        # People are asked whatever the policy's rule for failures is.
        (
            Answer("undetermined", "F3", labels=("ESCALATE",), needs_review=True),
            "review",
            ["label", "category"],
        ),
        (Answer("undetermined", labels=("ESCALATE",), needs_review=True), "review", ["label"]),
        (
            Answer("undetermined", parse_status="malformed"),
            "none",
            ["undetermined", "parse_status"],
        ),
        (Answer("violates", "F1", needs_review=True), "hide", ["label"]),
    ],
)
def test_a_label_has_its_own_action_and_says_why_a_person_is_asked(
    answer: Answer, action: str, reasons: list[str]
) -> None:
    verdict = make(answer, policy=OUTCOMES)
    assert (verdict["action"], verdict["review_reasons"]) == (action, reasons)
    assert verdict["needs_review"] is bool(reasons)
    assert verdict["policy"]["labels"] == list(answer.labels)


@pytest.mark.parametrize("cut", [True, False])
def test_a_cut_is_in_the_verdict_and_asks_for_a_person(cut: bool) -> None:  # noqa: FBT001 - a case
    verdict = make(provenance=Provenance("safeguard", "m", reasoning_cut=cut))
    assert verdict["provenance"]["reasoning_cut"] is cut
    assert verdict["needs_review"] is cut
    assert (verdict["decision"], verdict["action"]) == ("safe", "none")


@pytest.mark.parametrize(
    ("undetermined", "action"), [("fail_open", "none"), ("fail_closed", "hide"), ("hold", "review")]
)
def test_what_to_do_with_what_was_not_decided_is_the_policys_to_say(
    undetermined: str, action: str
) -> None:
    policy = make_policy(
        "spam", b"# Spam", metadata=f"undetermined: {undetermined}\naction: hide\n".encode()
    )
    assert recommended_action(Answer("undetermined"), policy) == action
    assert recommended_action(Answer("safe"), policy) == "none"
    assert recommended_action(Answer("violates"), policy) == "hide"


def test_the_trail_and_what_was_left_out_are_in_the_verdict() -> None:
    steps = (
        TierStep("duplicates", "escalated", "new", 7),
        TierStep("safeguard", "skipped", "pressure:undetermined", 0, "low"),
    )
    verdict = make(
        provenance=Provenance("none", "none", degraded=("safeguard_skipped",), trail=steps)
    )
    assert verdict["provenance"]["degraded"] == ["safeguard_skipped"]
    assert verdict["provenance"]["trail"] == [step._asdict() for step in steps]


def test_the_id_is_the_same_every_time_and_across_releases() -> None:
    assert make()["id"] == make(Answer("violates"))["id"]
    # A fixed point: consumers keep ids for years.
    assert verdict_id("posts", 0, 7, "spam", "ab" * 32) == "5d042c07dd6d915b027de5be91563e32"


@pytest.mark.parametrize(
    "other",
    [
        ("posts2", 1, 2, "spam", "a" * 64),
        ("posts", 2, 2, "spam", "a" * 64),
        ("posts", 1, 3, "spam", "a" * 64),
        ("posts", 1, 2, "spam2", "a" * 64),
        ("posts", 1, 2, "spam", "b" * 64),
        ("posts", 12, 2, "spam", "a" * 64),  # no mere concatenation
    ],
)
def test_the_id_depends_on_each_of_its_parts(other: tuple[str, int, int, str, str]) -> None:
    assert verdict_id("posts", 1, 2, "spam", "a" * 64) != verdict_id(*other)
    assert verdict_id("posts", 1, 22, "spam", "a" * 64) != verdict_id(*other)


@pytest.mark.parametrize(
    ("key", "text"), [(None, None), (b"", ""), ("ü".encode(), "ü"), (b"a\xff\x00", "a\\xff\0")]
)
def test_keys_of_any_bytes_become_text(key: bytes | None, text: str | None) -> None:
    assert make(record=FakeRecord(key=key))["source"]["key"] == text


@pytest.mark.parametrize("moment", [MS_1970, MS_2099])
def test_times_from_1970_to_2099(moment: int) -> None:
    verdict = make(record=FakeRecord(timestamp=moment), now_ms=moment)
    assert verdict["timing"] == dict.fromkeys(("event", "consumed", "judged", "published"), moment)


def test_the_event_time_is_the_posts_own_where_it_has_one() -> None:
    assert make(created_at_ms=0)["timing"]["event"] == 0


def test_the_event_time_of_a_record_without_one_is_when_it_was_read() -> None:
    assert make(record=FakeRecord(timestamp=-1), now_ms=5)["timing"]["event"] == 5


def test_the_verdict_says_what_of_the_post_was_repaired_or_left_out() -> None:
    content = make(repaired=True, nulled=("author", "created_at"))["content"]
    assert (content["repaired"], content["nulled"]) == (True, ["author", "created_at"])
    markup = resolve("<p>a &amp; b</p>", "html", for_model=True)
    assert make(markup=markup)["content"]["markup"] == {
        "format": "html",
        "changes": ["tags", "entities"],
        "model_read": "text",
    }
    assert make()["content"].keys() == {"id", "sha256", "author", "tenant", "language"}


def test_the_verdict_counts_the_texts_of_the_thread() -> None:
    content = make(context=(ThreadEntry("parent", "hi"),), context_dropped=3)["content"]
    assert content["context"] == {"texts": 1, "dropped": 3}
    assert make(context_dropped=2)["content"]["context"] == {"texts": 0, "dropped": 2}


def test_a_thread_that_was_not_judged_whole_asks_for_a_person() -> None:
    assert make(context_dropped=2)["review_reasons"] == []
    threads = make_policy("p", b"No spam.", metadata=b"judge: thread")
    assert make(policy=threads, context_dropped=2)["review_reasons"] == ["context_dropped"]
    provenance = Provenance(tier="model", model="m", effort="low", context_dropped=1)
    assert make(policy=threads, provenance=provenance)["review_reasons"] == ["context_dropped"]
    assert make(policy=threads)["review_reasons"] == []


def test_headers_are_a_cloud_event_in_binary_mode() -> None:
    verdict = make()
    value, headers = VerdictEvents(MS_2099).encode(verdict, TRACEPARENT)
    assert orjson.loads(value) == verdict
    assert dict(headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_type": b"stream_guard.verdict.v1",
        "ce_dataschema": verdict_schema()["$id"].encode(),
        "ce_id": verdict["id"].encode(),
        "ce_source": b"/stream-guard/posts/3",
        "ce_subject": b"p1",
        "ce_time": b"2099-12-31T23:59:59.999Z",
        "traceparent": TRACEPARENT.encode(),
    }
    assert len(headers) == 9


@pytest.mark.parametrize(
    ("post_id", "subject"),
    [
        ("a b/c?é", "a b/c?é"),
        ("a\r\nce_id: x", "a%0D%0Ace_id: x"),
        ("nul\x00\x9b\ufffe", "nul%00%C2%9B%EF%BF%BE"),
        ("100%", "100%25"),
    ],
)
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_the_subject_holds_nothing_that_cloud_events_forbids(
    mode: Literal["binary", "structured"], post_id: str, subject: str
) -> None:
    verdict = make()
    verdict["content"]["id"] = post_id
    value, headers = VerdictEvents(MS_1970, mode).encode(verdict, TRACEPARENT)
    if mode == "binary":
        assert dict(headers)["ce_subject"] == subject.encode()
    else:
        assert orjson.loads(value)["subject"] == subject
    assert decode_verdict(value)["content"]["id"] == post_id
    assert unquote(subject) == post_id


def test_headers_of_one_moment_keep_their_places_apart() -> None:
    events = VerdictEvents(MS_1970)
    made = [
        dict(
            events.encode(make(record=FakeRecord(topic=topic, partition=partition)), TRACEPARENT)[1]
        )
        for topic, partition in (("a", 0), ("a", 1), ("b", 0), ("a", 0))
    ]
    assert [headers["ce_source"].rsplit(b"guard/", 1)[1] for headers in made] == [
        b"a/0",
        b"a/1",
        b"b/0",
        b"a/0",
    ]
    assert made[0]["ce_time"] == b"1970-01-01T00:00:00.000Z"


def test_a_structured_event_holds_the_verdict_and_the_same_attributes() -> None:
    verdict = make()
    value, headers = VerdictEvents(MS_2099, "structured").encode(verdict, TRACEPARENT)
    event = orjson.loads(value)
    assert event.pop("data") == verdict == decode_verdict(value)
    assert event == {
        "specversion": "1.0",
        "type": "stream_guard.verdict.v1",
        "dataschema": verdict_schema()["$id"],
        "datacontenttype": "application/json",
        "id": verdict["id"],
        "source": "/stream-guard/posts/3",
        "subject": "p1",
        "time": "2099-12-31T23:59:59.999Z",
        "traceparent": TRACEPARENT,
    }
    assert dict(headers) == {
        "content-type": b"application/cloudevents+json; charset=UTF-8",
        "traceparent": TRACEPARENT.encode(),
    }


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_the_smaller_form_has_the_decision_and_the_id_and_says_what_it_is(
    mode: Literal["binary", "structured"],
) -> None:
    provenance = Provenance(
        tier="model",
        model="m",
        effort="low",
        degraded=("ladder_cut",),
        trail=(TierStep("model", "settled", "answered", 5, "low"),),
    )
    verdict = make(Answer("safe", rationale="because"), provenance=provenance)
    value, headers = VerdictEvents(MS_2099, mode).encode(verdict, TRACEPARENT)
    key, smaller, same_headers = smaller_verdict(b"k", value, headers)
    assert (key, same_headers) == (b"k", headers)
    assert smaller is not None
    expected = make(Answer("safe"), provenance=Provenance(tier="model", model="m", effort="low"))
    expected["provenance"]["degraded"] = ["ladder_cut", "too_large_for_topic"]
    found = decode_verdict(smaller)
    SCHEMA.validate(found)
    assert found == expected
