"""Dead letters: the original as it was, and where, when and why in headers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.core.errors import JsonError, PromptError, RecordError
from stream_guard.records.dead_letter import read_dead_letter
from stream_guard.records.dead_letter_event import (
    build_dead_letter,
    smaller_dead_letter,
    source_id,
)
from stream_guard.settings import KafkaSettings
from stream_guard.testing import MemoryRecord

if TYPE_CHECKING:
    from stream_guard.records.dead_letter_event import DeadLetterEvent

ORIGINAL = [("x", b"1"), ("x", b"2"), ("none", None), ("sg_reason", b"theirs")]


def build(
    value: bytes | None = b"\xff{",
    error: RecordError | None = None,
    key: bytes | None = b"\x00k",
    original: list[Any] = ORIGINAL,
    bytes_max: int = 1_024,
    **changes: object,
) -> DeadLetterEvent:
    record = MemoryRecord("posts", 3, 41, 1_700_000_000_000, key, value, original)
    options: dict[str, Any] = {
        "kafka": KafkaSettings(
            dead_letter_topic="dead", group_id="g", dead_letter_bytes_max=bytes_max
        ),
        "failed_ms": 1_700_000_000_500,
        "policy_id": None,
        "attempts": 2,
    }
    return build_dead_letter(record, error or JsonError("line 1: not JSON"), **options | changes)


def test_the_original_stays_and_the_headers_say_where_when_and_why() -> None:
    letter = build()
    assert letter[:2] == (b"\x00k", b"\xff{")
    assert letter.headers[:4] == ORIGINAL
    assert letter.headers[4:] == [
        ("sg_reason", b"json"),
        ("sg_error", b"JsonError"),
        ("sg_message", b"line 1: not JSON"),
        ("sg_stage", b"parse"),
        ("sg_topic", b"posts"),
        ("sg_partition", b"3"),
        ("sg_offset", b"41"),
        ("sg_timestamp_ms", b"1700000000000"),
        ("sg_group", b"g"),
        ("sg_failed_ms", b"1700000000500"),
        ("sg_attempts", b"2"),
        ("sg_id", source_id("posts", 3, 41, 1_700_000_000_000).encode()),
    ]


def test_other_conventions_have_the_same_facts_in_the_block() -> None:
    kafka = KafkaSettings(group_id="g", dead_letter_headers=("connect", "streams"))
    plain, letter = build(), build(kafka=kafka)
    assert letter.headers[:16] == plain.headers
    assert letter.headers[16:] == [
        ("__connect.errors.topic", b"posts"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"41"),
        ("__connect.errors.connector.name", b"g"),
        ("__connect.errors.stage", b"parse"),
        ("__connect.errors.exception.class.name", b"JsonError"),
        ("__connect.errors.exception.message", b"line 1: not JSON"),
        ("__streams.errors.exception", b"JsonError: line 1: not JSON"),
        ("__streams.errors.message", b"line 1: not JSON"),
        ("__streams.errors.topic", b"posts"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"41"),
    ]
    # They are of the dead letter and not of the record: a replay does not send them back.
    record = MemoryRecord("dead", 0, 0, 0, letter.key, letter.value, letter.headers)
    read = read_dead_letter(record)
    assert read is not None
    assert list(read.headers) == ORIGINAL


def test_a_failure_under_a_policy_names_it_and_its_stage() -> None:
    headers = dict(build(error=PromptError("too long"), policy_id="spam").headers)
    assert headers["sg_policy"] == b"spam"
    assert headers["sg_stage"] == b"judge"


@pytest.mark.parametrize("value", [None, b"", b"x" * 1_024])
def test_a_value_up_to_the_limit_is_whole(value: bytes | None) -> None:
    letter = build(value)
    assert letter.value == value
    assert not any(name.startswith("sg_cut") for name, _ in letter.headers)


def test_a_value_over_the_limit_is_cut_and_says_so() -> None:
    whole = b"x" * 1_024 + b"y"
    letter = build(whole)
    headers = dict(letter.headers)
    assert letter.value == b"x" * 1_024
    assert headers["sg_cut_from_bytes"] == b"1025"
    assert headers["sg_cut_sha256"] == hashlib.sha256(whole).hexdigest().encode()


def test_a_message_of_any_characters_can_be_written() -> None:
    headers = dict(build(error=JsonError("bad \ud800 ü")).headers)
    assert headers["sg_message"] == "bad \\ud800 ü".encode()


def test_a_key_over_the_limit_is_cut_and_says_so() -> None:
    letter = build(key=b"k" * 100_000)
    assert letter.key == b"k" * 32_768
    assert dict(letter.headers)["sg_cut_key_from_bytes"] == b"100000"


def test_headers_over_the_limit_lose_the_largest_first() -> None:
    original = [("a", b"1"), ("huge", b"x" * 90_000), ("b", None), ("large", b"x" * 1_000)]
    letter = build(original=original)
    assert letter.headers[:3] == [original[0], original[2], original[3]]
    assert dict(letter.headers)["sg_cut_headers"] == b"1"


def test_a_million_headers_are_as_few_as_fit() -> None:
    letter = build(original=[("h", b"")] * 100_000)
    dropped = int(dict(letter.headers)["sg_cut_headers"])
    assert len(letter.headers) == 100_000 - dropped + 13
    assert (100_000 - dropped) * 11 <= 65_536


def test_key_and_headers_may_take_what_the_value_leaves() -> None:
    letter = build(key=b"k" * 100_000, bytes_max=200_000)
    assert len(letter.key or b"") == 100_000


def test_an_id_names_one_record_of_one_topic() -> None:
    places = [("a", 1, 1, 1), ("b", 1, 1, 1), ("a", 2, 1, 1), ("a", 1, 2, 1), ("a", 1, 1, 2)]
    assert len({source_id(*place) for place in places}) == len(places)


def test_the_smaller_form_is_cut_further_and_says_so() -> None:
    whole, original = b"v" * 1_000, [("a", b"1"), ("huge", b"x" * 900), *ORIGINAL[3:]]
    letter = build(whole, key=b"k" * 900, original=original)
    key, value, headers = smaller_dead_letter(*letter)
    assert (key, value) == (b"k" * 256, b"v" * 256)
    assert headers[: 2 + 12] == [original[0], original[2], *letter.headers[3:]]
    assert headers[2 + 12 :] == [
        ("sg_cut_from_bytes", b"1000"),
        ("sg_cut_sha256", hashlib.sha256(whole).hexdigest().encode()),
        ("sg_cut_key_from_bytes", b"900"),
        ("sg_cut_headers", b"1"),
    ]


def test_the_smaller_form_of_a_cut_dead_letter_still_describes_the_original() -> None:
    whole = b"v" * 5_000
    original = [("huge", b"x" * 90_000), ("large", b"x" * 1_000)]
    letter = build(whole, key=b"k" * 40_000, original=original)
    headers = dict(smaller_dead_letter(*letter).headers)
    assert headers["sg_cut_from_bytes"] == b"5000"
    assert headers["sg_cut_sha256"] == hashlib.sha256(whole).hexdigest().encode()
    assert headers["sg_cut_key_from_bytes"] == b"40000"
    assert headers["sg_cut_headers"] == b"2"


@pytest.mark.parametrize("value", [None, b"", b"v" * 256])
def test_what_is_small_already_is_not_cut(value: bytes | None) -> None:
    letter = build(value)
    assert smaller_dead_letter(*letter) == letter
