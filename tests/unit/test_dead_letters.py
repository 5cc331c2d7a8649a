"""Dead letters: the original as it was, and where, when and why in headers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.dead_letters import build_dead_letter
from stream_guard.errors import JsonError, PromptError, RecordError
from stream_guard.testing import MemoryRecord

if TYPE_CHECKING:
    from stream_guard.ports import Outgoing

ORIGINAL = [("x", b"1"), ("x", b"2"), ("none", None), ("sg_reason", b"theirs")]


def build(
    value: bytes | None = b"\xff{", error: RecordError | None = None, **changes: object
) -> Outgoing:
    record = MemoryRecord("posts", 3, 41, 1_700_000_000_000, b"\x00k", value, ORIGINAL)  # type: ignore[arg-type]
    options: dict[str, Any] = {
        "topic": "dead",
        "group": "g",
        "failed_ms": 1_700_000_000_500,
        "policy_id": None,
        "bytes_max": 8,
        "context": "mine",
    }
    return build_dead_letter(record, error or JsonError("line 1: not JSON"), **options | changes)


def test_the_original_stays_and_the_headers_say_where_when_and_why() -> None:
    letter = build()
    assert letter[:3] == ("dead", b"\x00k", b"\xff{")
    assert letter.context == "mine"
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
    ]


def test_a_failure_under_a_policy_names_it_and_its_stage() -> None:
    headers = dict(build(error=PromptError("too long"), policy_id="spam").headers)
    assert headers["sg_policy"] == b"spam"
    assert headers["sg_stage"] == b"judge"


@pytest.mark.parametrize("value", [None, b"", b"12345678"])
def test_a_value_up_to_the_limit_is_whole(value: bytes | None) -> None:
    letter = build(value)
    assert letter.value == value
    assert not any(name.startswith("sg_cut") for name, _ in letter.headers)


def test_a_value_over_the_limit_is_cut_and_says_so() -> None:
    letter = build(b"123456789")
    headers = dict(letter.headers)
    assert letter.value == b"12345678"
    assert headers["sg_cut_from_bytes"] == b"9"
    assert headers["sg_cut_sha256"] == hashlib.sha256(b"123456789").hexdigest().encode()


def test_a_message_of_any_characters_can_be_written() -> None:
    headers = dict(build(error=JsonError("bad \ud800 ü")).headers)
    assert headers["sg_message"] == "bad \\ud800 ü".encode()
