"""Three brokers, by the part that each plays: who leads, who coordinates, and whether all is whole again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, TypeVar

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest

from tests.soak import schedule
from tests.soak.members import now_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from stream_guard.testing import Broker
    from stream_guard.testing.broker.embedded import EmbeddedBroker

Answer = TypeVar("Answer")
LOOKUP_S: Final = 120.0
WHOLE_S: Final = 240.0
_RETRY_S: Final = 0.25
_HALT_S: Final = 90.0
_GROUP, _TRANSACTION = 0, 1
# Brokers stamp each record as they append it: the times that the checker compares are of one kind.
STAMPED: Final = {"message.timestamp.type": "LogAppendTime"}


class Cluster:
    """The brokers of one soak."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.bootstrap = broker.bootstrap_servers

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5_000)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    async def ask(
        self,
        question: Callable[[AIOKafkaAdminClient], Awaitable[Answer | None]],
        seconds: float = LOOKUP_S,
    ) -> Answer:
        """Return the first answer that is not None; ask again while brokers are away, until the deadline."""
        last: object = "no answer"
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        async with self._admin() as admin:
                            answer = await question(admin)
                        if answer is not None:
                            return answer
                    except (KafkaError, OSError, TimeoutError, ValueError) as error:
                        last = f"{type(error).__name__}: {error}"
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError:
            message = f"the brokers gave no answer within {seconds:g} s (last: {last})"
            raise TimeoutError(message) from None

    async def leader(self, topic: str, draw: float) -> tuple[int, int]:
        """Return a partition of a topic, and the broker that leads it."""

        async def question(admin: AIOKafkaAdminClient) -> tuple[int, int] | None:
            (about,) = await admin.describe_topics([topic])
            partitions = sorted(about["partitions"], key=lambda p: int(p["partition"]))
            chosen = partitions[int(draw * len(partitions))]
            return None if chosen["leader"] < 0 else (chosen["partition"], chosen["leader"])

        return await self.ask(question)

    async def coordinator(self, key: str, kind: int) -> int:
        """Return the broker that coordinates a group or a transactional id."""

        async def question(admin: AIOKafkaAdminClient) -> int:
            return int(await admin.find_coordinator(key, kind))

        return await self.ask(question)

    async def playing(
        self,
        role: str,
        draw: float,
        *,
        posts: str,
        verdicts: str,
        group: str,
        transactional_ids: Sequence[str],
    ) -> tuple[int, str]:
        """Return the broker that plays a role now, and a word on which it is."""
        if role == schedule.GROUP_COORDINATOR:
            return await self.coordinator(group, _GROUP), role
        if role == schedule.TRANSACTION_COORDINATOR:
            name = transactional_ids[int(draw * len(transactional_ids))]
            return await self.coordinator(name, _TRANSACTION), f"{role} of {name}"
        topic = posts if role == schedule.INPUT_LEADER else verdicts
        partition, node = await self.leader(topic, draw)
        return node, f"{role} of partition {partition}"

    async def whole(self, topics: Sequence[str]) -> None:
        """Return once every partition has a leader and all its replicas in sync: one more may then be lost."""

        async def question(admin: AIOKafkaAdminClient) -> bool | None:
            described = await admin.describe_topics([*topics, "__consumer_offsets"])
            partitions = [p for about in described for p in about["partitions"]]
            good = all(p["leader"] >= 0 and len(p["isr"]) == len(p["replicas"]) for p in partitions)
            return True if good and partitions else None

        await self.ask(question, WHOLE_S)

    async def committed(self, group: str, topic: str) -> Mapping[int, int]:
        """Return the group's positions by partition."""

        async def question(admin: AIOKafkaAdminClient) -> dict[int, int]:
            offsets = await admin.list_consumer_group_offsets(group)
            return {tp.partition: o.offset for tp, o in offsets.items() if tp.topic == topic}

        return await self.ask(question)

    async def kill(self, node: int) -> None:
        """End a broker by SIGKILL."""
        await asyncio.to_thread(self.broker.kill, node)

    async def stop(self, node: int) -> None:
        """End a broker by SIGTERM: it hands over first."""
        await asyncio.to_thread(self.broker.stop, node)

    async def restart(self, node: int) -> None:
        """Start a broker again."""
        await asyncio.to_thread(self.broker.restart, node)

    def freeze(self, node: int) -> psutil.Process:
        """Stop a broker's Java by SIGSTOP, and return it; its watchdog goes on, so it will not outlive us."""
        java = self._java(node)
        java.suspend()
        return java

    def _java(self, node: int) -> psutil.Process:
        embedded: EmbeddedBroker = self.broker  # type: ignore[assignment] # several brokers always are
        watchdog = embedded._nodes[node]._process
        assert watchdog is not None, "the broker runs"
        (java,) = psutil.Process(watchdog.pid).children()
        return java

    async def fill_disk(self, node: int) -> None:
        """Let no file of a broker grow, and return once it has halted.

        Its every write then fails as it does on a full disk (EFBIG in the place of ENOSPC).

        Raises:
            TimeoutError: it went on.
        """
        java = self._java(node)
        _, hard = java.rlimit(psutil.RLIMIT_FSIZE)
        java.rlimit(psutil.RLIMIT_FSIZE, (1, hard))
        await asyncio.to_thread(java.wait, _HALT_S)

    async def replicas(self, topic: str, partition: int) -> list[int]:
        """Return the brokers that hold a partition."""

        async def question(admin: AIOKafkaAdminClient) -> list[int]:
            (about,) = await admin.describe_topics([topic])
            (found,) = (p for p in about["partitions"] if p["partition"] == partition)
            return [int(node) for node in found["replicas"]]

        return await self.ask(question)

    async def assign(self, topic: str, partition: int, nodes: Sequence[int]) -> None:
        """Have a partition held by these brokers, and return once it is.

        Kafka asks no more replicas of a partition to be in sync than it has.
        """

        async def move(admin: AIOKafkaAdminClient) -> bool:
            request = AlterPartitionReassignmentsRequest(
                5_000, [(topic, [(partition, list(nodes), {})], {})], {}
            )
            answer = await admin._send_to_controller(request)
            codes = [answer.error_code, *(p[1] for t in answer.responses for p in t[1])]
            if any(codes):
                message = f"the reassignment was refused: {codes}"
                raise ValueError(message)
            return True

        async def moved(admin: AIOKafkaAdminClient) -> bool | None:
            (about,) = await admin.describe_topics([topic])
            (found,) = (p for p in about["partitions"] if p["partition"] == partition)
            good = sorted(found["replicas"]) == sorted(found["isr"]) == sorted(nodes)
            return True if good and found["leader"] in nodes else None

        await self.ask(move)
        await self.ask(moved, WHOLE_S)

    async def delete_records(self, topic: str, partition: int, before: int) -> int:
        """Delete the records before an offset, as retention does; return when that was begun, in ms."""
        begun_ms = now_ms()

        async def delete(admin: AIOKafkaAdminClient) -> bool:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)})
            return True

        await self.ask(delete)
        return begun_ms


async def mark_end(bootstrap: str, group: str, topic: str, marker: str) -> None:
    """Commit position 0 of the topic with metadata that ends the group's log; nobody may be a member now."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False
    )
    consumer.assign([TopicPartition(topic, 0)])
    await consumer.start()
    try:
        await consumer.commit({TopicPartition(topic, 0): (0, marker)})
    finally:
        await consumer.stop()
