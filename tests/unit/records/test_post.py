"""Posts: what is read, what is refused and by which name, and that no message holds text."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stream_guard.core import errors
from stream_guard.core.errors import RecordError
from stream_guard.records.post import Post, PostParser, ThreadEntry
from stream_guard.settings import PostSettings, ThreadSettings

WORDS = "Zebra-77"
CE = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"e1"),
    ("ce_source", b"/platform"),
    ("ce_type", b"post.created"),
]


def parse(value: object, headers: Any = (), **changes: Any) -> Post:  # noqa: ANN401
    raw = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return PostParser(PostSettings(**changes)).parse(raw, headers)


def post(**fields: object) -> dict[str, object]:
    return {"id": "p1", "text": WORDS, **fields}


def nested(depth: int) -> dict[str, object]:
    value: object = WORDS
    for _ in range(depth):
        value = [value]
    return post(extra=value)


BAD: list[tuple[str, object, dict[str, Any], type[RecordError]]] = [
    ("tombstone", None, {}, errors.TombstoneError),
    ("bad UTF-8", b'{"id": "1", "text": "Zebra-77 \xff"}', {}, errors.EncodingError),
    ("a cut character", '{"id": "1", "text": "ü'.encode()[:-1], {}, errors.EncodingError),
    ("nothing", b"", {}, errors.JsonError),
    ("cut JSON", b'{"id": "1", "text": "Zebra-77', {}, errors.JsonError),
    ("NaN", b'{"id": "1", "text": "Zebra-77", "x": NaN}', {}, errors.JsonError),
    ("no id", {"text": WORDS}, {}, errors.MissingFieldError),
    ("null id", post(id=None), {}, errors.MissingFieldError),
    ("no text", {"id": "1", "body": WORDS}, {}, errors.MissingFieldError),
    ("no field there", post(), {"text": "/a/b"}, errors.MissingFieldError),
    ("a list", [WORDS], {}, errors.FieldTypeError),
    ("a string", WORDS, {}, errors.FieldTypeError),
    ("text is a list", post(text=[WORDS]), {}, errors.FieldTypeError),
    ("text is a number", post(text=77), {}, errors.FieldTypeError),
    ("id is true", post(id=True), {}, errors.FieldTypeError),
    ("id is an object", post(id={"$oid": WORDS}), {}, errors.FieldTypeError),
    ("large id", post(id="x" * 700_000), {}, errors.TooLargeError),
    (
        "large id in small characters",
        post(id="ü" * 3),
        {"max_field_bytes": 5},
        errors.TooLargeError,
    ),
    ("large value", post(), {"max_record_bytes": 20}, errors.TooLargeError),
    ("large text", post(), {"max_text_bytes": 7}, errors.TooLargeError),
    ("large with title", post(title="x"), {"max_text_bytes": 8}, errors.TooLargeError),
    ("deep", nested(64), {}, errors.TooDeepError),
    ("deeper than the parser", b"[" * 5_000 + b"]" * 5_000, {}, errors.TooDeepError),
]


@pytest.mark.parametrize(
    ("value", "changes", "error"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_a_bad_record_has_its_own_error_without_text(
    value: object, changes: dict[str, Any], error: type[RecordError]
) -> None:
    with pytest.raises(error) as raised:
        parse(value, **changes)
    assert type(raised.value) is error or error is RecordError
    assert WORDS not in str(raised.value)
    assert raised.value.stage == "parse"


def test_each_parse_error_has_a_reason_of_its_own() -> None:
    kinds = RecordError.__subclasses__()
    assert len({kind.reason for kind in kinds}) == len(kinds) == 16


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (post(), {"max_text_bytes": 8}),
        (post(text="ü" * 4), {"max_text_bytes": 8}),
        (post(text="abc", title="de", parent="fgh"), {"max_text_bytes": 5}),
        (nested(63), {}),
        (post(), {"max_record_bytes": len(json.dumps(post()))}),
        (post(text=""), {}),
    ],
)
def test_a_record_at_the_limit_is_read(value: object, changes: dict[str, Any]) -> None:
    assert parse(value, **changes).text == value["text"]  # type: ignore[index]


def test_text_over_the_limit_counts_bytes_and_not_characters() -> None:
    with pytest.raises(errors.TooLargeError, match="10 bytes"):
        parse(post(text="ü" * 5), max_text_bytes=9)


def test_every_field_is_read() -> None:
    read = parse(
        post(author=7, tenant="t", language="de", title="T", parent="P", created_at=1_700_000_000)
    )
    assert read == Post(
        id="p1",
        text=WORDS,
        sha256=hashlib.sha256(WORDS.encode()).hexdigest(),
        text_bytes=10,
        author="7",
        tenant="t",
        language="de",
        title="T",
        context=(ThreadEntry("parent", "P"),),
        created_at_ms=1_700_000_000_000,
    )


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        (0, 0),
        (1.5, 1_500),
        (-1, -1_000),
        (1_700_000_000_123, 1_700_000_000_123),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00.250+01:00", 250),
        ("1970-01-01T00:00:01", 1_000),
        ("2099-12-31T23:59:59.999Z", 4_102_444_799_999),
        ("1970-01-01 00:00:02 UTC", 2_000),
        ("1970-01-01 00:00:02.500 GMT", 2_500),
        ({"seconds": 3, "nanos": 500_000_000}, 3_500),
        ({"seconds": "3"}, 3_000),
        ({"_seconds": 3, "_nanoseconds": 0}, 3_000),
    ],
)
def test_times_are_rfc_3339_or_unix(written: object, ms: int) -> None:
    assert parse(post(created_at=written)).created_at_ms == ms


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"12345678901234567890123", "12345678901234567890123"),
        (b"12345678901234567890124", "12345678901234567890124"),
        (b"-18446744073709551617", "-18446744073709551617"),
        (b"1e21", "1e21"),
        (b"9007199254740993.0", "9007199254740993.0"),
        (b"1.5", "1.5"),
        (b"2.0", "2"),
    ],
)
def test_no_digit_of_an_id_is_lost(written: bytes, read: str) -> None:
    parsed = parse(b'{"id": %b, "text": "x", "author": %b}' % (written, written))
    assert (parsed.id, parsed.author) == (read, read)
    lone = parse(b'{"id": %b, "text": "x \\ud83d"}' % written)
    assert (lone.id, lone.text, lone.repaired) == (read, "x \ufffd", True)


def test_fields_are_found_by_json_pointers() -> None:
    document = {"a/b": {"~": ["x", {"body": "hello"}]}, "meta": {"key": 12}, "": "author"}
    read = parse(document, text="/a~1b/~0/1/body", id="/meta/key", author="/")
    assert (read.text, read.id, read.author) == ("hello", "12", "author")


@pytest.mark.parametrize("pointer", ["/list/7", "/list/x", "/list/-", "/list/0/deep", "/no/way"])
def test_a_pointer_to_nothing_finds_nothing(pointer: str) -> None:
    assert parse(post(list=["a"]), author=pointer).author is None


def test_a_malformed_pointer_stops_the_start_and_names_the_setting() -> None:
    with pytest.raises(ValidationError, match=r"text\n.*'/a~2' is not a JSON pointer"):
        PostSettings(text=("/text", "/a~2"))


REDDIT = {"text": ("/data/selftext", "/data/body"), "id": ("/data/name", "/data/id")}


@pytest.mark.parametrize(
    ("data", "read"),
    [
        ({"selftext": "a post", "body": "not this"}, "a post"),
        ({"body": "a comment"}, "a comment"),
        ({"selftext": None, "body": "a comment"}, "a comment"),
        ({"selftext": "", "body": "a comment"}, "a comment"),
        ({"selftext": ""}, ""),
        ({"body": "", "selftext": None}, ""),
    ],
)
def test_the_first_place_with_a_value_counts(data: dict[str, object], read: str) -> None:
    found = parse({"data": {"id": 7, **data}}, **REDDIT)
    assert (found.text, found.id) == (read, "7")


def test_an_error_names_every_place() -> None:
    with pytest.raises(
        errors.MissingFieldError, match=r"'/data/selftext or /data/body' .post\.text"
    ):
        parse({"data": {"id": 7}}, **REDDIT)
    with pytest.raises(errors.FieldTypeError, match=r"/data/selftext or /data/body.*is a list"):
        parse({"data": {"id": 7, "selftext": ["x"], "body": "y"}}, **REDDIT)


# Topics


def test_a_topic_has_settings_of_its_own_over_the_common_ones() -> None:
    settings = PostSettings(
        author="/by",
        max_key_bytes=9,
        topics={"comments": {"text": "/body", "where": {"/kind": "t1"}, "max_key_bytes": 5}},  # type: ignore[dict-item]
    )
    parser = PostParser(settings)
    comments = parser.of_topic("comments")
    document = orjson.dumps(
        {"id": "1", "by": "ann", "text": "post", "body": "comment", "kind": "t1"}
    )
    assert (parser.parse(document, ()).text, parser.max_key_bytes) == ("post", 9)
    read = comments.parse(document, ())
    assert (read.text, read.author, comments.max_key_bytes) == ("comment", "ann", 5)
    with pytest.raises(errors.NotAPostError):
        comments.parse(orjson.dumps(post()), ())
    assert parser.of_topic("posts") is parser
    assert parser.of_topic("comments") is comments  # built once


# CloudEvents


def test_a_binary_cloud_event_is_read_and_its_time_is_the_posts() -> None:
    headers = [*CE, ("ce_time", b"1970-01-01T00:00:01Z"), ("content-type", b"application/json")]
    read = parse(post(), headers)
    assert (read.text, read.created_at_ms) == (WORDS, 1_000)
    assert parse(post(created_at=2), headers).created_at_ms == 2_000
    assert parse(post(), headers, format="json").created_at_ms is None


def structured(**changes: object) -> dict[str, object]:
    event = {"specversion": "1.0", "id": "e", "source": "/s", "type": "t", "data": post()}
    return {k: v for k, v in {**event, **changes}.items() if v is not ...}


STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


@pytest.mark.parametrize("kind", ["auto", "cloudevents"])
def test_a_structured_cloud_event_is_read(kind: str) -> None:
    read = parse(structured(time="1970-01-01T00:00:01Z"), STRUCTURED, format=kind)
    assert (read.id, read.text, read.created_at_ms) == ("p1", WORDS, 1_000)


@pytest.mark.parametrize(
    ("value", "headers", "changes"),
    [
        ([WORDS], STRUCTURED, {}),
        (structured(specversion="0.3"), STRUCTURED, {}),
        (structured(id=...), STRUCTURED, {}),
        (structured(source=""), STRUCTURED, {}),
        (structured(type=7), STRUCTURED, {}),
        (structured(data=...), STRUCTURED, {}),
        (structured(data=..., data_base64="*"), STRUCTURED, {}),
        (structured(data=..., data_base64="ü"), STRUCTURED, {}),
        (post(), CE[1:], {}),
        (post(), CE[:3], {}),
        (post(), [*CE[:3], ("ce_type", None)], {}),
        (post(), [("ce_specversion", b"9"), *CE[1:]], {}),
        (post(), [], {"format": "cloudevents"}),
        (post(), [("x", b"y")], {"format": "cloudevents"}),
    ],
)
def test_a_broken_cloud_event_is_refused(
    value: object,
    headers: Any,  # noqa: ANN401
    changes: dict[str, Any],
) -> None:
    with pytest.raises(errors.CloudEventError) as raised:
        parse(value, headers, **changes)
    assert WORDS not in str(raised.value)


def test_other_headers_make_no_cloud_event() -> None:
    headers = [("traceparent", b"\xff"), ("content-type", None), ("x", b"")]
    assert parse(post(), headers).text == WORDS


# Anything at all

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["2024-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "24:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("id", "text", "author", "tenant", "language", "title", "parent", "created_at", "thread")
THREAD = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("title", "title_author", "parent_author", "earlier", "quoted", "quoted_author"), JSON)
)  # fmt: skip
DOCUMENT = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(NAMES, JSON) | {"thread": JSON | THREAD}
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_source", "ce_specversion", "x"])
        | st.just("content-type"),
        st.none() | st.binary(max_size=8) | st.sampled_from([b"1.0", STRUCTURED[0][1]]),
    ),
    max_size=6,
)
PARSER = PostParser(
    PostSettings(max_text_bytes=200, max_depth=5, thread=ThreadSettings(max_bytes=40))
)


@settings(max_examples=300, deadline=None)
@given(
    value=st.none() | st.binary(max_size=60) | DOCUMENT.map(json.dumps).map(str.encode),
    headers=HEADERS,
)
def test_whatever_comes_is_a_post_that_can_be_passed_on_or_a_records_error(
    value: bytes | None,
    headers: Any,  # noqa: ANN401
) -> None:
    try:
        read = PARSER.parse(value, headers)
    except RecordError as error:
        message = str(error)
    else:
        # All that a verdict carries of it can be written.
        message = ""
        orjson.dumps([read.id, read.author, read.tenant, read.language, read.created_at_ms])
        assert read.text_bytes <= 240
        assert sum(len(entry.text.encode()) for entry in read.context) <= 40
    assert len(message) < 200


@given(text=st.text(alphabet="qxzQXZ", min_size=6), where=st.sampled_from(NAMES[:2]))
def test_no_message_holds_what_a_post_says(text: str, where: str) -> None:
    document = {**post(), where: [text]}
    with pytest.raises(RecordError) as raised:
        parse(document)
    assert text not in str(raised.value)
