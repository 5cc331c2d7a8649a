"""Decisions are read whole or refused, and nothing foreign in them is trusted."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stream_guard.core.errors import DecisionError, RecordError, TombstoneError, TooLargeError
from stream_guard.records.contracts import reader_schema, writer_schema
from stream_guard.records.decision import (
    Decision,
    decision_key,
    encode_decision,
    parse_decision,
    subject_key,
)
from tests.decisions import make_decision

STRICT = Draft202012Validator(writer_schema("decision-1.0.json"))
READER = Draft202012Validator(reader_schema("decision-1.0.json"))
KINDS = ("review", "appeal", "retraction", "expiry", "breaker_reset")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_written_by_its_schema_and_read_back(kind: str) -> None:
    decision = make_decision(kind)
    key, value, headers = encode_decision(decision)
    STRICT.validate(orjson.loads(value))
    assert parse_decision(key, value, headers) == decision
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/x",
        "type": "t",
        "data": orjson.loads(value),
    }
    structured = [("content-type", b"application/cloudevents+json")]
    assert parse_decision(key, orjson.dumps(event), structured) == decision


def test_a_later_minor_version_is_read() -> None:
    key, value, _ = encode_decision(make_decision())
    later = orjson.loads(value) | {"schema_version": "1.7", "novelty": 1}
    assert not STRICT.is_valid(later)
    assert READER.is_valid(later)
    assert parse_decision(key, orjson.dumps(later)).id == "d-1"


def changed(path: str, value: Any, kind: str = "review") -> tuple[bytes, dict[str, Any]]:  # noqa: ANN401
    key, encoded, _ = encode_decision(make_decision(kind))
    document = orjson.loads(encoded)
    part = document
    *way, last = path.split("/")
    for name in way:
        part = part[name]
    part[last] = value
    return key, document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", "2.0"),
        ("id", "x" * 65),
        ("id", "new\nline"),
        ("id", "trailing\n"),
        ("kind", "whim"),
        ("decided_at", -1),
        ("decided_at", "1"),
        ("decided_at", 1.5),
        ("decided_at", 253_402_300_800_000),
        ("decided_at", None),
        ("decided_at", True),
        ("decided_at", [1]),
        ("decided_by", "r-1"),
        ("decided_by/id", 17),
        ("decided_by/role", "Reviewer"),
        ("decided_by/id", "x" * 129),
        ("about/verdict_id", "0" * 31),
        ("about", []),
        ("about", "0f3a"),
        ("about/verdict_id", 7),
        ("about/content", None),
        ("about/content/id", {}),
        ("about/content/id", ""),
        ("about/content/id", "x" * 4_097),
        ("about/content/sha256", "0" * 63),
        ("about/policy/id", "x" * 201),
        ("about/source/offset", 1 << 63),
        ("about/source", None),
        ("outcome/decision", "undetermined"),
        ("outcome/action", ""),
        ("outcome/decision", True),
        ("outcome/labels", "x"),
        ("outcome/labels", ["x"] * 17),
        ("outcome/rule_ids", ["x" * 65]),
        ("outcome", None),
        ("reason", "x" * 2_001),
        ("reason", "x" * 60_000),
        ("reason", ["x"]),
        ("reason", 1),
        ("valid_until", "tomorrow"),
        ("valid_until", -5),
        ("breaker", {"action": None, "policy": None, "tenant": None}),
    ],
)
def test_what_breaks_a_limit_or_a_rule_is_refused(path: str, value: Any) -> None:  # noqa: ANN401
    key, document = changed(path, value)
    with pytest.raises(DecisionError) as caught:
        parse_decision(key, orjson.dumps(document))
    assert "x" * 17 not in str(caught.value)


@pytest.mark.parametrize("kind", ["retraction", "expiry", "breaker_reset"])
def test_only_a_replacing_kind_has_an_outcome_or_an_end(kind: str) -> None:
    outcome = orjson.loads(encode_decision(make_decision())[1])["outcome"]
    for path, value in (("outcome", outcome), ("valid_until", 9)):
        key, document = changed(path, value, kind)
        with pytest.raises(DecisionError):
            parse_decision(key, orjson.dumps(document))


def test_a_null_value_and_a_huge_one_have_their_own_reasons() -> None:
    with pytest.raises(TombstoneError):
        parse_decision(b"k", None)
    with pytest.raises(TooLargeError):
        parse_decision(b"k", b'"' + b"x" * (64 << 10) + b'"')


def test_of_a_field_that_is_repeated_the_last_counts_for_every_reader() -> None:
    # A reader of plain JSON and one of a CloudEvent use different parsers, and must agree.
    key, value, headers = encode_decision(make_decision(id="first"))
    again = value.removesuffix(b"}") + b',"id":"last","decided_by":{"id":"r-1","role":"lead"}}'
    for read in (parse_decision(key, again), parse_decision(key, again, headers)):
        assert (read.id, read.decided_by.role) == ("last", "lead")
    nested = value.replace(b'"content":{', b'"content":{"id":"other",', 1)
    assert nested != value
    for read in (parse_decision(key, nested), parse_decision(key, nested, headers)):
        assert read.about is not None
        assert read.about.content.id == "p0"
    outlawed = value.removesuffix(b"}") + b',"kind":"whim"}'
    with pytest.raises(DecisionError):
        parse_decision(key, outlawed)


def test_a_decision_under_another_key_is_refused() -> None:
    _, value, _ = encode_decision(make_decision())
    for key in (None, b"", subject_key("other", None, "p0")):
        with pytest.raises(DecisionError, match="key"):
            parse_decision(key, value)


def test_keys_keep_policies_tenants_and_contents_apart() -> None:
    parts = [
        ("a", None, "b"),
        ("a", "b", ""),
        ("a", "b", "c"),
        ("ab", None, "c"),
        ("a", None, "bc"),
    ]
    assert len({subject_key(*each) for each in parts}) == len(parts)
    assert decision_key(make_decision()) == subject_key("spam", None, "p0")
    assert decision_key(make_decision("breaker_reset")) != decision_key(make_decision())


NAMES = ("schema_version", "id", "kind", "decided_at", "about", "outcome", "x")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 1 << 60) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
)


@given(st.binary(max_size=200) | JSON.map(orjson.dumps))
def test_no_bytes_do_more_than_be_refused(value: bytes) -> None:
    with pytest.raises(RecordError):
        parse_decision(b"k", value)


def test_the_latest_decision_has_the_highest_rank_and_ties_go_by_id() -> None:
    first = make_decision(id="a", decided_at=5)
    assert first.rank < make_decision(id="b", decided_at=5).rank
    assert make_decision(id="z", decided_at=4).rank < first.rank
    assert isinstance(first, Decision)
