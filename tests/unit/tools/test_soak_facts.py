"""How the soak makes facts of what it reads: commits from the group's own log, posts by what they are."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.errors import DeletedPostError
from stream_guard.kafka.decompression import RECORD_BYTES_MAX
from stream_guard.records.post import PostParser
from stream_guard.settings import PostSettings
from tests.soak.facts import Commit, Expired, Input
from tests.soak.posting import OVERSIZED, POISON, due_by, post
from tests.soak.reading import cut_whole, inputs_of, parse_commit, parse_generation
from tests.soak.soak import told_expired, with_deleted

if TYPE_CHECKING:
    from pathlib import Path


class Read:
    """A record, as far as the facts look at it."""

    def __init__(self, offset: int, value: bytes | None, key: bytes | None = None) -> None:
        self.key = key
        self.partition, self.offset, self.value, self.timestamp = 1, offset, value, 1_000 + offset


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def key(version: int = 1) -> bytes:
    return struct.pack(">h", version) + text("group") + text("posts") + struct.pack(">i", 3)


def value(version: int, metadata: bytes) -> bytes:
    return struct.pack(">hqi", version, 42, -1) + metadata + struct.pack(">q", 1_700)


@pytest.mark.parametrize(
    ("version", "metadata", "expected"),
    [
        (3, text("end"), "end"),
        (4, b"\x04end", "end"),
        (4, b"\x01", ""),
        (4, b"\x81\x02" + b"x" * 256, "x" * 256),
    ],
)
def test_a_commit_is_read_in_each_version_that_brokers_write(
    version: int, metadata: bytes, expected: str
) -> None:
    # Tagged fields follow in version 4, and are of no interest.
    parsed = parse_commit(key(), value(version, metadata) + b"\x00")
    assert parsed == ("group", "posts", expected, Commit(3, 42, 1_700))


def test_what_is_no_commit_is_passed_over() -> None:
    assert parse_commit(key(version=2), b"a group's metadata") is None
    assert parse_commit(key(), None) is None
    assert parse_commit(None, None) is None


@pytest.mark.parametrize(
    ("version", "protocol"), [(0, text("consumer")), (3, text("consumer")), (4, b"\x09consumer")]
)
def test_a_generation_is_read_in_each_version_that_brokers_write(
    version: int, protocol: bytes
) -> None:
    key = struct.pack(">h", 2) + text("group")
    value = struct.pack(">h", version) + protocol + struct.pack(">i", 17) + b"and more"
    assert parse_generation(key, value) == ("group", 17)
    assert parse_generation(key, None) is None
    assert parse_generation(struct.pack(">h", 1) + text("group"), value) is None
    with pytest.raises(ValueError, match="version 5"):
        parse_generation(key, struct.pack(">h", 5) + value[2:])


def test_what_was_deleted_is_among_the_inputs_once() -> None:
    def fact(offset: int, deleted_ms: int = 0) -> Input:
        return Input(0, offset, offset, "post", f"p{offset}", False, deleted_ms)  # noqa: FBT003

    # Deleted twice where a broker came back with an older beginning of its log.
    deleted = [fact(0, 5), fact(1, 5), fact(0, 9), fact(1, 9), fact(2, 9)]
    assert with_deleted([fact(2), fact(3)], deleted) == [
        fact(0, 5),
        fact(1, 5),
        fact(2, 9),
        fact(3),
    ]


def test_what_a_member_says_of_expired_records_is_read_from_its_log(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_text(
        'not json\n{"event":"ready"}\n'
        '{"event":"records_expired","partition":"posts/3","position":4,"now":9,"records":5}\n'
    )
    assert told_expired([log]) == [Expired(3, 4, 9)]


def test_a_commit_of_an_unknown_version_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="version 5"):
        parse_commit(key(), value(5, b"\x01"))


def test_posts_poison_and_what_was_aborted_are_told_apart() -> None:
    values = [post("p7", 7), post("t0-1", 1), post("p-last-2", 2), *POISON]
    every = [Read(offset, value) for offset, value in enumerate(values)]
    facts = inputs_of(every, [record for record in every if record.offset != 1])
    assert [(fact.kind, fact.name) for fact in facts[:3]] == [
        ("post", "p7"),
        ("post", "t0-1"),
        ("post", "p-last-2"),
    ]
    assert {fact.kind for fact in facts[3:]} == {"poison"}
    assert len({fact.name for fact in facts}) == len(values)
    assert [fact.offset for fact in facts if fact.aborted] == [1]


def test_a_deletion_is_named_by_its_post_or_by_its_key() -> None:
    every = [Read(0, None, b"k12"), Read(1, b'{"op":"d","id":"p7"}', b"k7")]
    facts = inputs_of(every, every)
    assert [(fact.kind, fact.name) for fact in facts] == [("delete", "k12"), ("delete", "p7")]
    conditions = {"/op": ("d",)}
    parser = PostParser(PostSettings(deletes=conditions, tombstones="delete"))
    for record in every:
        with pytest.raises(DeletedPostError):
            parser.parse(record.value, ())


def test_a_record_too_long_to_keep_and_its_dead_letter_have_one_name() -> None:
    bomb = b"x" * (RECORD_BYTES_MAX + 1)
    (fact,) = inputs_of([Read(0, bomb)], [Read(0, bomb)])
    assert (fact.kind, fact.name) == ("poison", OVERSIZED)
    assert cut_whole({"sg_cut_from_bytes": b"16777217"}, b"")
    assert not cut_whole({"sg_cut_from_bytes": b"900001"}, b"its beginning")
    assert not cut_whole({}, b"")


def test_one_post_in_seven_is_hostile_and_all_are_posts_to_the_parser() -> None:
    parser = PostParser(PostSettings())
    texts = {number: parser.parse(post("p", number), ()).text for number in range(1, 29)}
    plain = {f"{words} {n}" for n in texts for words in ("nothing much", "[violates]")}
    assert [n for n, text in texts.items() if text not in plain] == [7, 14, 21, 28]


def test_posts_flow_more_slowly_beyond_the_quota_and_do_not_stop() -> None:
    assert due_by(5, 10, 100) == 50
    assert due_by(10, 10, 100) == 100
    assert due_by(14, 10, 100) == 110
