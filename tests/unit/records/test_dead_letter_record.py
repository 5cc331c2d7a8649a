"""Dead letters read back: whose headers are whose, which filter takes which, and what a person is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_guard.cli.views.dead_letter import Newest, content_lines, details, offset_range, row
from stream_guard.core.errors import JsonError, SettingsError
from stream_guard.core.times import time_ms, time_text
from stream_guard.records.dead_letter import (
    DeadLetter,
    DeadLetterFilter,
    Place,
    marker,
    read_dead_letter,
    replay_headers,
    replayed_id,
)
from stream_guard.records.dead_letter_event import build_dead_letter, source_id
from stream_guard.settings import KafkaSettings
from stream_guard.testing import MemoryRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

KAFKA = KafkaSettings(dead_letter_topic="dead", group_id="g", dead_letter_bytes_max=1_024)
THEIRS: Any = (
    ("sg_reason", b"theirs"),
    ("sg_replays", b"2"),
    ("sg_marker", b"replayed"),
    ("x", None),
    ("raw", b"\xff"),
)


def letter(
    offset: int = 7,
    headers: Sequence[Any] = THEIRS,
    value: bytes | None = b"{",
    failed_ms: int = 5_000,
) -> DeadLetter:
    source = MemoryRecord("posts", 3, 41, -5, b"k", value, list(headers))
    made = build_dead_letter(
        source,
        JsonError("line 1"),
        kafka=KAFKA,
        failed_ms=failed_ms,
        policy_id=None,
        attempts=1,
    )
    found = read_dead_letter(MemoryRecord("dead", 1, offset, 0, made.key, made.value, made.headers))
    assert found is not None
    return found


def test_a_dead_letter_is_read_back_as_it_was_written() -> None:
    read = letter()
    assert (read.topic, read.partition, read.offset) == ("dead", 1, 7)
    assert (read.source_topic, read.source_partition, read.source_offset) == ("posts", 3, 41)
    assert (read.source_ms, read.failed_ms, read.reason) == (-5, 5_000, "json")
    assert (read.key, read.value, read.headers) == (b"k", b"{", THEIRS)
    assert read.id == source_id("posts", 3, 41, -5) == read.about["sg_id"]
    assert not read.cut


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("sg_reason", b"json")],
        [("sg_reason", b"json"), ("sg_topic", b"t"), ("sg_partition", b"1"), ("sg_offset", b"x")],
        [
            ("sg_reason", None),
            ("sg_topic", b"t"),
            ("sg_partition", b"1"),
            ("sg_offset", b"9" * 5_000),
            ("sg_timestamp_ms", b"1"),
        ],
    ],
)
def test_what_others_wrote_into_the_topic_is_no_dead_letter(headers: list[Any]) -> None:
    assert read_dead_letter(MemoryRecord("dead", 0, 0, headers=headers)) is None


def test_a_replay_keeps_their_headers_takes_ours_off_and_counts() -> None:
    once = letter(headers=[("a", b"1"), ("sg_reason", b"theirs")])
    assert replay_headers(once) == [
        ("a", b"1"),
        ("sg_reason", b"theirs"),
        ("sg_replays", b"1"),
        ("sg_replay_of", once.id.encode()),
    ]
    again = letter(headers=replay_headers(once))
    assert again.replays == 1
    assert replay_headers(again)[2:] == [
        ("sg_replays", b"2"),
        ("sg_replay_of", again.id.encode()),
    ]


@pytest.mark.parametrize("count", [b"", b"x", b"-3", b"9" * 5_000, None, b"\xff"])
def test_a_count_that_a_producer_made_up_counts_as_none(count: bytes | None) -> None:
    assert letter(headers=[("sg_replays", count)]).replays == 0


def test_a_marker_names_what_was_replayed_and_is_no_dead_letter() -> None:
    key, value, headers = marker(letter(), 9_000)
    record = MemoryRecord("dead", 1, 8, 0, key, value, headers)
    assert read_dead_letter(record) is None
    assert replayed_id(record) == letter().id
    assert orjson.loads(value)["replayed_ms"] == 9_000


def test_a_dead_letter_whose_record_looks_like_a_marker_is_none() -> None:
    made = letter()
    headers = [*made.headers, *((name, text.encode()) for name, text in made.about.items())]
    assert replayed_id(MemoryRecord("dead", 0, 0, headers=headers)) is None


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (DeadLetterFilter(), True),
        (DeadLetterFilter(reasons=frozenset({"json", "encoding"})), True),
        (DeadLetterFilter(reasons=frozenset({"encoding"})), False),
        (DeadLetterFilter(topic="posts", partition=3), True),
        (DeadLetterFilter(topic="dead"), False),
        (DeadLetterFilter(partition=1), False),
        (DeadLetterFilter(offset_min=41, offset_max=41), True),
        (DeadLetterFilter(offset_min=42), False),
        (DeadLetterFilter(offset_max=40), False),
        (DeadLetterFilter(since_ms=5_000, until_ms=5_001), True),
        (DeadLetterFilter(since_ms=5_001), False),
        (DeadLetterFilter(until_ms=5_000), False),
        (DeadLetterFilter(ids=frozenset({source_id("posts", 3, 41, -5)})), True),
        (DeadLetterFilter(ids=frozenset({"other"})), False),
    ],
)
def test_each_filter_takes_what_it_says(wanted: DeadLetterFilter, *, takes: bool) -> None:
    assert wanted.takes(letter()) is takes


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("posts/3/41", Place("posts", 3, 41)),
        ("a/b/3/41", Place("a/b", 3, 41)),
        ("posts/3", None),
        ("/3/41", None),
        ("posts/x/41", None),
        ("0123456789abcdef0123456789abcdef", None),
    ],
)
def test_a_place_is_topic_partition_and_offset(text: str, place: Place | None) -> None:
    assert Place.parse(text) == place


# For people


def test_a_time_without_a_zone_is_utc() -> None:
    assert time_ms("1970-01-02", "--since") == 86_400_000
    assert time_ms("1970-01-01T01:00:00+01:00", "--since") == 0
    with pytest.raises(SettingsError, match=r"--since yesterday: not a time; for example"):
        time_ms("yesterday", "--since")


@pytest.mark.parametrize(
    ("unix_ms", "text"),
    [
        (1, "1970-01-01T00:00:00.001Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1 << 62, f"{1 << 62} ms"),
    ],
)
def test_any_time_can_be_shown(unix_ms: int, text: str) -> None:
    assert time_text(unix_ms) == text


@pytest.mark.parametrize(
    ("text", "offsets"),
    [("5-9", (5, 9)), ("5-", (5, None)), ("-9", (None, 9)), ("5", (5, 5)), ("0-0", (0, 0))],
)
def test_offsets_are_a_range_with_both_ends(
    text: str, offsets: tuple[int | None, int | None]
) -> None:
    assert offset_range(text) == offsets


@pytest.mark.parametrize("text", ["", "-", "x", "5-x", "9-5", "1-2-3"])
def test_offsets_that_are_no_range_say_how_to_write_one(text: str) -> None:
    with pytest.raises(SettingsError, match="--offsets"):
        offset_range(text)


def test_text_is_shown_as_text_and_bytes_as_hex() -> None:
    assert list(content_lines("grün\n\x1b".encode())) == ["grün", r"\x1b"]
    [line] = content_lines(b"\xffAB\x00")
    assert line.startswith("00000000  ff 41 42 00")
    assert line.endswith(" .AB.")


def test_much_content_is_cut_and_says_so() -> None:
    *_, last = content_lines("ü".encode() * 10_000)
    assert last == "… and 3,616 more bytes; --json has all of them"


def test_a_cut_through_a_character_is_still_text() -> None:
    first, _ = content_lines(b"x" + "ü".encode() * 10_000)
    assert set(first) == {"x", "ü"}


def test_content_is_shown_on_request_only() -> None:
    made = letter(value=b"a secret post")
    without, with_content = (list(details(made, content=shown)) for shown in (False, True))
    assert not any("secret" in line for line in without)
    assert "  value        13 bytes; --content shows it" in without
    assert "    a secret post" in with_content
    assert "    x: null" in without
    assert "    raw: hex ff" in without


def test_a_row_says_what_became_of_it() -> None:
    assert row(letter(), replayed=True)[-1] == "replayed"
    assert row(letter(value=b"x" * 2_000), replayed=False)[-1] == "cut"
    assert row(letter(value=None), replayed=False)[-2:] == ("null", "")


def test_the_newest_are_kept_in_order_and_without_their_content() -> None:
    newest = Newest(2)
    for failed_ms in (5, 9, 1, 7):
        newest.add(letter(failed_ms=failed_ms))
    kept = newest.letters()
    assert [one.failed_ms for one in kept] == [7, 9]
    assert all(one.value is None and one.value_bytes == 1 for one in kept)
