"""Sessions on aiokafka: a transactional producer for each input partition.

The transactional id is ``<group>/<topic>/<partition>``, so that the next owner of the partition
uses the same one: when its producer starts, the broker raises the id's epoch, aborts what the last owner left open,
and refuses everything that the last owner still sends. That fences by partition and needs nothing of the group:
aiokafka 0.14 sends TxnOffsetCommit version 0, which does not say which member or generation it comes from (KIP-447),
so that one id for the whole process would let a member that has lost a partition still move its position.

What it must never do: put a position into a transaction before everything else in it is acknowledged (aiokafka's
commit returns normally although a record of the transaction failed), or use a producer again after a doubt (its end of
a transaction may arrive later, and does not say which transaction it means).

A batch that its topic refuses as too large voids the session too. What it held is remembered for the partition's next
session: its records are written each alone, and one that was refused alone is written in its smaller form.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

from aiokafka import TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InvalidProducerEpoch,
    InvalidTransactionTimeout,
    KafkaError,
    ProducerClosed,
    ProducerFenced,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.structs import OffsetAndMetadata

from stream_guard.core.errors import BrokerError, DoubtError, SettingsError
from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.batches import (
    FATAL,
    TOO_LARGE,
    by_partition,
    discard_producer,
    fill_batch,
    make_producer,
    shrink_refused,
    start_producer,
)
from stream_guard.kafka.permissions import explain_denial, require_permissions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aiokafka import AIOKafkaProducer

    from stream_guard.settings import DeliverySettings, KafkaSettings, Settings
    from stream_guard.stream.in_flight import Outgoing

    # The offset of the record that owes an output, its topic, and the policy or reason in its label.
    _Owed: TypeAlias = tuple[int, str, str | None]

_NEVER = (*FATAL, GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed)


def transactional_id(group: str, partition: Partition) -> str:
    """Return ``<group>/<topic>/<partition>``: no topic has a slash in it, so that no two of these are alike."""
    return f"{group}/{partition.topic}/{partition.partition}"


async def check_permissions(settings: Settings, topics: Collection[str]) -> None:
    """Check what access control lists allow us, before anything is read; see :func:`require_permissions`.

    Raises:
        BrokerError: something is forbidden that reading ``topics`` with these settings needs.
    """
    kafka, name = settings.kafka, None
    if settings.delivery.mode == "exactly_once":
        name = transactional_id(kafka.group_id, Partition(min(topics, default="posts"), 0))
    archive = [kafka.archive_topic] if settings.policies.archive == "topic" else []
    breaker = [kafka.breaker_topic] if settings.actions.limits else []
    decided = [kafka.decision_topic] if settings.decisions.enabled else []
    side = settings.side_topics
    await require_permissions(
        kafka,
        read=[*topics, *breaker, *decided, *side.read],
        written=[*kafka.written_topics, *archive, *breaker, *decided, *side.written],
        transactional_id=name,
    )


class RefusedOutputs:
    """What topics refused of one partition's outputs as too large, until it is written.

    Attributes:
        alone: outputs of refused batches, which are written each alone.
        cut: outputs that were refused alone, which are written in their smaller form.
    """

    def __init__(self) -> None:
        self.alone: set[_Owed] = set()
        self.cut: set[_Owed] = set()

    def prepare(self, outgoing: Sequence[Outgoing]) -> set[Outgoing]:
        """Shrink the outputs that were refused alone; return those that are to be written alone."""
        if not self.alone:
            return set()
        alone = {record for record in outgoing if _owed(record) in self.alone}
        for record in alone:
            if _owed(record) in self.cut:
                record.shrink()
        return alone

    def add(self, members: Sequence[Outgoing], error: BaseException) -> None:
        """Remember a refused batch. Raises BrokerError where its one record has no smaller form."""
        if len(members) == 1:
            shrink_refused(members[0], error)
            self.cut.add(_owed(members[0]))
        self.alone.update(map(_owed, members))

    def forget(self, position: int) -> None:
        """Forget what records before a written position owed."""
        if self.alone:
            self.alone = {owed for owed in self.alone if owed[0] >= position}
            self.cut &= self.alone


def _owed(record: Outgoing) -> _Owed:
    label = (
        record.label if record.label is None or isinstance(record.label, str) else record.label[0]
    )
    return record.origin.record.offset, record.topic, label


class KafkaTransactor:
    """A :class:`stream_guard.stream.ports.Transactor`."""

    def __init__(self, settings: KafkaSettings, delivery: DeliverySettings) -> None:
        self._settings = settings
        self._delivery = delivery
        self._refused: dict[Partition, RefusedOutputs] = defaultdict(RefusedOutputs)

    async def claim(self, partition: Partition) -> KafkaSession:
        """Start a producer under the partition's transactional id, within ``kafka.request_timeout_ms``.

        Raises:
            DoubtError: it did not start.
            SettingsError: the brokers do not allow ``delivery.transaction_timeout_ms``.
            BrokerError: the transactional id is refused.
        """
        name = transactional_id(self._settings.group_id, partition)
        producer = make_producer(
            self._settings,
            transactional_id=name,
            transaction_timeout_ms=self._delivery.transaction_timeout_ms,
        )
        try:
            await start_producer(producer, self._settings)
        except InvalidTransactionTimeout as error:
            message = (
                "delivery.transaction_timeout_ms (STREAM_GUARD_DELIVERY__TRANSACTION_TIMEOUT_MS): "
                f"{self._delivery.transaction_timeout_ms} is above the brokers' transaction.max.timeout.ms; lower it"
            )
            raise SettingsError(message) from error
        except (KafkaError, OSError, TimeoutError) as error:
            raise _explain(error, name, "claimed") from error
        return KafkaSession(
            producer,
            name,
            partition,
            self._settings.group_id,
            self._delivery,
            self._refused[partition],
        )


class KafkaSession:
    """A :class:`stream_guard.stream.ports.Session`: one transactional producer."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        name: str,
        partition: Partition,
        group: str,
        delivery: DeliverySettings,
        refused: RefusedOutputs,
    ) -> None:
        self._producer = producer
        self._name = name
        self._partition = TopicPartition(*partition)
        self._group = group
        self._delivery = delivery
        self._refused = refused
        self._open = False
        self._keyless = random.randrange(1 << 16)  # noqa: S311 - only spreads records without a key

    async def write(self, outgoing: Sequence[Outgoing], position: int) -> None:
        """Write records and the position in one transaction, within ``delivery.transaction_timeout_ms``.

        Raises:
            DoubtError: it was not written, or nobody knows.
            BrokerError: a topic, the group or the transactional id is refused, or even the smaller form of a record.
        """
        try:
            async with asyncio.timeout(self._delivery.transaction_timeout_ms / 1_000):
                await self._write(outgoing, position)
        except (KafkaError, OSError, TimeoutError, ProducerClosed) as error:
            raise _explain(error, self._name, "written") from error
        except AssertionError as error:
            # aiokafka asserts its own states, and a producer that has failed meanwhile is in none that it expects.
            raise DoubtError("error", f"{self._name}: aiokafka: {error}") from error

    async def _write(self, outgoing: Sequence[Outgoing], position: int) -> None:
        producer = self._producer
        alone = self._refused.prepare(outgoing)
        await producer.begin_transaction()
        self._open = True
        waiting: list[asyncio.Future[Any]] = []
        sent: list[list[Outgoing]] = []
        self._keyless += 1
        for topic, number, queue in await by_partition(producer, outgoing, self._keyless):
            while queue:
                batch = producer.create_batch()
                sent.append([record for record, _ in fill_batch(batch, queue, alone)])
                waiting.append(await producer.send_batch(batch, topic, partition=number))
        outcomes = await _settled(producer, waiting)
        # Batches behind one that was too large fail with another error: the sequence has a gap.
        too_large = [
            (members, outcome)
            for members, outcome in zip(sent, outcomes, strict=True)
            if isinstance(outcome, TOO_LARGE)
        ]
        for members, outcome in too_large:
            self._refused.add(members, outcome)
        if too_large:
            topics = ", ".join(sorted({members[0].topic for members, _ in too_large}))
            message = f"{self._name}: {topics}: a batch is too large; it is written again in smaller parts"
            raise DoubtError("error", message)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        offsets = {self._partition: OffsetAndMetadata(position, "")}
        await producer.send_offsets_to_transaction(offsets, self._group)
        await producer.commit_transaction()
        self._open = False
        self._refused.forget(position)

    async def close(self) -> None:
        """Abort what is open and throw the producer away, each within ``delivery.stop_timeout_s``.

        Readers of committed records wait for a transaction that stays open; where the abort does not succeed, the
        next claim or the transaction's time-out ends it.
        """
        timeout_s = self._delivery.stop_timeout_s
        if self._open:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._producer.abort_transaction()
            except (KafkaError, OSError, TimeoutError, AssertionError):
                pass  # in no state to be aborted, or out of reach
        await discard_producer(self._producer, timeout_s=timeout_s)


async def _settled(producer: AIOKafkaProducer, waiting: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """Return the outcome of each batch of the open transaction.

    aiokafka sends no batch of a topic that the broker refuses to the transaction, and never ends its future. The error
    is on the transaction alone.

    Raises:
        KafkaError: the transaction has failed.
    """
    transaction = producer._txn_manager._transaction_waiter  # noqa: SLF001 - it has no public name
    batches = asyncio.gather(*waiting, return_exceptions=True)
    # Looked at, so that nobody logs its cancellation as lost.
    batches.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait([batches, transaction], return_when=asyncio.FIRST_COMPLETED)
        if not batches.done():
            transaction.result()
        return await batches
    finally:
        batches.cancel()


def _explain(error: BaseException, name: str, what: str) -> BrokerError:
    if isinstance(error, TimeoutError):
        return DoubtError("timeout", f"{name} could not be {what} in time")
    message = f"{name} could not be {what}: {explain_denial(error, group=name.split('/', 1)[0])}"
    if isinstance(error, ProducerFenced | InvalidProducerEpoch):
        return DoubtError("fenced", message)
    return BrokerError(message) if isinstance(error, _NEVER) else DoubtError("error", message)
