"""Checks whether a broker is ready, and creates topics on it.

A broker's port is open some time before it answers, and it answers some time before consumer groups work. It is
ready once both work.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from stream_guard.core.errors import BrokerError, named
from stream_guard.core.kafka_clients import start_client, stop_client

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

_GROUP = "stream-guard-readiness-probe"
_RETRY_S = 0.1
_REQUEST_TIMEOUT_MS = 5_000
_TOPIC_ALREADY_EXISTS = 36
_REPLICAS_MAX = 3


def wait_for(work: Coroutine[object, object, None], *, timeout_s: float) -> None:
    """Run a coroutine on its own loop and thread, so that any caller may block.

    Raises:
        BrokerError: it raised that, or took longer than ``timeout_s``.
    """

    async def bounded() -> None:
        async with asyncio.timeout(timeout_s):
            await work

    # aiokafka logs each refused connection as an error; here they are expected.
    log = logging.getLogger("aiokafka")
    level = log.level
    log.setLevel(logging.CRITICAL)
    with ThreadPoolExecutor(1, thread_name_prefix="broker-probe") as thread:
        try:
            thread.submit(asyncio.run, bounded()).result()
        except TimeoutError as error:
            message = f"no answer within {timeout_s:g} s"
            raise BrokerError(message) from error
        finally:
            log.setLevel(level)


def wait_until_ready(bootstrap_servers: str, *, brokers: int, timeout_s: float) -> None:
    """Return once that many brokers are in the cluster and consumer groups work.

    Raises:
        BrokerError: not within ``timeout_s``; the message names the last missing part.
    """
    last = ["nothing listens there"]

    async def poll() -> None:
        while True:
            try:
                missing = await _missing(bootstrap_servers, brokers)
            except (KafkaError, OSError, TimeoutError, ValueError) as error:
                missing = named(error)
            if not missing:
                return
            last[0] = missing
            await asyncio.sleep(_RETRY_S)

    try:
        wait_for(poll(), timeout_s=timeout_s)
    except BrokerError as error:
        message = f"{error} (last: {last[0]})"
        raise BrokerError(message) from error


async def _missing(bootstrap_servers: str, brokers: int) -> str:
    """Say what is still missing; empty when nothing is."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers, request_timeout_ms=_REQUEST_TIMEOUT_MS
    )
    try:
        await start_client(admin)
        seen = len((await admin.describe_cluster())["brokers"])
        if seen < brokers:
            return f"{seen} of {brokers} brokers are up"
        # Makes the broker create and load the offsets topic, which its first group would wait for.
        await admin.list_consumer_group_offsets(_GROUP)
    finally:
        await stop_client(admin)
    return ""


async def create_topics(
    bootstrap_servers: str,
    names: Iterable[str],
    *,
    partitions: int = 1,
    configs: Mapping[str, str] | None = None,
) -> None:
    """Create topics, with 3 replicas if there are 3 brokers, and wait until every broker names their leaders.

    Retries without end while a broker is down; limit it with a timeout.

    Raises:
        BrokerError: the broker refused one of them.
    """
    wanted = list(names)
    while True:
        admin = AIOKafkaAdminClient(
            bootstrap_servers=bootstrap_servers, request_timeout_ms=_REQUEST_TIMEOUT_MS
        )
        try:
            await start_client(admin)
            await _create(admin, wanted, partitions, dict(configs or {}))
            if await _known_everywhere(admin, wanted):
                return
        except (KafkaError, OSError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                message = f"topics could not be created: {named(error)}"
                raise BrokerError(message) from error
        finally:
            await stop_client(admin)
        await asyncio.sleep(_RETRY_S)


async def _create(
    admin: AIOKafkaAdminClient, names: list[str], partitions: int, configs: dict[str, str]
) -> None:
    # aiokafka cannot ask for the broker's default replication.
    replicas = min(_REPLICAS_MAX, len((await admin.describe_cluster())["brokers"]))
    response = await admin.create_topics(
        [
            NewTopic(
                name=name,
                num_partitions=partitions,
                replication_factor=replicas,
                topic_configs=configs,
            )
            for name in names
        ]
    )
    for name, code, *details in response.topic_errors:
        error = for_code(code)
        if code in (0, _TOPIC_ALREADY_EXISTS) or error.retriable:
            continue
        reason = next((str(detail) for detail in details if detail), "")
        message = f"topic {name!r} was refused: {error.__name__} {reason}".rstrip()
        raise BrokerError(message)


async def _known_everywhere(admin: AIOKafkaAdminClient, names: list[str]) -> bool:
    """Say whether every broker names the leaders: one that follows late says that there is no such topic."""
    request = MetadataRequest(names, allow_auto_topic_creation=False)
    for broker in (await admin.describe_cluster())["brokers"]:
        # aiokafka's own question goes to any broker.
        answer = await admin._send_request(request, broker["node_id"])  # noqa: SLF001
        if not _have_leaders(answer.to_object()["topics"]):
            return False
    return True


def _have_leaders(topics: Iterable[Mapping[str, object]]) -> bool:
    for topic in topics:
        partitions = topic["partitions"]
        if topic["error_code"] or not isinstance(partitions, list) or not partitions:
            return False
        if any(partition["error_code"] or partition["leader"] < 0 for partition in partitions):
            return False
    return True
