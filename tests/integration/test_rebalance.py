"""Rebalances by a real broker, in both modes: members come and go, partitions and topics too."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from prometheus_client import CollectorRegistry

from stream_guard.service.app import App
from stream_guard.settings import Settings
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualJudge
from tests.integration.harness import (
    HANG_S,
    Deployment,
    deploy,
    owed_of,
    post,
    produce,
    read,
    running,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.testing import Broker

POLICIES = 2
MODES = ("at_least_once", "exactly_once")


@pytest.fixture(params=MODES)
def place(
    request: pytest.FixtureRequest, broker: Broker, new_topic: Callable[..., str]
) -> Deployment:
    def topic(prefix: str) -> str:
        return new_topic(prefix, partitions=6 if prefix == "posts" else 2)

    return deploy(
        broker.bootstrap_servers,
        topic,
        STREAM_GUARD_DELIVERY__MODE=request.param,
        STREAM_GUARD_KAFKA__METADATA_MAX_AGE_MS="1000",
        STREAM_GUARD_BATCHING__IN_FLIGHT_RECORDS_MAX="500",
    )


async def verdicts_of(place: Deployment, count: int) -> list[dict[str, Any]]:
    """Return the verdicts once this many are there that differ in their ids."""
    records = await read(
        place.bootstrap,
        [place.verdicts, place.dead],
        lambda got: len(owed_of(got)) >= count,
    )
    assert not [r for r in records if r.topic == place.dead]
    return [orjson.loads(r.value) for r in records]


def assert_each_once(verdicts: Sequence[dict[str, Any]]) -> None:
    ids = [verdict["id"] for verdict in verdicts]
    assert len(set(ids)) == len(ids), "something was judged and published twice"


class Load:
    """Posts without an end, until told."""

    def __init__(self, place: Deployment) -> None:
        self.place = place
        self.count = 0
        self.enough = asyncio.Event()

    async def run(self) -> None:
        while not self.enough.is_set():
            values = [post(n) for n in range(self.count, self.count + 50)]
            await produce(self.place.bootstrap, self.place.posts, values)
            self.count += 50
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self.enough.wait()


async def assigned(run: Any, times: int) -> None:  # noqa: ANN401
    """Return once a member has been assigned something this many times."""
    await until(lambda: run.log.read_bytes().count(b'"event":"assigned"') >= times)


async def test_one_member_becomes_three_and_one_again_under_load(
    place: Deployment, tmp_path: Path
) -> None:
    load = Load(place)
    task = asyncio.create_task(load.run())
    try:
        with running(place, tmp_path / "one") as one:
            await assigned(one, 1)
            await verdicts_of(place, 100)
            with running(place, tmp_path / "two") as two:
                await assigned(two, 1)
                with running(place, tmp_path / "three") as three:
                    await assigned(three, 1)
                    await verdicts_of(place, load.count)
                    assert await asyncio.to_thread(three.end) == 0, three.tail()
                assert await asyncio.to_thread(two.end) == 0, two.tail()
            load.enough.set()
            await task
            verdicts = await verdicts_of(place, load.count * POLICIES)
            assert await asyncio.to_thread(one.end) == 0, one.tail()
    finally:
        load.enough.set()
        await task
    assert len(verdicts) == load.count * POLICIES
    assert_each_once(
        verdicts
    )  # in both modes: each drain ended, and committed, before its deadline


async def test_partitions_that_are_added_are_read_from_their_start(
    place: Deployment, tmp_path: Path
) -> None:
    with running(place, tmp_path / "log") as run:
        await produce(place.bootstrap, place.posts, (post(n) for n in range(50)))
        await verdicts_of(place, 50 * POLICIES)
        admin = AIOKafkaAdminClient(bootstrap_servers=place.bootstrap)
        await admin.start()
        await admin.create_partitions({place.posts: NewPartitions(total_count=9)})
        await admin.close()
        # By a client that knows of the new partitions at once, whereas the consumer learns of them later.
        await produce(place.bootstrap, place.posts, (post(n) for n in range(50, 450)))
        verdicts = await verdicts_of(place, 450 * POLICIES)
        assert run.end() == 0, run.tail()
    assert_each_once(verdicts)


async def test_a_topic_that_is_made_anew_is_read_from_its_start(
    place: Deployment, tmp_path: Path
) -> None:
    with running(place, tmp_path / "log") as run:
        await produce(place.bootstrap, place.posts, (post(n) for n in range(300)))
        await verdicts_of(place, 300 * POLICIES)
        admin = AIOKafkaAdminClient(bootstrap_servers=place.bootstrap)
        await admin.start()
        await admin.delete_topics([place.posts])
        async with asyncio.timeout(HANG_S):
            made = False
            while not made:  # the broker deletes in its own time
                answer = await admin.create_topics([NewTopic(place.posts, 6, 1)])
                made = not answer.topic_errors[0][1]
                await asyncio.sleep(0.1)
        await admin.close()
        await produce(place.bootstrap, place.posts, (post(n) for n in range(300, 400)))
        seen: set[str] = set()

        def enough(records: list[Any]) -> bool:
            seen.update(orjson.loads(r.value)["content"]["id"] for r in records)
            return {f"p{n}" for n in range(400)} <= seen

        await read(place.bootstrap, [place.verdicts], enough)
        # And it goes on: later posts come once, and the position moves.
        await produce(place.bootstrap, place.posts, (post(n) for n in range(400, 450)))
        records = await read(
            place.bootstrap,
            [place.verdicts],
            lambda got: (
                {f"p{n}" for n in range(450)}
                <= {orjson.loads(r.value)["content"]["id"] for r in got}
            ),
        )
        assert run.end() == 0, run.tail()
    ids = [orjson.loads(r.value)["content"]["id"] for r in records]
    assert all(ids.count(f"p{n}") == POLICIES for n in range(400, 450))


async def test_a_static_member_restarts_without_a_rebalance(
    place: Deployment, tmp_path: Path
) -> None:
    def named(name: str) -> Deployment:
        extra = {**place.extra, "STREAM_GUARD_KAFKA__GROUP_INSTANCE_ID": name}
        extra["STREAM_GUARD_KAFKA__SESSION_TIMEOUT_MS"] = "60000"
        return Deployment(place.bootstrap, place.posts, place.verdicts, place.dead, extra)

    with running(named("a"), tmp_path / "a") as stays:
        await assigned(stays, 1)
        with running(named("b"), tmp_path / "b") as goes:
            await assigned(goes, 1)
            await assigned(stays, 2)
            await produce(place.bootstrap, place.posts, (post(n) for n in range(100)))
            await verdicts_of(place, 100 * POLICIES)
            assert goes.end(signal.SIGTERM) == 0, goes.tail()
        await produce(place.bootstrap, place.posts, (post(n) for n in range(100, 300)))
        with running(named("b"), tmp_path / "b again"):
            verdicts = await verdicts_of(place, 300 * POLICIES)
        assert stays.log.read_bytes().count(b'"event":"assigned"') == 2
        assert stays.end() == 0, stays.tail()
    assert_each_once(verdicts)


class HeldJudge(ManualJudge):
    """Answers at once, but for posts that say ``hold``."""

    def submit(self, requests: Sequence[JudgeRequest], deliver: Any) -> None:  # noqa: ANN401
        super().submit(requests, deliver)
        free = [r for r in requests if "hold" not in r.post.text]
        asyncio.get_running_loop().call_soon(self.free, free)

    def free(self, requests: Sequence[JudgeRequest]) -> None:
        self.answer([request for request in requests if request in self.waiting])


@contextlib.asynccontextmanager
async def member(
    place: Deployment, judge: ManualJudge, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[App]:
    """Run a member in this process, so that its judge can be held."""
    with monkeypatch.context() as patch:
        for name, value in place.environment().items():
            if name.startswith("STREAM_GUARD_"):
                patch.setenv(name, value)
        app = App(Settings(), judge=judge, metrics=Metrics(CollectorRegistry()))
    task = asyncio.create_task(app.run())
    try:
        yield app
        app.stop()
        await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_revocation_drains_to_its_deadline_commits_and_gives_up_the_rest(
    place: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.extra["STREAM_GUARD_DELIVERY__DRAIN_TIMEOUT_S"] = "1"
    texts = ["hold" if n == 50 else "free" for n in range(100)]
    await produce(place.bootstrap, place.posts, (post(n, text) for n, text in enumerate(texts)))
    posts = await read(place.bootstrap, [place.posts], lambda got: len(got) == 100)
    (held,) = (r for r in posts if b"hold" in r.value)
    behind = [r for r in posts if r.partition == held.partition and r.offset >= held.offset]
    exactly_once = place.extra["STREAM_GUARD_DELIVERY__MODE"] == "exactly_once"
    # A transaction's position says that all before it is done, so that what is behind has to wait.
    waiting = POLICIES * (len(behind) if exactly_once else 1)
    first, second = HeldJudge(), HeldJudge()
    async with asyncio.timeout(HANG_S), member(place, first, monkeypatch) as app:
        await verdicts_of(place, 100 * POLICIES - waiting)
        assert [r.post.id for r in first.waiting] == ["p50"] * POLICIES
        async with member(place, second, monkeypatch):
            await until(lambda: app.metrics.abandoned._value.get() > 0)
            assert not first.waiting, "what was given up is judged no more"
            await until(lambda: bool(first.waiting or second.waiting))
            owner = first if first.waiting else second
            assert {r.post.id for r in owner.waiting} == {"p50"}
            owner.answer()
            verdicts = await verdicts_of(place, 100 * POLICIES)
        given_up = app.metrics.abandoned._value.get()
    assert given_up == (len(behind) if exactly_once else 1)
    ids = [verdict["id"] for verdict in verdicts]
    assert len(set(ids)) == 100 * POLICIES
    # What lies behind the post that hangs was published by the first, and in the one mode again by its heir.
    repeats = len(ids) - len(set(ids))
    assert repeats == (0 if exactly_once else POLICIES * (len(behind) - 1))
