"""Reads logs back, whole: the input, the verdicts, the dead letters, and the group's own.

What it must never do: end before a log's marker, so that what is missing is missing from the log.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_guard.records.decision import parse_decision
from stream_guard.records.verdict_changes import ALL_POLICIES
from stream_guard.stream.decision_lane import RESTATED_HEADER
from tests.soak import posting
from tests.soak.facts import Commit, Decided, Generation, Input, Outcome
from tests.soak.posting import MARKER, OVERSIZED, digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

OFFSETS_TOPIC: Final = "__consumer_offsets"
_GROUP_METADATA: Final = 2
_SILENCE_S: Final = 60.0
_METADATA_S: Final = 60.0
_CHANGES: Final = ("supersedes", "retracts", "expired")


async def read_logs(
    bootstrap: str, partitions: dict[str, int], *, committed: bool
) -> dict[str, list[Any]]:
    """Return all records of these topics, by topic, up to their markers.

    Args:
        bootstrap: of the brokers.
        partitions: how many each topic has.
        committed: as a reader with ``read_committed`` gets them.
    """
    open_ends = {TopicPartition(t, p) for t, count in partitions.items() for p in range(count)}
    records: dict[str, list[Any]] = {topic: [] for topic in partitions}
    async for record in _read(bootstrap, open_ends, committed=committed):
        if any(name == MARKER for name, _ in record.headers):
            open_ends.discard(TopicPartition(record.topic, record.partition))
            if not open_ends:
                break
        else:
            records[record.topic].append(record)
    return records


async def read_partition(bootstrap: str, topic: str, partition: int) -> list[Input]:
    """Return what a partition of the input holds now, up to the first transaction that is still open."""
    place = TopicPartition(topic, partition)
    readable = await _read_up_to(bootstrap, place, committed=True)
    every = await _read_up_to(bootstrap, place, committed=False)
    last = max((record.offset for record in readable), default=-1)
    return inputs_of([record for record in every if record.offset <= last], readable)


async def _read_up_to(bootstrap: str, place: TopicPartition, *, committed: bool) -> list[Any]:
    """Return the records before the end that the log has now."""
    consumer = _reader(bootstrap, committed=committed)
    consumer.assign([place])
    await consumer.start()
    try:
        end = (await consumer.end_offsets([place]))[place]
        records: list[Any] = []
        async with asyncio.timeout(_SILENCE_S):
            while await consumer.position(place) < end:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records.extend(record for record in batch if record.offset < end)
        return records
    finally:
        await consumer.stop()


def _reader(bootstrap: str, *, committed: bool) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed" if committed else "read_uncommitted",
    )


async def _read(
    bootstrap: str, partitions: Iterable[TopicPartition], *, committed: bool
) -> AsyncIterator[Any]:
    consumer = _reader(bootstrap, committed=committed)
    consumer.assign(list(partitions))
    await consumer.start()
    try:
        heard_s = time.monotonic()
        while time.monotonic() - heard_s < _SILENCE_S:
            for batch in (await consumer.getmany(timeout_ms=500, max_records=5_000)).values():
                for record in batch:
                    yield record
                heard_s = time.monotonic()
        message = f"nothing came for {_SILENCE_S:g} s, and a log's end was not among what had come"
        raise TimeoutError(message)
    finally:
        await consumer.stop()


class GroupLog(NamedTuple):
    """What a group's log says: its commits for one topic, and its generations, each in order."""

    commits: list[Commit]
    generations: list[Generation]


async def read_group_logs(
    bootstrap: str, groups: dict[str, str], topic: str
) -> dict[str, GroupLog]:
    """Return every commit of these groups for a topic, and their generations, in the order of the groups' logs.

    Args:
        bootstrap: of the brokers.
        groups: by group, the metadata of the commit that ends its log.
        topic: whose positions are asked for.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        numbers = await _partitions_of(consumer, OFFSETS_TOPIC)
    finally:
        await consumer.stop()
    logs = {group: GroupLog([], []) for group in groups}
    missing = set(groups)
    places = [TopicPartition(OFFSETS_TOPIC, number) for number in numbers]
    # What an aborted transaction would have committed was never a position.
    async for record in _read(bootstrap, places, committed=True):
        if (begun := parse_generation(record.key, record.value)) is not None:
            group, number = begun
            if group in missing:
                logs[group].generations.append(Generation(number, record.timestamp))
            continue
        parsed = parse_commit(record.key, record.value)
        if parsed is None:
            continue
        group, name, metadata, commit = parsed
        if name != topic or group not in missing:
            continue
        if metadata == groups[group]:
            missing.discard(group)
            if not missing:
                break
        else:
            generations = logs[group].generations
            number = generations[-1].number if generations else 0
            logs[group].commits.append(commit._replace(generation=number))
    return logs


async def _partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    async with asyncio.timeout(_METADATA_S):
        while True:
            numbers = consumer.partitions_for_topic(topic)
            if numbers:
                return sorted(numbers)
            await consumer._client.force_metadata_update()
            await asyncio.sleep(0.1)


def parse_commit(key: bytes | None, value: bytes | None) -> tuple[str, str, str, Commit] | None:
    """Return group, topic, metadata and commit of a record of ``__consumer_offsets``; None for any other kind.

    Kafka's ``OffsetCommitKey`` (versions 0 and 1) and ``OffsetCommitValue`` (versions 3 and 4), big-endian; from
    version 4 on, a string's length is a varint of one more.

    Raises:
        ValueError: a commit in a version that is not known here.
    """
    if key is None or value is None or struct.unpack_from(">h", key)[0] > 1:
        return None
    group, at = _string(key, 2)
    topic, at = _string(key, at)
    (partition,) = struct.unpack_from(">i", key, at)
    version, position, _leader_epoch = struct.unpack_from(">hqi", value)
    if version not in (3, 4):
        message = f"a commit of version {version}; 3 and 4 are known here"
        raise ValueError(message)
    metadata, at = _string(value, 14) if version == 3 else _compact_string(value, 14)
    (at_ms,) = struct.unpack_from(">q", value, at)
    return group, topic, metadata, Commit(partition, position, at_ms)


def parse_generation(key: bytes | None, value: bytes | None) -> tuple[str, int] | None:
    """Return group and generation of a record of ``__consumer_offsets``; None for any other kind.

    Kafka's ``GroupMetadataKey`` (version 2) and ``GroupMetadataValue`` (versions 0 to 4): the type of the protocol, and
    the generation after it.

    Raises:
        ValueError: the value is of a version that is not known here.
    """
    if key is None or value is None or struct.unpack_from(">h", key)[0] != _GROUP_METADATA:
        return None
    group, _ = _string(key, 2)
    (version,) = struct.unpack_from(">h", value)
    if not 0 <= version <= 4:
        message = f"a group's metadata of version {version}; 0 to 4 are known here"
        raise ValueError(message)
    _, at = _string(value, 2) if version < 4 else _compact_string(value, 2)
    (generation,) = struct.unpack_from(">i", value, at)
    return group, generation


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length


def _compact_string(data: bytes, at: int) -> tuple[str, int]:
    length, shift = 0, 0
    while True:
        length |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            break
    return data[at : at + length - 1].decode(), at + length - 1


def inputs_of(every: Iterable[Any], committed: Iterable[Any]) -> list[Input]:
    """Return the facts of the input's log.

    Args:
        every: its records.
        committed: those that a reader with ``read_committed`` gets.
    """
    sound = {(record.partition, record.offset) for record in committed}
    return [
        Input(
            record.partition,
            record.offset,
            record.timestamp,
            *_named(record.key, record.value),
            aborted=(record.partition, record.offset) not in sound,
        )
        for record in every
    ]


def _named(key: bytes | None, value: bytes | None) -> tuple[Any, str]:
    if value is None:
        return "delete", (key or b"").decode()
    if value.startswith(posting.DELETION):
        return "delete", orjson.loads(value)["id"]
    # What is malformed on purpose has the id 1, or none; posts are p1, p2, ... and t0-0, ...
    if value.startswith((b'{"id":"p', b'{"id":"t')):
        return "post", orjson.loads(value)["id"]
    return "poison", digest(value)


def outcomes_of(every: Iterable[Any], committed: Iterable[Any]) -> Iterator[Outcome]:
    """Yield the facts of a log of verdicts or of dead letters; the arguments are as above."""
    sound = {(record.partition, record.offset) for record in committed}
    for record in every:
        visible = (record.partition, record.offset) in sound
        headers = dict(record.headers)
        if "sg_reason" in headers:
            yield Outcome(
                "dead_letter",
                headers["sg_topic"].decode(),
                int(headers["sg_partition"]),
                int(headers["sg_offset"]),
                headers.get("sg_policy", b"").decode(),
                "",
                "",
                OVERSIZED if cut_whole(headers, record.value) else digest(record.value),
                record.timestamp,
                visible,
                *(record.topic, record.partition, record.offset),
            )
            continue
        verdict = orjson.loads(record.value)
        source, policy = verdict["source"], verdict["policy"]
        yield Outcome(
            "retraction" if policy["id"] == ALL_POLICIES else "verdict",
            source["topic"],
            source["partition"],
            source["offset"],
            policy["id"],
            policy["sha256"],
            verdict["id"],
            verdict["content"]["id"],
            record.timestamp,
            visible,
            *(record.topic, record.partition, record.offset),
            verdict["action"],
            verdict.get("decision_id", ""),
            next((change for change in _CHANGES if change in verdict), ""),
        )


def decided_of(records: Iterable[Any]) -> Iterator[Decided]:
    """Yield the decisions in a log of decisions; not those that the program wrote again."""
    for record in records:
        if any(name == RESTATED_HEADER for name, _ in record.headers):
            continue
        decision = parse_decision(record.key, record.value, record.headers)
        about = decision.about
        assert about is not None, "each decision of the soak is about a verdict"
        assert about.source is not None, "each decision of the soak is about a verdict"
        yield Decided(
            record.partition,
            record.offset,
            record.timestamp,
            decision.id,
            decision.kind,
            decision.decided_at,
            about.verdict_id or "",
            about.policy.id,
            about.content.id,
            about.source.partition,
            about.source.offset,
        )


def cut_whole(headers: dict[str, bytes], value: bytes | None) -> bool:
    """Return whether a dead letter says that it holds nothing of a longer record."""
    return not value and "sg_cut_from_bytes" in headers
