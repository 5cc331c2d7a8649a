"""One soak, from an empty cluster to the facts: start, post, break, drain, read back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import orjson

from stream_guard.policies.store import load_policies
from stream_guard.settings import DeliverySettings
from stream_guard.testing import BrokerSecurity, SecuredListener, start_broker
from tests.soak import access, clock, people_faults, posting, reading, schedule
from tests.soak.adversary import Adversary
from tests.soak.cluster import STAMPED, Cluster, mark_end
from tests.soak.facts import Expired, History, Input
from tests.soak.live_reader import END_S, LiveReader
from tests.soak.members import ROOT, now_ms
from tests.soak.posting import Poster
from tests.soak.proxy import Proxy, forward, start_proxies
from tests.soak.schedule import Planned, plan
from tests.soak.stage import Group, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from stream_guard.testing import Broker

MODES: Final[tuple[str, ...]] = get_args(DeliverySettings.model_fields["mode"].annotation)
POSTS_TOPIC: Final = "posts"
BROKERS: Final = 3
BROKER_START_S: Final = 240.0
PARTITIONS: Final = 6
OUT_PARTITIONS: Final = 4
DECISION_PARTITIONS: Final = 2
SESSION_TIMEOUT_S: Final = 8.0
ACTIONS_MAX: Final = 100
"""The limit on actions in any hour; it is reached again after each fault of that kind."""
# Members of a group, at first and at most; the real engine takes a processor and 2 GB for each.
MEMBERS: Final = {"scripted": (2, 3), "vllm": (1, 2)}
READY_S: Final = 600.0
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
        without: no fault of these kinds.
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
    without: tuple[str, ...] = ()
    policies: Path = ROOT / "policies"
    extra: tuple[tuple[str, str], ...] = ()


def environment(mode: str, options: Options) -> dict[str, str]:
    """Return the consumers' environment: deadlines short enough that a fault's every effect is seen in a minute."""
    settings = {
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
        "ACTIONS__LIMITS": orjson.dumps([{"actions_max": ACTIONS_MAX}]).decode(),
        "KAFKA__BREAKER_TOPIC": f"breaker-{mode}",
        "DECISIONS__ENABLED": "true",
        "KAFKA__DECISION_TOPIC": f"decisions-{mode}",
        "POST__TOMBSTONES": "delete",
        "POST__DELETES": orjson.dumps({"/op": ["d"]}).decode(),
        "POLICIES__PATH": str(options.policies),
        "ENGINE__KIND": options.engine,
        "HTTP__HOST": "127.0.0.1",
        "HTTP__PORT": "0",
        "TELEMETRY__LOG_FORMAT": "json",
    }
    ours = {f"STREAM_GUARD_{name}": value for name, value in settings.items()}
    theirs = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")}
    return {**theirs, **ours}


def with_actions(options: Options) -> Path:
    """Return a copy of the policies whose violations recommend an action, as limits count only these."""
    folder = options.folder / f"seed-{options.seed}" / "policies"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier soak
    shutil.copytree(options.policies, folder)
    for policy in folder.glob("*/policy.md"):
        metadata = policy.with_name("policy.yaml")
        lines = metadata.read_text("utf-8").splitlines() if metadata.exists() else []
        if not any(line.startswith("action:") for line in lines):
            metadata.write_text("\n".join([*lines, "action: remove", ""]), "utf-8")
    return folder


def group_name(mode: str) -> str:
    """Return the name of a mode's group."""
    return f"soak-{mode}"


def engine_environment(model: Path, constraint: str = "always") -> dict[str, str]:
    """Return what the real engine needs to judge by a tiny model on CPUs.

    Args:
        model: its folder.
        constraint: ``engine.constraint``. Random weights write no answer by themselves, so an attempt without the
            grammar would only take time there.
    """
    return {
        "STREAM_GUARD_ENGINE__MODEL": str(model),
        "STREAM_GUARD_ENGINE__CONSTRAINT": constraint,
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
        without=options.without,
    )
    if any(fault.kind == schedule.CLOCK for fault in planned):
        clock.library()  # which may be missing: known before anything has started
    say(f"seed {options.seed}: starting three brokers")
    options = replace(options, policies=with_actions(options))
    proxies, ports = await start_proxies(BROKERS)
    # The plain listener stays, for the producer, for the adversary and for the readers.
    security = BrokerSecurity(
        acls=True, listeners=(SecuredListener(access.LISTENER, advertised_ports=ports),)
    )
    broker = await asyncio.to_thread(
        start_broker, BROKERS, security=security, timeout_s=BROKER_START_S
    )
    try:
        assert broker.secured is not None, "it was asked for"
        forward(proxies, broker.secured.ports(access.LISTENER))
        with tempfile.TemporaryDirectory(prefix="stream-guard-soak-") as secrets:
            return await _soak(options, planned, broker, proxies, Path(secrets), say)
    finally:
        await asyncio.to_thread(broker.close)
        await asyncio.gather(*(proxy.close() for proxy in proxies))


async def _soak(
    options: Options,
    planned: Sequence[Planned],
    broker: Broker,
    proxies: Sequence[Proxy],
    secrets: Path,
    say: Callable[[str], None],
) -> list[History]:
    """Run one soak on a cluster that runs."""
    cluster = Cluster(broker)
    groups = [_group(options, mode, broker, secrets) for mode in options.modes]
    written = {t: OUT_PARTITIONS for g in groups for t in (g.verdicts, g.dead_letters)}
    for topic, partitions in {POSTS_TOPIC: PARTITIONS, **written}.items():
        await asyncio.to_thread(
            broker.create_topics,
            topic,
            partitions=partitions,
            configs=STAMPED,
            timeout_s=BROKER_START_S,
        )
    archive, configs = access.archive()
    await asyncio.to_thread(
        broker.create_topics, archive, configs=configs, timeout_s=BROKER_START_S
    )
    for group in groups:
        breaker = group.environment["STREAM_GUARD_KAFKA__BREAKER_TOPIC"]
        await asyncio.to_thread(broker.create_topics, breaker, configs=configs, timeout_s=60)
        await asyncio.to_thread(
            broker.create_topics,
            group.decisions,
            partitions=DECISION_PARTITIONS,
            configs={**configs, **STAMPED},
            timeout_s=60,
        )
        await group.user.grant_all(group.environment)
    poster = _poster(options, cluster.bootstrap, len(planned))
    reader = LiveReader(cluster.bootstrap, written)
    stage = Stage(cluster, groups, poster, reader, proxies, POSTS_TOPIC, PARTITIONS)
    adversary = Adversary(stage, say)
    steps = _Clock()
    reading_task = asyncio.create_task(reader.run())
    try:
        async with steps.watched():
            ended_ms = await _Run(options, stage, say).carry_out(adversary, planned)
        say("reading the logs back")
        await stage.whole()
        decisions = dict.fromkeys((group.decisions for group in groups), DECISION_PARTITIONS)
        ends = {POSTS_TOPIC: PARTITIONS, **written, **decisions}
        await posting.end_logs(cluster.bootstrap, ends)
        async with asyncio.timeout(END_S):
            await reading_task
    finally:
        reading_task.cancel()
    return await _facts(options, stage, adversary, steps, ended_ms)


def _group(options: Options, mode: str, broker: Broker, secrets: Path) -> Group:
    name = group_name(mode)
    logs = options.folder / f"seed-{options.seed}" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    # As ``exactly_once`` names them: one for each partition of the input.
    ours = tuple(f"{name}/{POSTS_TOPIC}/{partition}" for partition in range(PARTITIONS))
    transactional = ours if mode == "exactly_once" else (posting.TRANSACTIONAL_ID,)
    user = access.Guarded(broker, f"guard-{mode.replace('_', '-')}", secrets / mode)
    user.write_certificate()
    return Group(
        mode=mode,
        name=name,
        verdicts=f"verdicts-{mode}",
        dead_letters=f"dead-letters-{mode}",
        decisions=f"decisions-{mode}",
        transactional_ids=transactional,
        environment={**environment(mode, options), **user.environment(), **dict(options.extra)},
        user=user,
        logs=logs,
        members_max=MEMBERS[options.engine][1],
    )


def _poster(options: Options, bootstrap: str, faults: int) -> Poster:
    expected_s = max(1, faults) * (_SHORT_FAULT_S if options.short else _FAULT_S)
    return Poster(
        bootstrap,
        POSTS_TOPIC,
        partitions=PARTITIONS,
        rate=options.posts / expected_s,
        posts_min=options.posts,
    )


class _Run:
    """The part of a soak in which something happens."""

    def __init__(self, options: Options, stage: Stage, say: Callable[[str], None]) -> None:
        self._options = options
        self._stage = stage
        self._cluster = stage.cluster
        self._groups = stage.groups
        self._poster = stage.poster
        self._say = say

    async def carry_out(self, adversary: Adversary, planned: Sequence[Planned]) -> int:
        """Post and break, then drain and stop; return when all had come that was to come, in ms."""
        options, cluster, poster = self._options, self._cluster, self._poster
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
            # Long after the first decisions: no member may be without them.
            poster.repeat(people_faults.decided_posts(self._stage))
            poster.finish()
            await posting_task
            last = await _last_words(cluster.bootstrap)
            self._say("draining")
            await self._drain(last)
            ended_ms = now_ms()
        finally:
            posting_task.cancel()
            await asyncio.gather(*(group.close() for group in self._groups))
        return ended_ms

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
            wanted = {(POSTS_TOPIC, p): offset for p, offset in last.items()}
            wanted |= {(group.decisions, p): o for p, o in group.last_decisions.items()}
            before: Mapping[tuple[str, int], int] = {}
            moved_s = time.monotonic()
            while True:
                positions = {
                    (topic, partition): position
                    for topic in (POSTS_TOPIC, group.decisions)
                    for partition, position in (
                        await self._cluster.committed(group.name, topic)
                    ).items()
                }
                if all(positions.get(place, 0) > offset for place, offset in wanted.items()):
                    break
                if positions != before:
                    before, moved_s = positions, time.monotonic()
                elif time.monotonic() - moved_s > _IDLE_S_MAX[self._options.engine]:
                    self._say(f"{group.name} stands still at {dict(positions)}, short of {wanted}")
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
    stage: Stage,
    adversary: Adversary,
    steps: _Clock,
    ended_ms: int,
) -> list[History]:
    bootstrap = stage.cluster.bootstrap
    groups = stage.groups
    topics = [POSTS_TOPIC, *(t for g in groups for t in (g.verdicts, g.dead_letters))]
    partitions = {t: PARTITIONS if t == POSTS_TOPIC else OUT_PARTITIONS for t in topics}
    marker = f"end-{options.seed}"
    for group in groups:
        await mark_end(bootstrap, group.name, POSTS_TOPIC, marker)
    partitions |= dict.fromkeys((group.decisions for group in groups), DECISION_PARTITIONS)
    every = await reading.read_logs(bootstrap, partitions, committed=False)
    readable = await reading.read_logs(bootstrap, partitions, committed=True)
    logs = await reading.read_group_logs(
        bootstrap, {group.name: marker for group in groups}, POSTS_TOPIC
    )
    left = reading.inputs_of(every[POSTS_TOPIC], readable[POSTS_TOPIC])
    policies = load_policies(options.policies).policies.values()
    return [
        History(
            seed=options.seed,
            mode=group.mode,
            engine=options.engine,
            topic=POSTS_TOPIC,
            policies={policy.id: policy.sha256 for policy in policies},
            clock_step_ms=steps.step_ms,
            ended_ms=ended_ms,
            peak_bytes=max(member.peak_bytes for member in group.every),
            actions_max=ACTIONS_MAX,
            watched=True,
            inputs=with_deleted(left, stage.deleted),
            acknowledged=stage.poster.acknowledged,
            outcomes=[
                outcome
                for topic in (group.verdicts, group.dead_letters)
                for outcome in reading.outcomes_of(every[topic], readable[topic])
            ],
            decided=list(reading.decided_of(readable[group.decisions])),
            reads=[
                r for r in stage.reader.reads if r.topic in (group.verdicts, group.dead_letters)
            ],
            commits=logs[group.name].commits,
            generations=logs[group.name].generations,
            expired=told_expired(group.logs.glob(f"{group.name}-*.log")),
            faults=adversary.faults,
            exits=group.exits,
        )
        for group in groups
    ]


def with_deleted(left: Sequence[Input], deleted: Sequence[Input]) -> list[Input]:
    """Return the input's records: those that are left, and those that were deleted, each once."""
    gone = {(fact.partition, fact.offset): fact for fact in reversed(deleted)}
    rest = [fact for fact in left if (fact.partition, fact.offset) not in gone]
    return sorted([*gone.values(), *rest])


def told_expired(logs: Iterable[Path]) -> list[Expired]:
    """Return what members have logged of records that were gone before they read them."""
    found = []
    for log in logs:
        for line in log.read_bytes().splitlines():
            if b'"event":"records_expired"' in line:
                said = orjson.loads(line)
                _, _, partition = said["partition"].rpartition("/")
                found.append(Expired(int(partition), said["position"], said["now"]))
    return found
