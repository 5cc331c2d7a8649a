"""One soak, from an empty cluster to the facts: start, post, break, drain, read back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

import orjson

from stream_guard.policies.store import load_policies
from stream_guard.settings import DeliverySettings
from stream_guard.testing import start_broker
from tests.soak import posting, reading
from tests.soak.adversary import Adversary, Group
from tests.soak.cluster import STAMPED, Cluster, mark_end
from tests.soak.facts import History
from tests.soak.members import ROOT, now_ms
from tests.soak.posting import Poster
from tests.soak.schedule import Planned, plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

MODES: Final[tuple[str, ...]] = get_args(DeliverySettings.model_fields["mode"].annotation)
POSTS_TOPIC: Final = "posts"
PARTITIONS: Final = 6
OUT_PARTITIONS: Final = 4
SESSION_TIMEOUT_S: Final = 8.0
# Members of a group, at first and at most; the real engine takes a processor and 2 GB for each.
MEMBERS: Final = {"scripted": (2, 3), "vllm": (1, 2)}
READY_S: Final = 300.0
_FAULT_S: Final = (
    11.0  # what a fault of the full deck takes, roughly: the posts are spread over all of them
)
_SHORT_FAULT_S: Final = 7.0
# Positions that stand still for so long will not move any more; a real engine takes its time to start again.
_IDLE_S_MAX: Final = {"scripted": 120.0, "vllm": 600.0}
_LOOK_S: Final = 0.25


@dataclass(frozen=True)
class Options:
    """What a soak is to be like.

    Attributes:
        seed: of the schedule.
        posts: how many at least.
        faults: how many.
        modes: of delivery: one group for each, at the same time, on the same posts.
        engine: ``engine.kind``.
        short: shorter pauses and a smaller deck of faults.
        only: faults of these kinds; of every kind where there are none.
        folder: for logs and facts.
        policies: the folder of those that judge; the shorter they are, the more posts a CPU's engine gets through.
        extra: settings of the consumers, by the name of their environment variable.
    """

    seed: int
    posts: int
    faults: int
    modes: tuple[str, ...]
    engine: str
    folder: Path
    short: bool = False
    only: tuple[str, ...] = ()
    policies: Path = ROOT / "policies"
    extra: tuple[tuple[str, str], ...] = ()


def environment(bootstrap: str, mode: str, options: Options) -> dict[str, str]:
    """Return the consumers' environment: deadlines short enough that a fault's every effect is seen in a minute."""
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA__TOPICS": orjson.dumps([POSTS_TOPIC]).decode(),
        "KAFKA__GROUP_ID": group_name(mode),
        "KAFKA__VERDICT_TOPIC": f"verdicts-{mode}",
        "KAFKA__DEAD_LETTER_TOPIC": f"dead-letters-{mode}",
        "KAFKA__SESSION_TIMEOUT_MS": str(round(SESSION_TIMEOUT_S * 1_000)),
        "KAFKA__HEARTBEAT_INTERVAL_MS": "1000",
        "KAFKA__REBALANCE_TIMEOUT_MS": "12000",
        "KAFKA__REQUEST_TIMEOUT_MS": "10000",
        "KAFKA__METADATA_MAX_AGE_MS": "5000",
        "DELIVERY__MODE": mode,
        "DELIVERY__COMMIT_INTERVAL_MS": "500",
        "DELIVERY__COMMIT_TIMEOUT_S": "5",
        "DELIVERY__DRAIN_TIMEOUT_S": "5",
        "POLICIES__PATH": str(options.policies),
        "ENGINE__KIND": options.engine,
        "HTTP__HOST": "127.0.0.1",
        "HTTP__PORT": "0",
        "TELEMETRY__LOG_FORMAT": "json",
    }
    ours = {f"STREAM_GUARD_{name}": value for name, value in settings.items()}
    theirs = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")}
    return {**theirs, **ours}


def group_name(mode: str) -> str:
    """Return the name of a mode's group."""
    return f"soak-{mode}"


def engine_environment(model: Path) -> dict[str, str]:
    """Return what the real engine needs to judge by a tiny random model on CPUs."""
    return {
        "STREAM_GUARD_ENGINE__MODEL": str(model),
        "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "16",
        "STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX": "16",
        # Random weights are never sure, and would climb every time.
        "STREAM_GUARD_CASCADE__LADDER": "[]",
        "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "16",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }


async def soak(options: Options, say: Callable[[str], None]) -> list[History]:
    """Run one soak; return what was observed of each mode's group."""
    planned = plan(
        options.seed,
        options.faults,
        engine=options.engine,
        session_timeout_s=SESSION_TIMEOUT_S,
        short=options.short,
        only=options.only,
    )
    say(f"seed {options.seed}: starting three brokers")
    broker = await asyncio.to_thread(start_broker, 3)
    try:
        cluster = Cluster(broker)
        groups = [_group(options, mode, cluster.bootstrap) for mode in options.modes]
        topics = {POSTS_TOPIC: PARTITIONS} | {
            topic: OUT_PARTITIONS for g in groups for topic in (g.verdicts, g.dead_letters)
        }
        for topic, partitions in topics.items():
            await asyncio.to_thread(
                broker.create_topics, topic, partitions=partitions, configs=STAMPED, timeout_s=60
            )
        clock = _Clock()
        async with clock.watched():
            run = _Run(options, cluster, groups, topics, say)
            adversary, poster, last = await run.carry_out(planned)
        say("reading the logs back")
        return await _facts(options, cluster, groups, topics, adversary, poster, clock, last)
    finally:
        await asyncio.to_thread(broker.close)


def _group(options: Options, mode: str, bootstrap: str) -> Group:
    name = group_name(mode)
    logs = options.folder / f"seed-{options.seed}" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    # As ``exactly_once`` names them: one for each partition of the input.
    ours = tuple(f"{name}/{POSTS_TOPIC}/{partition}" for partition in range(PARTITIONS))
    transactional = ours if mode == "exactly_once" else (posting.TRANSACTIONAL_ID,)
    variables = {**environment(bootstrap, mode, options), **dict(options.extra)}
    return Group(
        mode=mode,
        name=name,
        verdicts=f"verdicts-{mode}",
        dead_letters=f"dead-letters-{mode}",
        transactional_ids=transactional,
        environment=variables,
        logs=logs,
        members_max=MEMBERS[options.engine][1],
    )


class _Run:
    """The part of a soak in which something happens."""

    def __init__(
        self,
        options: Options,
        cluster: Cluster,
        groups: Sequence[Group],
        topics: Mapping[str, int],
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._groups = groups
        self._topics = topics
        self._say = say

    async def carry_out(self, planned: Sequence[Planned]) -> tuple[Adversary, Poster, int]:
        """Post and break, then drain and stop; return also when all had come that was to come, in ms."""
        options, cluster = self._options, self._cluster
        expected_s = len(planned) * (_SHORT_FAULT_S if options.short else _FAULT_S)
        poster = Poster(
            cluster.bootstrap,
            POSTS_TOPIC,
            partitions=PARTITIONS,
            rate=options.posts / expected_s,
            posts_min=options.posts,
        )
        adversary = Adversary(
            cluster,
            self._groups,
            poster,
            posts=POSTS_TOPIC,
            partitions=PARTITIONS,
            say=self._say,
        )
        members, _ = MEMBERS[options.engine]
        for group in self._groups:
            for _ in range(members):
                group.join()
        try:
            posting_task = asyncio.create_task(poster.run())
            await self._first_verdicts()
            noise = asyncio.create_task(
                posting.make_noise(cluster.bootstrap, POSTS_TOPIC, PARTITIONS, options.seed)
            )
            try:
                await adversary.run(planned)
            finally:
                await _cancel(noise)
            poster.finish()
            await posting_task
            last = await _last_words(cluster.bootstrap)
            self._say("draining")
            await self._drain(last)
            ended_ms = now_ms()
        finally:
            posting_task.cancel()
            await asyncio.gather(*(group.close() for group in self._groups))
        return adversary, poster, ended_ms

    async def _first_verdicts(self) -> None:
        """Return once every group has committed something: the faults begin with a running service."""
        async with asyncio.timeout(READY_S):
            for group in self._groups:
                while not any(
                    position > 0
                    for position in (
                        await self._cluster.committed(group.name, POSTS_TOPIC)
                    ).values()
                ):
                    _refuse_hopeless(group)
                    await asyncio.sleep(_LOOK_S)

    async def _drain(self, last: Mapping[int, int]) -> None:
        """Return once every group is past these offsets, or stands still for good."""
        for group in self._groups:
            before: Mapping[int, int] = {}
            moved_s = time.monotonic()
            while True:
                positions = await self._cluster.committed(group.name, POSTS_TOPIC)
                if all(positions.get(p, 0) > offset for p, offset in last.items()):
                    break
                if positions != before:
                    before, moved_s = positions, time.monotonic()
                elif time.monotonic() - moved_s > _IDLE_S_MAX[self._options.engine]:
                    self._say(
                        f"{group.name} stands still at {dict(positions)}, short of {dict(last)}"
                    )
                    break
                await asyncio.sleep(_LOOK_S)


def _refuse_hopeless(group: Group) -> None:
    """Raise where a member says that its settings are wrong: no amount of restarts will help."""
    for ended in group.exits:
        if ended.code == 2:
            log = group.logs / f"{ended.member}.log"
            message = f"{ended.member} does not start: {log.read_text('utf-8', 'replace')[-500:]}"
            raise RuntimeError(message)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _last_words(bootstrap: str) -> dict[int, int]:
    """Send one more post to each partition; return their offsets. Behind aborted ones no position shows the end."""
    producer = await posting.connect(bootstrap)
    try:
        last = {}
        for partition in range(PARTITIONS):
            name = f"p-last-{partition}"
            sent = await producer.send_and_wait(
                POSTS_TOPIC, posting.post(name, partition), key=b"last", partition=partition
            )
            last[partition] = sent.offset
        return last
    finally:
        await producer.stop()


class _Clock:
    """Watches whether the wall clock jumps against the monotonic one."""

    def __init__(self) -> None:
        self._first_ns = time.time_ns() - time.monotonic_ns()
        self.step_ms = 0

    def look(self) -> None:
        off_ns = abs(time.time_ns() - time.monotonic_ns() - self._first_ns)
        self.step_ms = max(self.step_ms, off_ns // 1_000_000)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        async def watch() -> None:
            while True:
                self.look()
                await asyncio.sleep(0.5)

        task = asyncio.create_task(watch())
        try:
            yield
        finally:
            await _cancel(task)


async def _facts(
    options: Options,
    cluster: Cluster,
    groups: Sequence[Group],
    topics: dict[str, int],
    adversary: Adversary,
    poster: Poster,
    clock: _Clock,
    ended_ms: int,
) -> list[History]:
    bootstrap = cluster.bootstrap
    await adversary.whole()
    await posting.end_logs(bootstrap, topics)
    marker = f"end-{options.seed}"
    for group in groups:
        await mark_end(bootstrap, group.name, POSTS_TOPIC, marker)
    every = await reading.read_logs(bootstrap, topics, committed=False)
    readable = await reading.read_logs(bootstrap, topics, committed=True)
    commits = await reading.read_commits(
        bootstrap, {group.name: marker for group in groups}, POSTS_TOPIC
    )
    inputs = reading.inputs_of(every[POSTS_TOPIC], readable[POSTS_TOPIC])
    policies = load_policies(options.policies).policies.values()
    return [
        History(
            seed=options.seed,
            mode=group.mode,
            engine=options.engine,
            topic=POSTS_TOPIC,
            policies={policy.id: policy.sha256 for policy in policies},
            clock_step_ms=clock.step_ms,
            ended_ms=ended_ms,
            inputs=inputs,
            acknowledged=poster.acknowledged,
            outcomes=[
                outcome
                for topic in (group.verdicts, group.dead_letters)
                for outcome in reading.outcomes_of(every[topic], readable[topic])
            ],
            commits=commits[group.name],
            faults=adversary.faults,
            exits=group.exits,
        )
        for group in groups
    ]
