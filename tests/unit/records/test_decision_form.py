"""The quick check of decisions and the full one agree, on valid records and on broken ones."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_guard.core.errors import RecordError
from stream_guard.records.decision import (
    DecisionKind,
    decision_key,
    encode_decision,
    parse_decision,
    subject_key,
)
from stream_guard.records.decision_form import glimpse, read_form
from tests.decisions import make_decision

KINDS: Final[tuple[DecisionKind, ...]] = ("review", "appeal", "retraction", "expiry")
EDGES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, -2, 1.0, 1e300, "", [], {}, [1], [""], ["x"], {"id": "x"}),
    *((1 << 31) - 1, 1 << 31, (1 << 63) - 1, 1 << 63, 253_402_300_799_999, 253_402_300_800_000),
    *(
        "x" * 32,
        "a" * 32,
        "a" * 64,
        "A" * 64,
        "a" * 64 + "\n",
        "a" * 32 + "\n",
        "a\n",
        "1.0\n",
        "0" * 63,
        "1.0",
        "1.10000",
        "1.7",
    ),
    *("x" * n for n in (40, 41, 65, 128, 129, 200, 201, 249, 250, 2_000, 2_001, 4_096, 4_097)),
    *("y" * 16_384, "y" * 16_385, ["w"] * 16, ["w"] * 17, ["w"] * 64, ["w"] * 65),
    *(
        "é" * 64,
        "😀" * 40,
        "😀" * 41,
        "a\x00b",
        "\x7f",
        "d-1\n",
        "-d",
        "d:1.a_b",
        "Reviewer",
        "r" * 33,
    ),
    *(
        "review",
        "appeal",
        "retraction",
        "expiry",
        "breaker_reset",
        "whim",
        "safe",
        "violates",
        "high",
    ),
)
RAW: Final = (
    *(
        b'"\\ud800"',
        b'"\\ud83d\\ude00"',
        b'"\\u0000"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\t"',
        b'"\\x"',
    ),
    *(b"-0", b"01", b"1e0", b"1E2", b"1.", b"NaN", b"Infinity", b"1" * 400, b"nul", b"", b"'x'"),
    *(b"[" * 900 + b"]" * 900, b'{"a":' * 300 + b"1" + b"}" * 300),
)
HEADERS: Final[tuple[list[tuple[str, bytes]], ...]] = (
    [],
    encode_decision(make_decision())[2],
    [("content-type", b"application/json")],
    [("content-type", b"application/cloudevents+json")],
    [("Content-Type", b"application/cloudevents+json")],
    [("content-type", b"application/cloudevents+json"), ("content-type", b"application/json")],
    [("content-type", b"application/cloudevents+json"), *encode_decision(make_decision())[2]],
    [*encode_decision(make_decision())[2][1:], ("content-type", b"application/cloudevents+json")],
    [("ce_specversion", b"1.0")],
    [("ce_specversion", b"0.3"), ("ce_id", b"1"), ("ce_source", b"/x"), ("ce_type", b"t")],
    [("ce_specversion", b"1.0"), ("ce_id", b""), ("ce_source", b"/x"), ("ce_type", b"t")],
    [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/x"), ("ce_type", b"t")],
    [("sg_restated", b"1")],
)


def document_of(kind: DecisionKind = "review") -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(encode_decision(make_decision(kind))[1])
    return document


def places(part: Any, way: tuple[str, ...] = ()) -> list[tuple[str, ...]]:  # noqa: ANN401 - JSON
    """Return the way to every field."""
    if not isinstance(part, dict):
        return []
    return [
        place
        for name, value in part.items()
        for place in [(*way, name), *places(value, (*way, name))]
    ]


PLACES: Final = places(document_of())


@st.composite
def records(draw: st.DrawFn) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Return a record: a valid one with up to three fields changed, dropped, repeated or added, or its bytes broken."""
    document = document_of(draw(st.sampled_from(KINDS)))
    mark, raw = "\x01", None
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(PLACES))
        part = document
        for name in way:
            part = part[name] if isinstance(part.get(name), dict) else {}
        match draw(st.integers(0, 4)):
            case 0:
                part.pop(last, None)
            case 1:
                part[draw(st.sampled_from(("novelty", "id", "source", "key")))] = 1
            case 2:
                raw = draw(st.sampled_from(RAW))
                part[last] = mark
            case _:
                part[last] = draw(st.sampled_from(EDGES) | st.text(max_size=3))
    value = orjson.dumps(document, option=orjson.OPT_INDENT_2 if draw(st.booleans()) else 0)
    if raw is not None:
        value = value.replace(b'"\\u0001"', raw)
    if draw(st.integers(0, 9)) == 0:
        # A field that comes twice.
        twice = orjson.dumps(
            {draw(st.sampled_from([p[-1] for p in PLACES])): draw(st.sampled_from(EDGES))}
        )
        value = (
            value.replace(b"{", twice[:-1] + b",", 1)
            if draw(st.booleans())
            else value[:-1] + b"," + twice[1:]
        )
    if draw(st.integers(0, 19)) == 0:
        value = value[: draw(st.integers(0, len(value)))] + draw(
            st.sampled_from((b"", b" ", b"}", b"\x00"))
        )
    return key_of(value), value, draw(st.sampled_from(HEADERS))


def key_of(value: bytes) -> bytes:
    """Return the key that belongs to a value, where that has one; Python's own JSON takes nearly everything."""
    try:
        about = json.loads(value)["about"]
        return subject_key(
            about["policy"]["id"], about["content"]["tenant"], about["content"]["id"]
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return decision_key(make_decision())


def agree(record: tuple[bytes, bytes, list[tuple[str, bytes]]]) -> bool:
    """Assert that what the quick check accepts the full one accepts, with the same content; return whether it does."""
    form = read_form(*record)
    if form is None:
        return False
    decision = parse_decision(*record)
    found, wanted = msgspec.to_builtins(form), decision.model_dump(mode="python")
    assert found == wanted, record[1]
    return True


@settings(max_examples=1_000, deadline=None)
@given(records())
def test_a_glimpse_of_what_is_accepted_shows_what_is_in_it(
    record: tuple[bytes, bytes, list[tuple[str, bytes]]],
) -> None:
    key, value, headers = record
    seen = glimpse(value, headers)
    try:
        decision = parse_decision(*record)
    except RecordError:
        decision = None
    if seen is None:
        return
    # The headers had nothing to say.
    try:
        assert parse_decision(key, value) == decision
    except RecordError:
        assert decision is None
    if decision is not None and decision.about is not None:
        content = decision.about.content
        assert (seen.decided_at, seen.decided_by.role) == (
            decision.decided_at,
            decision.decided_by.role,
        )
        assert (seen.about.policy.id, seen.about.content.tenant, seen.about.content.id) == (
            decision.about.policy.id,
            content.tenant,
            content.id,
        )


def test_a_glimpse_is_had_of_the_common_form() -> None:
    for kind in KINDS:
        _, value, headers = encode_decision(make_decision(kind))
        assert glimpse(value, headers) is not None
        assert glimpse(value, ()) is not None
    _, value, headers = encode_decision(make_decision("breaker_reset"))
    assert glimpse(value, headers) is None
    assert glimpse(None, ()) is None


@settings(max_examples=1_000, deadline=None)
@given(records())
def test_both_agree_on_records_that_are_broken_in_several_places(
    record: tuple[bytes, bytes, list[tuple[str, bytes]]],
) -> None:
    agree(record)


@pytest.mark.parametrize("kind", KINDS)
def test_both_agree_on_every_value_at_the_edge_of_every_field(kind: DecisionKind) -> None:
    accepted = 0
    for place in PLACES:
        for number in range(len(EDGES) + len(RAW)):
            document = document_of(kind)
            part = document
            for name in place[:-1]:
                part = part[name] or {}  # of an outcome that this kind does not have
            edge = EDGES[number] if number < len(EDGES) else "\x01"
            part[place[-1]] = edge
            value = orjson.dumps(document)
            if number >= len(EDGES):
                value = value.replace(b'"\\u0001"', RAW[number - len(EDGES)])
            accepted += agreed(value, known=not isinstance(edge, dict) and number < len(EDGES))
    assert accepted > len(PLACES)


def agreed(value: bytes, *, known: bool) -> bool:
    """Assert that both agree; where a valid value has only known fields, that the quick check knows it."""
    record = key_of(value), value, HEADERS[1]
    if agree(record):
        return True
    if known:
        with pytest.raises(RecordError):
            parse_decision(*record)
    return False


def test_both_agree_on_unknown_fields_whatever_they_hold() -> None:
    for place in ("", "decided_by", "about", "content", "policy", "source", "outcome"):
        for raw in (*RAW, b"1"):
            document = document_of()
            about = document["about"]
            part = (document | about)[place] if place else document
            part["novelty"] = "\x01"
            value = orjson.dumps(document).replace(b'"\\u0001"', raw)
            agreed(value, known=False)


@pytest.mark.parametrize("headers", HEADERS)
def test_both_agree_on_headers(headers: list[tuple[str, bytes]]) -> None:
    value = orjson.dumps(document_of())
    agree((key_of(value), value, headers))


def test_the_headers_of_other_writers_keep_nobody_from_the_quick_check() -> None:
    key, value, _ = encode_decision(make_decision())
    names = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time")
    sent = [(name, b"1.0") for name in names] + [("content-type", b"application/json")]
    for headers in (sent, [("sg_restated", b"1")], [("traceparent", b"00-1")]):
        assert read_form(key, value, headers) is not None


def test_every_kind_about_a_subject_has_the_common_form() -> None:
    for kind in KINDS:
        assert read_form(*encode_decision(make_decision(kind))) is not None


@pytest.mark.parametrize(
    "value", [None, b"", b"null", b"[]", b"{}", b'"' + b"x" * (64 << 10) + b'"']
)
def test_what_is_no_decision_has_no_common_form(value: bytes | None) -> None:
    assert read_form(b"k", value) is None


def test_a_record_under_another_subjects_key_has_no_common_form() -> None:
    _, value, headers = encode_decision(make_decision())
    assert read_form(subject_key("spam", None, "another"), value, headers) is None
    assert read_form(None, value, headers) is None
