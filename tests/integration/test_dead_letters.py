"""Dead letters by a real broker: listed, shown, and sent back once, whatever happens in between."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from typer.testing import CliRunner, Result

from stream_guard.cli.main import app
from stream_guard.core.errors import (
    BrokerError,
    JsonError,
    OperatorError,
    RecordError,
    TombstoneError,
)
from stream_guard.kafka import dead_letter_replay
from stream_guard.kafka.dead_letter_replay import replay
from stream_guard.records.dead_letter import DeadLetterFilter
from stream_guard.records.dead_letter_event import build_dead_letter, source_id
from stream_guard.settings import KafkaSettings, Settings
from stream_guard.testing import MemoryRecord
from tests.integration.harness import HANG_S, ROOT, Deployment, deploy, post, produce, read, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from stream_guard.testing import Broker

ALL = DeadLetterFilter()
SOURCE_MS = 1_700_000_000_000


@pytest.fixture
def place(broker: Broker, new_topic: Callable[..., str]) -> Deployment:
    return deploy(broker.bootstrap_servers, new_topic)


def kafka(place: Deployment, **changes: Any) -> KafkaSettings:  # noqa: ANN401 - settings
    return KafkaSettings(
        bootstrap_servers=place.bootstrap,
        topics=(place.posts,),
        dead_letter_topic=place.dead,
        **changes,
    )


def deployed(place: Deployment) -> Settings:
    return Settings(kafka=kafka(place))


def source(
    place: Deployment, offset: int, value: bytes | None = b"{", headers: Sequence[Any] = ()
) -> MemoryRecord:
    """Return a record as it would stand in the topic of posts, in its second partition."""
    key = b"k%d" % offset
    return MemoryRecord(place.posts, 1, offset, SOURCE_MS, key, value, list(headers))


async def bury(
    place: Deployment, *records: MemoryRecord, failed_ms: int = 0, bytes_max: int = 100_000
) -> None:
    """Write the dead letters of these records, as the consumer would."""
    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap, acks="all", linger_ms=5)
    await producer.start()
    try:
        for record in records:
            error: RecordError = (
                TombstoneError("null") if record.value is None else JsonError("line 1")
            )
            made = build_dead_letter(
                record,
                error,
                kafka=kafka(place, dead_letter_bytes_max=bytes_max),
                failed_ms=failed_ms,
                policy_id=None,
                attempts=1,
            )
            await producer.send(
                kafka(place).dead_letter_topic, made.value, key=made.key, headers=made.headers
            )
        await producer.flush()
    finally:
        await producer.stop()


async def dlq(place: Deployment, *arguments: str, **extra: str) -> Result:
    """Run the command in this process; an error of ours is in ``exception``."""
    environment = {
        name: value
        for name, value in place.environment().items()
        if name.startswith("STREAM_GUARD_")
    }
    invoke = partial(CliRunner().invoke, app, ["dlq", *arguments], env=environment | extra)
    return await asyncio.to_thread(invoke)


async def sent_back(place: Deployment, count: int) -> list[Any]:
    """Return the records of the topic of posts once a sentinel shows that nothing follows them."""
    await produce(place.bootstrap, place.posts, [b"sentinel"])
    records = await read(
        place.bootstrap,
        [place.posts],
        lambda got: (
            sum(r.value != b"sentinel" for r in got) >= count
            and any(r.value == b"sentinel" for r in got)
        ),
    )
    return [record for record in records if record.value != b"sentinel"]


def offsets_of(records: Iterable[Any]) -> Counter[str]:
    """Count records by the id of what they replay."""
    return Counter(dict(record.headers)["sg_replay_of"].decode() for record in records)


def ids(place: Deployment, offsets: Iterable[int]) -> Counter[str]:
    return Counter(source_id(place.posts, 1, offset, SOURCE_MS) for offset in offsets)


async def test_the_commands_list_show_and_replay_once(place: Deployment) -> None:
    headers = [("x", b"1"), ("x", None), ("raw", b"\xff\x00")]
    await bury(place, source(place, 5, b"\xffsecret", headers), source(place, 6, None))
    await bury(place, source(place, 7), failed_ms=86_400_000)

    listed = await dlq(place, "list")
    assert listed.exit_code == 0, listed.stderr
    assert "3 dead letters" in listed.stdout
    assert "json: 2" in listed.stdout
    assert f"{place.posts}/1/5" in listed.stdout
    assert "secret" not in listed.stdout

    document = orjson.loads((await dlq(place, "list", "--json", "--since", "1970-01-02")).stdout)
    assert document["reasons"] == {"json": 1}
    assert document["dead_letters"][0]["source"]["offset"] == 7

    shown = await dlq(place, "show", f"{place.posts}/1/5")
    assert "    raw: hex ff00" in shown.stdout
    assert "7 bytes; --content shows it" in shown.stdout
    letter_id = source_id(place.posts, 1, 5, SOURCE_MS)
    one = orjson.loads((await dlq(place, "show", letter_id, "--content", "--json")).stdout)
    assert base64.b64decode(one["value_base64"]) == b"\xffsecret"
    at = f"{place.dead}/{one['partition']}/{one['offset']}"
    assert orjson.loads((await dlq(place, "show", at, "--json")).stdout)["id"] == letter_id

    dry = await dlq(place, "replay", "--dry-run", "--reason", "json")
    assert f"would send 2 records back to {place.posts}" in dry.stdout
    replayed = await dlq(place, "replay", "--offsets", "5-6")
    assert f"sent 2 records back to {place.posts}" in replayed.stdout, replayed.stderr
    again = orjson.loads((await dlq(place, "replay", "--json")).stdout)
    assert (again["sent"], again["replayed_before"]) == (1, 2)
    assert orjson.loads((await dlq(place, "replay", "--json")).stdout)["sent"] == 0
    assert "replayed" in (await dlq(place, "list")).stdout

    records = await sent_back(place, 3)
    assert offsets_of(records) == ids(place, (5, 6, 7))
    [first] = [record for record in records if record.key == b"k5"]
    assert (first.partition, first.value) == (1, b"\xffsecret")
    assert list(first.headers) == [
        *headers,
        ("sg_replays", b"1"),
        ("sg_replay_of", letter_id.encode()),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "posts/0/1"), "no dead letter 'posts/0/1'"),
        (("show", "f" * 32), "stream-guard dlq list"),
        (("show", "DEAD/0/99"), "no dead letter"),
        (("show", "DEAD/77/0"), "no dead letter"),
    ],
)
async def test_what_does_not_exist_is_exit_code_2(
    place: Deployment, arguments: tuple[str, ...], says: str
) -> None:
    done = await dlq(place, *(argument.replace("DEAD", place.dead) for argument in arguments))
    assert isinstance(done.exception, OperatorError)
    assert done.exception.exit_code == 2
    assert says in str(done.exception)


async def test_a_topic_that_does_not_exist_is_exit_code_3_and_named(place: Deployment) -> None:
    for command in ("list", "replay", "show"):
        arguments = ("x/0/1",) if command == "show" else ()
        done = await dlq(
            place, command, *arguments, STREAM_GUARD_KAFKA__DEAD_LETTER_TOPIC="nowhere"
        )
        assert isinstance(done.exception, BrokerError)
        assert "'nowhere' (kafka.dead_letter_topic) does not exist" in str(done.exception)


async def test_a_source_topic_that_is_gone_stops_a_replay_before_anything_is_sent(
    place: Deployment,
) -> None:
    gone = MemoryRecord("gone-topic", 0, 1, SOURCE_MS, None, b"{", [])
    await bury(place, source(place, 1), gone)
    with pytest.raises(BrokerError, match="gone-topic"):
        await replay(deployed(place), ALL, dry_run=False, also_to=["gone-topic"])
    seen = await replay(deployed(place), DeadLetterFilter(topic=place.posts), dry_run=False)
    assert seen.sent == 1
    assert offsets_of(await sent_back(place, 1)) == ids(place, [1])


async def test_a_replay_writes_into_input_topics_alone_unless_it_is_told_to(
    place: Deployment, new_topic: Callable[..., str]
) -> None:
    foreign = new_topic("foreign")
    forged = MemoryRecord(foreign, 0, 1, SOURCE_MS, None, b"{", [])
    verdicts = MemoryRecord(place.verdicts, 0, 1, SOURCE_MS, None, b"{", [])
    await bury(place, source(place, 1), forged, verdicts)
    result = await dlq(place, "replay")
    assert result.exit_code == 0, result.output
    assert f"1 dead letter from {foreign}, which kafka.topics does not read: not sent" in (
        result.stdout
    )
    assert f"sent 1 record back to {place.posts}" in result.stdout
    assert await end_of(place, foreign) == await end_of(place, place.verdicts) == 0
    result = await dlq(place, "replay", "--to", foreign)
    assert f"sent 1 record back to {foreign}" in result.stdout
    assert await end_of(place, foreign) > 0


async def end_of(place: Deployment, topic: str) -> int:
    """Return how many offsets the first partition of a topic has given out."""
    consumer = AIOKafkaConsumer(bootstrap_servers=place.bootstrap)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        end: int = (await consumer.end_offsets([partition]))[partition]
    finally:
        await consumer.stop()
    return end


async def test_repeats_and_policies_of_one_record_send_it_once_and_cut_ones_never(
    place: Deployment,
) -> None:
    await bury(place, source(place, 1), source(place, 1), source(place, 2))
    await bury(place, source(place, 3, b"x" * 5_000), bytes_max=1_024)
    seen = await replay(deployed(place), ALL, dry_run=False)
    assert (seen.sent, seen.repeats, seen.cut) == (2, 1, 1)
    assert offsets_of(await sent_back(place, 2)) == ids(place, (1, 2))


async def test_what_others_wrote_into_the_topic_is_counted_and_left_alone(
    place: Deployment,
) -> None:
    await produce(place.bootstrap, place.dead, [b"hello", None])
    seen = await replay(deployed(place), ALL, dry_run=False)
    assert (seen.sent, seen.foreign) == (0, 2)


class Stuck:
    """Holds commits of transactions back from the n-th on: the records are written, and nothing is decided."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        commit, calls = AIOKafkaProducer.commit_transaction, 0

        async def stuck(producer: AIOKafkaProducer) -> None:
            nonlocal calls
            calls += 1
            if calls == nth:
                self.reached.set()
                await self.go_on.wait()
            await commit(producer)

        monkeypatch.setattr(AIOKafkaProducer, "commit_transaction", stuck)


async def test_of_two_replays_at_once_the_first_ends_and_each_record_is_sent_once(
    place: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_replay, "_TRANSACTION_RECORDS_MAX", 10)
    await bury(place, *(source(place, offset) for offset in range(40)))
    stuck = Stuck(monkeypatch, 3)
    first = asyncio.create_task(replay(deployed(place), ALL, dry_run=False))
    async with asyncio.timeout(HANG_S):
        await stuck.reached.wait()
        looked = await replay(deployed(place), ALL, dry_run=True)
        assert (looked.already, len(looked.chosen)) == (20, 20), "an open transaction hides nothing"
        second = await replay(deployed(place), ALL, dry_run=False)
        stuck.go_on.set()
        with pytest.raises(
            BrokerError, match=r"another replay .* has taken over; this one sent 20"
        ):
            await first
    assert (second.already, second.sent) == (20, 20)
    assert offsets_of(await sent_back(place, 40)) == ids(place, range(40))


_PROGRAM = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from stream_guard.kafka import dead_letter_replay
from stream_guard.cli import main as cli
commit, calls = AIOKafkaProducer.commit_transaction, 0
async def stuck(self):
    global calls
    calls += 1
    if calls == 3:
        print("in the middle", file=sys.stderr, flush=True)
        await asyncio.Event().wait()
    await commit(self)
AIOKafkaProducer.commit_transaction = stuck
dead_letter_replay._TRANSACTION_RECORDS_MAX = 10
sys.argv = ["stream-guard", "dlq", "replay"]
cli.main()
"""


async def test_a_replay_that_is_killed_in_a_transaction_is_finished_by_the_next(
    place: Deployment,
) -> None:
    await bury(place, *(source(place, offset) for offset in range(40)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM),
        env=place.environment(),
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(HANG_S):
            assert await process.stderr.readline() == b"in the middle\n"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        assert await process.wait() == -signal.SIGKILL
    seen = await replay(deployed(place), ALL, dry_run=False)
    assert (seen.already, seen.sent) == (20, 20)
    assert offsets_of(await sent_back(place, 40)) == ids(place, range(40))


async def test_a_replay_that_is_stopped_in_a_transaction_holds_no_reader_back(
    place: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def stuck(_producer: AIOKafkaProducer) -> None:
        reached.set()
        await asyncio.Event().wait()

    await bury(place, *(source(place, offset) for offset in range(5)))
    with monkeypatch.context() as patch:
        patch.setattr(AIOKafkaProducer, "commit_transaction", stuck)
        # No timeout of the broker's helps within this test.
        patch.setattr(dead_letter_replay, "_TRANSACTION_TIMEOUT_MS", 900_000)
        stopped = asyncio.create_task(replay(deployed(place), ALL, dry_run=False))
        async with asyncio.timeout(HANG_S):
            await reached.wait()
        stopped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopped
    assert await sent_back(place, 0) == []
    seen = await replay(deployed(place), ALL, dry_run=False)
    assert (seen.already, seen.sent) == (0, 5)


async def test_a_record_that_fails_again_is_a_dead_letter_of_its_own_and_counts_its_replays(
    place: Deployment, tmp_path: Path
) -> None:
    place.extra["STREAM_GUARD_DEAD_LETTERS__HOLD_MS"] = "0"
    await produce(place.bootstrap, place.posts, [post(1), b"{"])
    with running(place, tmp_path / "log") as run:
        for number in range(3):
            letters = await read(
                place.bootstrap,
                [place.dead],
                lambda got, n=number: sum("sg_reason" in dict(r.headers) for r in got) > n,
            )
            found = [dict(r.headers) for r in letters if "sg_reason" in dict(r.headers)]
            counts = [int(headers.get("sg_replays", b"0")) for headers in found]
            assert counts == list(range(number + 1))
            assert [headers["sg_attempts"] for headers in found] == [b"1"] * (number + 1)
            seen = await replay(deployed(place), ALL, dry_run=False)
            assert (seen.sent, seen.already) == (1, number)
        assert run.end() == 0, run.tail()
