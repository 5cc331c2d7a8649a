"""Reads the topic of verdicts for a service that acts on them: each once per window, committed after handling.

What it must never do: commit a verdict that was not handled yet, or hand out one that another member owns by now.
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

from stream_guard.client.errors import BrokerError, UnreadableVerdictError
from stream_guard.client.filters import Wanted
from stream_guard.client.verdicts import parse_verdict
from stream_guard.client.window import Window
from stream_guard.core.errors import named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from stream_guard.client.verdicts import Verdict
    from stream_guard.core.vocabulary import Severity

_log = structlog.get_logger(__name__)
DEFAULT_TOPIC: Final = "stream-guard.verdicts"
_POLL_TIMEOUT_MS: Final = 500


class VerdictConsumer:
    """An async context manager and iterator over verdicts.

    A verdict counts as handled when the next one is asked for, or when the block is left without an exception; its
    position is committed after that. A process that dies in between gets the same verdict again after its restart:
    handling has to bear that, for example by keeping the verdict's id beside the action.

    Args:
        bootstrap_servers: ``host:port[,host:port ...]``.
        group_id: the consumer group; its members share the partitions.
        topic: where Stream Guard publishes its verdicts (its ``kafka.verdict_topic``).
        policies: slugs to hand out; None for all.
        decisions: of ``violates``, ``safe``, ``undetermined``; None for all. The default is ``violates`` alone, so
            that a service that acts on each verdict it gets does not act on an undecided one.
        severity_min: leaves out violations that are known to be less severe. A violation without a severity still
            comes: not known is not harmless.
        shadows: whether verdicts of shadow routes come, too, should they be in this topic. They are not for acting on.
        window_size_max: verdicts remembered to pass over repeats.
        from_beginning: where a new group starts: at the oldest verdict, or at what comes from now on.
        handle_timeout_s: how long a rebalance waits for the verdict that is being handled.
        commit_interval_s: at most this long are positions of handled verdicts kept back.
        start_timeout_s: the broker must have answered by then.
        on_unreadable: called with what is no verdict, which is then passed over; by default it is raised.
        client_options: passed on to aiokafka's consumer (``security_protocol``, ``ssl_context``, ...).

    Raises:
        ClientError: an argument makes no sense; the message names it.

    Attributes:
        repeats: verdicts passed over, since their id was in the window.
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
        window_size_max: int = 100_000,
        from_beginning: bool = True,
        handle_timeout_s: float = 30,
        commit_interval_s: float = 1,
        start_timeout_s: float = 30,
        on_unreadable: Callable[[UnreadableVerdictError], None] | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._wanted = Wanted(policies, decisions, severity_min, shadows)
        self._topic = topic
        self._bootstrap_servers = bootstrap_servers
        self._window = Window(window_size_max)
        self._handle_timeout_s = handle_timeout_s
        self._commit_interval_s = commit_interval_s
        self._start_timeout_s = start_timeout_s
        self._on_unreadable = on_unreadable
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

    async def __aenter__(self) -> Self:
        """Join the group. Raises BrokerError where that fails."""
        self._consumer = self._make_consumer()
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._consumer.start()
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
                f"topic {self._topic!r} does not exist on {self._bootstrap_servers}; name the "
                "deployment's kafka.verdict_topic, or create it first"
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
            # Handling may take its time: it is the rebalance that has the deadline.
            max_poll_interval_ms=round((self._handle_timeout_s + 600) * 1_000),
            **self._options,
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit what was handled, and leave the group."""
        # What an exception interrupted was not handled: it comes again.
        self._finish(handled=error is None)
        await self._commit()
        await self._stop()

    async def __aiter__(self) -> AsyncIterator[Verdict]:
        """Yield verdicts for ever. Raises UnreadableVerdictError, unless ``on_unreadable`` is set."""
        while True:
            self._finish(handled=True)
            if time.monotonic() - self._committed_s >= self._commit_interval_s:
                await self._commit()
            if not self._buffer:
                fetched = await self._consumer.getmany(timeout_ms=_POLL_TIMEOUT_MS, max_records=500)
                for records in fetched.values():
                    self._buffer.extend(records)
                continue
            record = self._buffer.popleft()
            self._in_hand = record
            verdict = self._read(record)
            if verdict is not None:
                self._idle.clear()
                yield verdict

    def _read(self, record: Any) -> Verdict | None:  # noqa: ANN401 - aiokafka ships no types
        """Return a record's verdict where it is wanted and new."""
        place = f"{record.topic}/{record.partition}/{record.offset}"
        try:
            verdict = parse_verdict(record.value, place)
        except UnreadableVerdictError as error:
            if self._on_unreadable is None:
                self._in_hand = None  # not handled: it stands in the way until somebody decides
                raise
            self._on_unreadable(error)
            return None
        if not self._wanted.wants(verdict):
            return None
        if self._window.is_repeat(verdict):
            self.repeats += 1
            return None
        superseded = self._window.remember(verdict)
        return (
            verdict if superseded is None else verdict.model_copy(update={"supersedes": superseded})
        )

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
            # Nothing is lost: what was handled may come again.
            for partition, position in positions.items():
                self._positions.setdefault(partition, position)
            _log.warning("verdicts_commit_failed", error=named(error))

    async def revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Before partitions go to another member: let the verdict in hand be handled, and commit."""
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
        # Positions that could not be committed are the next owner's to find out.
        self._positions = {p: offset for p, offset in self._positions.items() if p not in lost}
        in_hand = self._in_hand
        if in_hand is not None and TopicPartition(in_hand.topic, in_hand.partition) in lost:
            self._in_hand = None

    async def _stop(self) -> None:
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(self._start_timeout_s):
                await self._consumer.stop()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    def __init__(self, owner: VerdictConsumer) -> None:
        self._owner = owner

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        await self._owner.revoke(revoked)

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Nothing to do: the broker knows where the group was."""
