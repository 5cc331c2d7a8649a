"""Records, keys, headers, times and posts that no other record must suffer from, by a real broker.

The outcomes are those that docs/guides/dead-letters.md promises.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import struct
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.record.util import calc_crc32c
from prometheus_client import CollectorRegistry

from stream_guard.core.exit_codes import ExitCode
from stream_guard.judging.contract import Answer, Judgement, Provenance
from stream_guard.service.app import App
from stream_guard.settings import Settings
from stream_guard.stream.dead_letter_gate import AT_ONCE
from stream_guard.telemetry.metrics import Metrics
from tests.integration.harness import HANG_S, ROOT, Deployment, deploy, owed_of, post, read, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.policies.policy import PolicySet
    from stream_guard.testing import Broker

POLICIES = 2  # that judge every post
TEN_MB = 10_000_000


@contextlib.asynccontextmanager
async def producing(place: Deployment) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=place.bootstrap, acks="all", linger_ms=5, max_request_size=20_000_000
    )
    await producer.start()
    try:
        yield producer
        await producer.flush()
    finally:
        await producer.stop()


async def outcomes(place: Deployment, owed: int) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return verdicts and dead-letter records once so many are there."""
    records = await read(
        place.bootstrap, [place.verdicts, place.dead], lambda got: len(owed_of(got)) >= owed
    )
    verdicts = [orjson.loads(r.value) for r in records if r.topic == place.verdicts]
    return verdicts, [r for r in records if r.topic == place.dead]


async def committed(place: Deployment) -> dict[int, int]:
    """Return the group's positions by partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=place.bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(f"group-{place.posts}")
    finally:
        await admin.close()
    return {tp.partition: at.offset for tp, at in found.items() if tp.topic == place.posts}


# Records


async def test_ten_megabytes_are_a_dead_letter_and_their_neighbours_are_judged(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    place.posts = f"{place.posts}-large"
    configs = {"max.message.bytes": "20000000"}
    await asyncio.to_thread(broker.create_topics, place.posts, partitions=1, configs=configs)
    value = b'{"id":"big","text":"' + b"x" * TEN_MB + b'"}'
    async with producing(place) as producer:
        await producer.send(place.posts, post(0))
        await producer.send(place.posts, value, key=b"value")
        await producer.send(place.posts, post(2), key=b"k" * TEN_MB, partition=0)
        await producer.send(place.posts, b"{", key=b"header", headers=[("h", b"h" * TEN_MB)])
        await producer.send(place.posts, post(4), headers=[("traceparent", b"0" * TEN_MB)])
        await producer.send(place.posts, post(5))
    async with app(place):
        verdicts, dead = await outcomes(place, 3 * POLICIES + 3)
    assert {verdict["source"]["offset"] for verdict in verdicts} == {0, 4, 5}
    letters = {int(dict(r.headers)["sg_offset"]): r for r in dead}
    headers = {offset: dict(record.headers) for offset, record in letters.items()}
    assert [headers[offset]["sg_reason"] for offset in (1, 2, 3)] == [
        b"too_large",
        b"too_large",
        b"json",
    ]
    assert letters[1].value == value[:900_000]
    assert headers[1]["sg_cut_from_bytes"] == str(len(value)).encode()
    assert headers[1]["sg_cut_sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert headers[2]["sg_cut_key_from_bytes"] == str(TEN_MB).encode()
    assert headers[3]["sg_cut_headers"] == b"1"
    assert await committed(place) == {0: 6}


async def test_a_topic_of_only_malformed_records_stops_the_service_and_is_not_emptied(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    count, limit = 2_000, 300
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_DEAD_LETTERS__CONSECUTIVE_MAX=str(limit),
        STREAM_GUARD_DEAD_LETTERS__HOLD_MS="60000",
    )
    async with producing(place) as producer:
        for _ in range(count):
            await producer.send(place.posts, b"{")
    written = 0
    for start in ("first", "second"):
        with running(place, tmp_path / start) as run:
            code = await asyncio.to_thread(run.process.wait, HANG_S)
        assert code == ExitCode.LIMIT, run.tail()
        written += AT_ONCE
        lines = run.log.read_bytes().splitlines()
        [stop] = [orjson.loads(line) for line in lines if b'"event":"dead_letter_limit"' in line]
        assert stop["setting"] == "dead_letters.consecutive_max"
        assert stop["failures"] == {"json": limit + 1}
        assert b"dead_letters.consecutive_max is 300" in lines[-1]
        assert b"Traceback" not in run.log.read_bytes()
        positions = await committed(place)
        assert sum(positions.values()) == written, "what was written was committed, and no more"
    # The operator says that they are meant: now each becomes a dead letter, and none is missing.
    async with app(place, dead_letters={"consecutive_max": 0, "share_max": 1}):
        _, dead = await outcomes(place, count)
    assert len(dead) == count, "a drained stop repeats nothing"


async def test_a_share_of_malformed_records_stops_the_service_after_its_posts_are_judged(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_DEAD_LETTERS__WINDOW_RECORDS="300",
        STREAM_GUARD_DEAD_LETTERS__WINDOW_RECORDS_MIN="300",
    )
    async with producing(place) as producer:
        for n in range(3_000):
            await producer.send(place.posts, b"{" if n % 5 < 3 else post(n))
    with running(place, tmp_path / "log") as run:
        code = await asyncio.to_thread(run.process.wait, HANG_S)
    assert code == ExitCode.LIMIT, run.tail()
    positions = await committed(place)
    verdicts, dead = await outcomes(place, 1)
    done = {(v["source"]["partition"], v["source"]["offset"]) for v in verdicts}
    done |= {(p, o) for p, o, policy in owed_of(dead) if not policy}
    assert done == {(p, o) for p, end in positions.items() for o in range(end)}
    assert len(done) < 3_000


# Keys and headers


async def test_null_keys_and_headers_of_any_bytes_are_no_concern_of_the_judge(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    place.posts = f"{place.posts}-one"
    await asyncio.to_thread(broker.create_topics, place.posts)
    headers = [
        ("raw", b"\xff\xfe\x00"),
        ("null", None),
        ("", b""),
        ("traceparent", b"\xff"),
        ("traceparent", None),
        ("content-type", b"\xff"),
        ("sg_reason", b"theirs"),
    ]
    async with producing(place) as producer:
        await producer.send(place.posts, post(0), headers=headers)
        await producer.send(place.posts, b"{", headers=headers)
        await send_header_name(producer, place.posts, post(2), b"\xff\xfe")
        await send_header_name(producer, place.posts, b"{", b"\xc3")
        await producer.send(place.posts, post(4))
    async with app(place):
        verdicts, dead = await outcomes(place, 3 * POLICIES + 2)
    assert {verdict["source"]["offset"] for verdict in verdicts} == {0, 2, 4}
    by_offset = {int(dict(r.headers)["sg_offset"]): r for r in dead}
    assert list(by_offset[1].headers)[: len(headers)] == headers
    assert by_offset[1].key is None
    assert by_offset[3].headers[0] == (r"\xc3", b"1")
    assert await committed(place) == {0: 5}


async def send_header_name(
    producer: AIOKafkaProducer, topic: str, value: bytes, name: bytes
) -> None:
    """Send a record whose header has a name that no string of Python is: its bytes are exchanged in the batch."""
    await producer.flush()
    batch = producer.create_batch()
    placeholder = b"\x01" * len(name)
    batch.append(timestamp=None, key=None, value=value, headers=[(placeholder.decode(), b"1")])
    build = batch._build

    def patched() -> bytearray:
        data = bytearray(build())
        at = data.rindex(placeholder + b"\x02" + b"1")
        data[at : at + len(name)] = name
        data[17:21] = struct.pack(">I", calc_crc32c(bytes(data[21:])))
        return data

    batch._build = patched
    batch.close()
    await (await producer.send_batch(batch, topic, partition=0))


async def test_times_of_1970_and_2099_are_handed_on_as_they_are(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    place.posts = f"{place.posts}-times"
    forever = str((1 << 63) - 1)
    configs = {
        "message.timestamp.after.max.ms": forever,
        "message.timestamp.before.max.ms": forever,
        "retention.ms": "-1",
    }
    await asyncio.to_thread(broker.create_topics, place.posts, configs=configs)
    times = (0, 1, 4_102_444_799_999)  # 2099-12-31T23:59:59.999Z
    written = ("1970-01-01T00:00:00Z", 0, "2099-12-31T23:59:59.999Z", 4_102_444_799_999)
    async with producing(place) as producer:
        for number, timestamp_ms in enumerate(times):
            await producer.send(place.posts, post(number), timestamp_ms=timestamp_ms)
            await producer.send(place.posts, b"{", timestamp_ms=timestamp_ms)
        for created_at in written:
            value = orjson.dumps({"id": "w", "text": "t", "created_at": created_at})
            await producer.send(place.posts, value)
    owed = (len(times) + len(written)) * POLICIES + len(times)
    begun_ms = time.time() * 1_000
    async with app(place):
        verdicts, dead = await outcomes(place, owed)
    events = {verdict["timing"]["event"] for verdict in verdicts}
    assert set(times) <= events
    assert {int(dict(r.headers)["sg_timestamp_ms"]) for r in dead} == set(times)
    # Retention goes by a record's own time: one of 1970 would be deleted at once, one of 2099 never.
    assert all(abs(record.timestamp - begun_ms) < 600_000 for record in dead)


# Partitions and posts


class HoldingJudge:
    """Judges at once, but for the posts that it is told to hold: those take until they are let go.

    Attributes:
        held: requests that wait.
        holds: says of a post's id whether it is held.
    """

    def __init__(self, holds: Callable[[str], bool]) -> None:
        self.holds = holds
        self.held: list[tuple[JudgeRequest, Callable[[Sequence[Judgement]], None]]] = []
        self._never = asyncio.Event()

    async def start(self, policies: PolicySet) -> None:
        del policies

    prepare = start

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        self.held.extend((r, deliver) for r in requests if self.holds(r.post.id))
        deliver([_judgement(r) for r in requests if not self.holds(r.post.id)])

    def let_go(self) -> None:
        """Judge what is held, and hold nothing more."""
        self.holds = lambda _: False
        held, self.held = self.held, []
        for request, deliver in held:
            deliver([_judgement(request)])

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        cancelled = {request.id for request in requests}
        self.held = [item for item in self.held if item[0].id not in cancelled]

    def in_flight(self) -> int:
        return len(self.held)

    async def wait_failed(self) -> BaseException:
        await self._never.wait()
        raise AssertionError("it cannot fail")

    def describe(self) -> Mapping[str, str]:
        return {"engine": "holding", "model": "holding"}

    async def close(self) -> None:
        pass


def _judgement(request: JudgeRequest) -> Judgement:
    provenance = Provenance(tier="manual", model="manual")
    return Judgement(request, Answer("safe", parse_status="not_applicable"), provenance=provenance)


@contextlib.asynccontextmanager
async def app(
    place: Deployment, judge: HoldingJudge | None = None, **sections: Mapping[str, Any]
) -> AsyncIterator[App]:
    """Run the whole application in this process, with a judge of the test's own, and drain it at the end."""
    sections = {
        "kafka": {
            "bootstrap_servers": place.bootstrap,
            "topics": (place.posts,),
            "group_id": f"group-{place.posts}",
            "verdict_topic": place.verdicts,
            "dead_letter_topic": place.dead,
        },
        "policies": {"path": ROOT / "policies", "reload": False},
        "http": {"host": "127.0.0.1", "port": 0},
        "delivery": {"commit_interval_ms": 50},
        **sections,
    }
    settings = Settings(**sections)  # type: ignore[arg-type]
    judge = judge or HoldingJudge(lambda _: False)
    made = App(settings, judge=judge, metrics=Metrics(CollectorRegistry()))
    running_app = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.stop()
        async with asyncio.timeout(HANG_S):
            await running_app


async def reach(place: Deployment, positions: Mapping[int, int]) -> None:
    """Return once these positions are committed; fail where they are not within the deadline."""
    found: dict[int, int] = {}
    try:
        async with asyncio.timeout(HANG_S):
            while (found := await committed(place)) != positions:  # noqa: ASYNC110 - a broker calls nobody
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"committed {found}, not {positions}") from None


async def send_partitions(place: Deployment, counts: Mapping[int, int]) -> None:
    """Send so many posts to each partition; a post's id is ``p<partition>-<offset>``."""
    async with producing(place) as producer:
        for partition, count in counts.items():
            for offset in range(count):
                value = orjson.dumps(
                    {"id": f"p{partition}-{offset}", "text": f"post {partition}-{offset}"}
                )
                await producer.send(place.posts, value, partition=partition)


async def read_verdicts(place: Deployment, counts: Mapping[int, int]) -> Counter[int]:
    """Return how many records of each partition have all their verdicts, once that many of each have."""

    def complete(records: list[Any]) -> Counter[int]:
        verdicts = Counter((p, o) for p, o, _ in owed_of(records))
        return Counter(p for (p, _), policies in verdicts.items() if policies == POLICIES)

    records = await read(
        place.bootstrap, [place.verdicts], lambda got: complete(got) >= Counter(counts)
    )
    return complete(records)


async def test_a_hot_partition_leaves_room_for_the_others(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    place.posts = f"{place.posts}-hot"
    await asyncio.to_thread(broker.create_topics, place.posts, partitions=4)
    counts = {0: 3_800, 1: 67, 2: 67, 3: 66}
    await send_partitions(place, counts)
    # The posts of the hot partition are not judged at all until those of the others are.
    judge = HoldingJudge(lambda post_id: post_id.startswith("p0-"))
    limits = {
        "in_flight_records_max": 1_000,
        "partition_in_flight_max": 500,
        "poll_records_max": 100,
    }
    async with app(place, judge, batching=limits):
        others = {partition: counts[partition] for partition in (1, 2, 3)}
        assert await read_verdicts(place, others) == others
        held = {request.post.id for request, _ in judge.held}
        assert 0 < len(held) < 500 + 100, "its own limit, and one poll that overshot it"
        judge.let_go()
        assert await read_verdicts(place, counts) == counts
    assert await committed(place) == counts


async def test_a_post_that_takes_for_ever_holds_back_its_partition_only_after_the_span(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    counts = {0: 1_000, 1: 1_000}
    await send_partitions(place, counts)
    judge = HoldingJudge(lambda post_id: post_id == "p0-7")
    span, poll = 300, 50
    batching = {"partition_span_max": span, "poll_records_max": poll}
    async with app(place, judge, batching=batching) as running_app:
        # All of the other partition, and of this one what the span lets be read.
        done = await read_verdicts(place, {0: span - 1 + 7, 1: 1_000})
        assert done[0] <= span + poll + 7
        await reach(place, {0: 7, 1: 1_000})
        judge.let_go()
        assert await read_verdicts(place, counts) == counts
        await reach(place, counts)
        registry = running_app.metrics.registry
        assert registry.get_sample_value("stream_guard_abandoned_records_total") == 0


async def test_a_post_that_takes_for_ever_is_read_again_after_a_stop_and_alone(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    await send_partitions(place, {0: 100, 1: 100})
    judge = HoldingJudge(lambda post_id: post_id == "p0-98")
    async with app(place, judge, delivery={"drain_timeout_s": 0.1}):
        await read_verdicts(place, {0: 99, 1: 100})
    assert await committed(place) == {0: 98, 1: 100}
    judge.let_go()
    async with app(place, judge):
        assert await read_verdicts(place, {0: 100, 1: 100}) == {0: 100, 1: 100}
    assert await committed(place) == {0: 100, 1: 100}
