"""Reads verdicts for a service that acts on them: without duplicates, and committed after handling.

A verdict is never committed before it was handled, and never returned after another member has become its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from stream_guard.client.errors import BrokerError, RegistryError, UnreadableVerdictError
from stream_guard.client.filters import Wanted
from stream_guard.client.verdicts import parse_verdict
from stream_guard.client.window import Window
from stream_guard.core.errors import named
from stream_guard.core.kafka_clients import start_client, stop_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from stream_guard.client.registry import SchemaRegistry
    from stream_guard.client.verdicts import Verdict
    from stream_guard.core.vocabulary import Severity

_log = structlog.get_logger(__name__)
DEFAULT_TOPIC: Final = "stream-guard.verdicts"
_POLL_TIMEOUT_MS: Final = 500
_REGISTRY_PAUSE_S: Final = 1.0


class VerdictConsumer:
    """An async context manager and iterator over verdicts.

    A verdict counts as handled when the next one is asked for, or when the block is left without an exception; its
    position is committed after that. A process that dies in between gets the same verdict again after its restart.
    The handler must tolerate that, for example by storing the verdict's id with the action.

    Args:
        bootstrap_servers: ``host:port[,host:port ...]``.
        group_id: the consumer group; its members share the partitions.
        topic: the topic of verdicts (``kafka.verdict_topic`` of the deployment).
        policies: ids of the policies to return verdicts of; None for all.
        decisions: any of ``violates``, ``safe``, ``undetermined``; None for all. The default is ``violates`` alone, so
            that a service that acts on each verdict does not act on an undecided one.
        severity_min: ignore violations known to be less severe. A violation without a severity is still returned,
            because it may be severe.
        shadows: whether to return verdicts of shadow routes found in this topic. Do not act on them.
        provisional: whether to return verdicts that a larger model will supersede. If not, an escalated post has one
            verdict, the final one.
        events: whether to return, whatever ``decisions`` says, each verdict of a person or a larger model, and the
            events that take verdicts back or say that they have expired (``Verdict.event``). For a service that can
            undo its actions.
        window_size_max: how many verdicts to remember, to ignore duplicates.
        from_beginning: whether a new group starts at the oldest verdict or at the next one.
        handle_timeout_s: how long a rebalance waits for the verdict in hand.
        commit_interval_s: how often positions of handled verdicts are committed.
        start_timeout_s: timeout of the connection to the broker.
        on_unreadable: called with the error of an unreadable verdict, which is then ignored; by default it is raised.
        registry: has the schemas of a deployment that writes Avro (``output.format``). While it does not answer, the
            consumer waits and asks again. None: only JSON can be read.
        client_options: passed to aiokafka's consumer (``security_protocol``, ``ssl_context``, ...).

    Raises:
        ClientError: an argument is invalid; the message names it.

    Attributes:
        repeats: number of ignored duplicates.
        overruled: number of ignored verdicts that a person's later decision overrules, or a larger model's verdict that
            came before them supersedes.
    """

    def __init__(  # noqa: PLR0913 - all but the first are by keyword, each with a default that works
        self,
        bootstrap_servers: str,
        *,
        group_id: str,
        topic: str = DEFAULT_TOPIC,
        policies: Collection[str] | None = None,
        decisions: Collection[str] | None = ("violates",),
        severity_min: Severity | None = None,
        shadows: bool = False,
        provisional: bool = True,
        events: bool = False,
        window_size_max: int = 100_000,
        from_beginning: bool = True,
        handle_timeout_s: float = 30,
        commit_interval_s: float = 1,
        start_timeout_s: float = 30,
        on_unreadable: Callable[[UnreadableVerdictError], None] | None = None,
        registry: SchemaRegistry | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._wanted = Wanted(policies, decisions, severity_min, shadows, events, provisional)
        self._topic = topic
        self._bootstrap_servers = bootstrap_servers
        self._window = Window(window_size_max)
        self._handle_timeout_s = handle_timeout_s
        self._commit_interval_s = commit_interval_s
        self._start_timeout_s = start_timeout_s
        self._on_unreadable = on_unreadable
        self._registry = registry
        self._group_id = group_id
        self._offset_reset = "earliest" if from_beginning else "latest"
        self._options = dict(client_options or {})
        self._consumer: Any = None  # made where a loop runs; aiokafka ships no types
        self._buffer: deque[Any] = deque()
        self._in_hand: Any = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._positions: dict[TopicPartition, int] = {}
        self._committed_s = time.monotonic()
        self.repeats = 0
        self.overruled = 0

    async def __aenter__(self) -> Self:
        """Join the group. Raises BrokerError where that fails."""
        self._consumer = self._make_consumer()
        if self._registry is not None:
            await self._registry.__aenter__()
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await start_client(self._consumer)
                topics = await self._consumer.topics()
        except (KafkaError, OSError, TimeoutError) as error:
            await self._stop()
            message = (
                f"bootstrap_servers {self._bootstrap_servers}: no broker answered within "
                f"{self._start_timeout_s:g} s: {named(error)}"
            )
            raise BrokerError(message) from error
        if self._topic not in topics:
            await self._stop()
            message = (
                f"topic {self._topic!r} does not exist on {self._bootstrap_servers}; pass the "
                "deployment's kafka.verdict_topic, or create the topic"
            )
            raise BrokerError(message)
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        return self

    def _make_consumer(self) -> Any:  # noqa: ANN401 - aiokafka ships no types
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            group_id=self._group_id,
            enable_auto_commit=False,
            auto_offset_reset=self._offset_reset,
            # Verdicts of an exactly-once deployment count only once their transaction is committed.
            isolation_level="read_committed",
            rebalance_timeout_ms=round((self._handle_timeout_s + 10) * 1_000),
            # Handling may be slow; only a rebalance has a deadline.
            max_poll_interval_ms=round((self._handle_timeout_s + 600) * 1_000),
            **self._options,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit the handled verdicts, and leave the group."""
        # A verdict whose handler raised was not handled, so it is returned again.
        self._finish(handled=error is None)
        await self._commit()
        await self._stop()

    async def __aiter__(self) -> AsyncIterator[Verdict]:
        """Yield verdicts without end. Raises UnreadableVerdictError, unless ``on_unreadable`` is set."""
        while True:
            self._finish(handled=True)
            if time.monotonic() - self._committed_s >= self._commit_interval_s:
                await self._commit()
            if not self._buffer:
                fetched = await self._consumer.getmany(timeout_ms=_POLL_TIMEOUT_MS, max_records=500)
                for records in fetched.values():
                    self._buffer.extend(records)
                continue
            if not await self._has_schema(self._buffer[0]):
                continue  # a rebalance may have emptied the buffer meanwhile
            record = self._buffer.popleft()
            self._in_hand = record
            verdict = self._read(record)
            if verdict is not None:
                self._idle.clear()
                yield verdict

    async def _has_schema(self, record: Any) -> bool:  # noqa: ANN401 - aiokafka ships no types
        """Return whether a record can be read now; fetch its schema where it cannot, and return False then."""
        registry = self._registry
        if registry is None or registry.is_known(record.value):
            return True
        try:
            await registry.fetch(record.value)
        except RegistryError as error:
            _log.warning("registry_failed", error=str(error), pause_s=_REGISTRY_PAUSE_S)
            await asyncio.sleep(_REGISTRY_PAUSE_S)
        return False

    def _read(self, record: Any) -> Verdict | None:  # noqa: ANN401 - aiokafka ships no types
        """Return a record's verdict; None if it is filtered out or a duplicate."""
        place = f"{record.topic}/{record.partition}/{record.offset}"
        try:
            schemas = None if self._registry is None else self._registry.known
            verdict = parse_verdict(record.value, place, schemas)
        except UnreadableVerdictError as error:
            if self._on_unreadable is None:
                self._in_hand = None  # not handled: it is returned again until the caller decides
                raise
            self._on_unreadable(error)
            return None
        now_ms = time.time_ns() // 1_000_000
        if self._window.is_overruled(verdict, now_ms) or self._window.is_superseded(verdict):
            self.overruled += 1
            return None
        if not self._wanted.wants(verdict):
            self._window.note(verdict)
            return None
        if self._window.is_repeat(verdict):
            self.repeats += 1
            return None
        superseded = self._window.remember(verdict)
        if superseded is None or verdict.supersedes is not None:
            return verdict
        return verdict.model_copy(update={"supersedes": superseded})

    def _finish(self, *, handled: bool) -> None:
        record, self._in_hand = self._in_hand, None
        self._idle.set()
        if record is not None and handled:
            partition = TopicPartition(record.topic, record.partition)
            self._positions[partition] = record.offset + 1

    async def _commit(self) -> None:
        positions, self._positions = self._positions, {}
        self._committed_s = time.monotonic()
        if not positions:
            return
        try:
            await self._consumer.commit(positions)
        except (KafkaError, OSError) as error:
            # Nothing is lost: handled verdicts may be returned again.
            for partition, position in positions.items():
                self._positions.setdefault(partition, position)
            _log.warning("verdicts_commit_failed", error=named(error))

    async def revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Wait for the verdict in hand and commit, before another member becomes the owner of the partitions."""
        lost = set(partitions)
        self._buffer = deque(
            record
            for record in self._buffer
            if TopicPartition(record.topic, record.partition) not in lost
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._handle_timeout_s):
                await self._idle.wait()
        await self._commit()
        # The next owner starts from the last committed position.
        self._positions = {p: offset for p, offset in self._positions.items() if p not in lost}
        in_hand = self._in_hand
        if in_hand is not None and TopicPartition(in_hand.topic, in_hand.partition) in lost:
            self._in_hand = None

    async def _stop(self) -> None:
        if self._registry is not None:
            await self._registry.__aexit__()
        await stop_client(self._consumer, self._start_timeout_s)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    def __init__(self, owner: VerdictConsumer) -> None:
        self._owner = owner

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        await self._owner.revoke(revoked)

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Do nothing: the consumer starts from the committed position."""
