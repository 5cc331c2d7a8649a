"""Records that were gone before the group read them are counted and named, and the rest is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata

from tests.integration.harness import Deployment, Running, deploy, post, produce, read, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker


async def commit(bootstrap: str, deployment: Deployment, position: int) -> None:
    """Commit a position of the service's group, before the service starts."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=f"group-{deployment.posts}", enable_auto_commit=False
    )
    await consumer.start()
    try:
        partition = TopicPartition(deployment.posts, 0)
        consumer.assign([partition])
        await consumer.commit({partition: OffsetAndMetadata(position, "")})
    finally:
        await consumer.stop()


async def delete_before(bootstrap: str, topic: str, offset: int) -> None:
    """Delete a partition's first records, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(offset)})
    finally:
        await admin.close()


async def position_of(bootstrap: str, deployment: Deployment) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(f"group-{deployment.posts}")
        return int(found[TopicPartition(deployment.posts, 0)].offset)
    finally:
        await admin.close()


async def metrics_of(run: Running) -> str:
    port = run.wait_for("ready")["http_port"]
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        return await answer.text()


class Case(NamedTuple):
    """Of ten records the first are deleted, and a position is committed; what the service says and judges."""

    deleted: int
    committed: int
    cause: str
    count: int
    judged: int


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("case", [Case(7, 3, "retention", 4, 3), Case(0, 25, "past_end", 15, 10)])
async def test_a_position_out_of_the_log_is_told(
    mode: str,
    case: Case,
    broker: Broker,
    new_topic: Callable[..., str],
    tmp_path: Path,
) -> None:
    bootstrap = broker.bootstrap_servers
    deployment = deploy(bootstrap, new_topic, STREAM_GUARD_DELIVERY__MODE=mode)
    deployment.posts = new_topic("posts", partitions=1)
    await produce(bootstrap, deployment.posts, map(post, range(10)))
    await commit(bootstrap, deployment, case.committed)
    if case.deleted:
        await delete_before(bootstrap, deployment.posts, case.deleted)
    with running(deployment, tmp_path / "log.txt") as run:
        told = run.wait_for("records_expired")
        assert told["partition"] == f"{deployment.posts}/0"
        assert (told["cause"], told["records"]) == (case.cause, case.count)
        assert (told["position"], told["now"]) == (case.committed, case.deleted)
        assert told["level"] == "warning"
        await read(bootstrap, [deployment.verdicts], lambda records: len(records) >= case.judged)
        metrics = await metrics_of(run)
        wanted = (
            f'stream_guard_records_expired_total{{cause="{case.cause}",topic="{deployment.posts}"}}'
        )
        assert f"{wanted} {case.count}.0" in metrics.splitlines()
        # What comes next is judged from where the log is now, and committed.
        await produce(bootstrap, deployment.posts, map(post, range(10, 12)))
        await read(
            bootstrap, [deployment.verdicts], lambda records: len(records) >= case.judged + 2
        )
        assert run.end() == 0
    assert await position_of(bootstrap, deployment) == 12
