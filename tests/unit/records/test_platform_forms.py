"""Records as platforms emit them are judged, whatever the form of their fields; only id and text can fail a post."""

from __future__ import annotations

import base64
import json
from typing import Any

import orjson
import pytest

from stream_guard.core import errors
from stream_guard.core.errors import NotAPostError
from stream_guard.records.post import Post, PostParser
from stream_guard.settings import PostSettings

CE = [("ce_specversion", b"1.0"), ("ce_id", b"e"), ("ce_source", b"/s"), ("ce_type", b"t")]


def parse(value: object, headers: Any = (), **changes: Any) -> Post:  # noqa: ANN401
    raw = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return PostParser(PostSettings(**changes)).parse(raw, headers)


def post(**fields: object) -> dict[str, object]:
    return {"id": "p1", "text": "hello", **fields}


# Lone surrogates


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"cheap pills \ud83d", "cheap pills \ufffd"),
        (rb"\uDE00 at the start", "\ufffd at the start"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ud83d\u0041", "\ufffdA"),
        (rb"\ud83dx\ude00", "\ufffdx\ufffd"),
        (rb"\ud83d\\ude00", "\ufffd\\ude00"),
        (rb"\ud83d\"", '\ufffd"'),
    ],
)
def test_half_a_character_is_replaced_and_judged(written: bytes, read: str) -> None:
    found = parse(b'{"id": "1", "text": "%s"}' % written)
    assert found.text == read
    assert found.repaired
    found.text.encode()


@pytest.mark.parametrize("written", [rb"\\ud83d", rb"\ud83d\ude00", rb"\\\\ud83d"])
def test_whole_characters_and_escaped_backslashes_are_not_repaired(written: bytes) -> None:
    found = parse(b'{"id": "1", "text": "%s"}' % written)
    assert not found.repaired
    assert found.text == json.loads(b'"%s"' % written)


def test_half_a_character_anywhere_else_is_replaced_too() -> None:
    found = parse(rb'{"id": "1\ud83d", "text": "x", "author": "\udfff", "o\ud800": ["\ud800"]}')
    assert (found.id, found.text, found.author, found.repaired) == ("1\ufffd", "x", "\ufffd", True)


def test_half_a_character_in_other_broken_json_is_still_no_json() -> None:
    with pytest.raises(errors.JsonError, match="line 1, column"):
        parse(rb'{"id": "1", "text": "\ud83d"')


# Byte order marks, and causes


def test_a_byte_order_mark_is_ignored() -> None:
    found = parse(b"\xef\xbb\xbf" + json.dumps(post()).encode())
    assert found.text == "hello"
    assert not found.repaired


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (b"\x00\x00\x00\x00\x07" + b'{"id": "1"}', errors.JsonError, r"schema registry.*schema id 7\)"),
        (json.dumps(post()).encode("utf-16"), errors.EncodingError, "UTF-16"),
        (json.dumps(post()).encode("utf-16-le"), errors.JsonError, "UTF-16"),
        (json.dumps(post()).encode("utf-16-be"), errors.JsonError, "UTF-16"),
        (b'{"id": "1", "text": "x", "score": NaN}', errors.JsonError, r"column 35.*contains NaN"),
        (b'{"id": "1", "text": "x", "score": -Infinity}', errors.JsonError, "contains -Infinity"),
        (b"\x1f\x8b\x08\x00", errors.EncodingError, "gzip"),
        (b"Obj\x01\x04", errors.JsonError, "Avro"),
        (b" ", errors.JsonError, "it is empty"),
    ],
)  # fmt: skip
def test_the_error_names_the_cause(value: bytes, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        parse(value)


def test_a_text_that_speaks_of_nan_is_not_the_cause() -> None:
    with pytest.raises(errors.JsonError, match=r"not JSON$"):
        parse(b'{"id": "1", "text": "NaN \\" Infinity",}')


# Fields in other forms


@pytest.mark.parametrize(
    ("written", "read"),
    [(12, "12"), (1.5, "1.5"), (3.0, "3"), (2**64, "18446744073709551616"), (-7, "-7")],
)
def test_a_number_is_an_id(written: float, read: str) -> None:
    found = parse(post(id=written, author=written, tenant=written))
    assert (found.id, found.author, found.tenant) == (read, read, read)
    assert found.nulled == ()


@pytest.mark.parametrize("name", ["author", "tenant", "language", "title", "parent", "created_at"])
@pytest.mark.parametrize("value", [True, {}, {"a": 1}, [], [1, 2], [["x"]]], ids=json.dumps)
def test_a_field_that_cannot_be_used_is_null_and_named(name: str, value: object) -> None:
    found = parse(post(**{name: value}))
    assert found.text == "hello"
    assert found.nulled == (name,)
    if name == "parent":
        assert found.context == ()
    else:
        assert getattr(found, "created_at_ms" if name == "created_at" else name) is None


def test_a_number_as_a_title_and_a_list_of_one_language_are_read() -> None:
    found = parse(post(title=1984, parent=[1], language=["de"]))
    assert (found.title, found.language, found.nulled) == ("1984", "de", ())
    assert [entry.text for entry in found.context] == ["1"]


def test_null_and_missing_fields_are_not_named() -> None:
    assert parse(post(author=None, created_at=None)).nulled == ()


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("1700000000", 1_700_000_000_000),
        ("1700000000.25", 1_700_000_000_250),
        ("1700000000123", 1_700_000_000_123),
        (1_700_000_000_123_456, 1_700_000_000_123),
        (1_700_000_000_123_456_789, 1_700_000_000_123),
        ("Tue, 15 Nov 1994 12:45:26 GMT", 784_903_526_000),
        ("Tue, 15 Nov 1994 12:45:26 +0100", 784_899_926_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("20240101", 1_704_067_200_000),
        ({"$date": "2020-01-01T00:00:00Z"}, 1_577_836_800_000),
        ({"$date": {"$numberLong": "1577836800000"}}, 1_577_836_800_000),
        ({"$date": 5}, 5),
    ],
)  # fmt: skip
def test_times_of_many_forms_are_read(written: object, ms: int) -> None:
    found = parse(post(created_at=written))
    assert (found.created_at_ms, found.nulled) == (ms, ())


@pytest.mark.parametrize(
    "written",
    ["", " ", "yesterday", "24:00", 1e300, -1e300, {"$date": []}, {"$date": {}}, "9" * 300,
     "0001-01-01T00:00:00+23:59"],
)  # fmt: skip
def test_a_time_that_cannot_be_read_is_null_and_named(written: object) -> None:
    found = parse(post(created_at=written))
    assert (found.created_at_ms, found.nulled) == (None, ("created_at",))


# Sizes


@pytest.mark.parametrize("name", ["author", "tenant", "language"])
def test_a_field_over_its_limit_is_null_and_named(name: str) -> None:
    found = parse(post(**{name: "ü" * 100_000}))
    assert (getattr(found, name), found.nulled) == (None, (name,))


@pytest.mark.parametrize("name", ["id", "author", "tenant", "language"])
def test_a_field_at_its_limit_is_read(name: str) -> None:
    found = parse(post(**{name: "ü" * 2_048}, other="x" * 9_000))
    assert (getattr(found, name), found.nulled) == ("ü" * 2_048, ())


def test_a_parent_that_does_not_fit_is_null_and_named() -> None:
    found = parse(post(parent="xyz"), thread={"max_bytes": 2})
    assert (found.text, found.context, found.text_bytes, found.nulled) == ("hello", (), 5, ("parent",))  # fmt: skip


# CloudEvents


def structured(**changes: object) -> dict[str, object]:
    return {"specversion": "1.0", "id": "e", "source": "/s", "type": "t", **changes}


@pytest.mark.parametrize(
    "kind", [b"APPLICATION/CloudEvents+JSON", b" application/cloudevents+json;charset=utf-8"]
)
def test_a_content_type_in_capitals_is_a_structured_event(kind: bytes) -> None:
    assert parse(structured(data=post()), [("Content-Type", kind)]).text == "hello"


def test_data_in_base64_is_read() -> None:
    data = base64.b64encode(rb'{"id": "1", "text": "\ud83d"}').decode()
    found = parse(structured(data_base64=data), [("content-type", b"application/cloudevents+json")])
    assert (found.text, found.repaired) == ("\ufffd", True)


@pytest.mark.parametrize("time", [b"", b"now", b"2024-13-01T00:00:00Z"])
def test_a_bad_time_of_an_event_is_null_and_named(time: bytes) -> None:
    found = parse(post(), [*CE, ("ce_time", time)])
    assert (found.created_at_ms, found.nulled) == (None, ("created_at",))


def test_the_time_of_the_event_stands_in_for_a_bad_one_of_the_post() -> None:
    found = parse(post(created_at=""), [*CE, ("ce_time", b"1970-01-01T00:00:01Z")])
    assert (found.created_at_ms, found.nulled) == (1_000, ())


# post.where

JETSTREAM = {"/kind": "commit", "/commit/operation": ["create", "update"]}


@pytest.mark.parametrize(
    ("document", "condition"),
    [
        ({"kind": "identity"}, "/kind"),
        ({"kind": "commit", "commit": {"operation": "delete"}}, "/commit/operation"),
        ({}, "/kind"),
        ([], "/kind"),
        (7, "/kind"),
    ],
)
def test_a_record_that_is_not_a_post_is_skipped_by_name(document: object, condition: str) -> None:
    with pytest.raises(NotAPostError) as raised:
        parse(document, where=JETSTREAM)
    assert raised.value.condition == condition


def test_a_record_that_meets_every_condition_is_a_post() -> None:
    document = {**post(), "kind": "commit", "commit": {"operation": "create"}}
    assert parse(document, where=JETSTREAM).text == "hello"


@pytest.mark.parametrize(
    ("wanted", "value", "is_post"),
    [
        (1, 1, True), (1, 1.0, True), (1, True, False), (True, True, True), (True, 1, False),
        (None, None, True), (None, "x", False), ("*", "x", True), ("*", [1], True), ("*", None, False),
        ("x", ["x"], False), (["x", None], None, True),
    ],
)  # fmt: skip
def test_values_are_compared_as_json(wanted: object, value: object, is_post: bool) -> None:  # noqa: FBT001
    parser = PostParser(PostSettings(where={"/f": wanted}))  # type: ignore[dict-item]
    raw = orjson.dumps(post(f=value))
    if is_post:
        assert parser.parse(raw, []).text == "hello"
    else:
        with pytest.raises(NotAPostError):
            parser.parse(raw, [])


def test_a_header_can_be_a_condition() -> None:
    where = {"header:ce_type": "post.created"}
    assert parse(post(), [*CE[:3], ("ce_type", b"post.created")], where=where).text == "hello"
    with pytest.raises(NotAPostError, match="header:ce_type"):
        parse(post(), CE, where=where)


def test_a_null_value_is_skipped_only_where_there_are_conditions() -> None:
    with pytest.raises(NotAPostError, match="tombstone"):
        parse(None, where={"/a": "*"})
    with pytest.raises(errors.TombstoneError):
        parse(None)
