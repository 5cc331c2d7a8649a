"""Which topics there are, and which of them are read; a start waits for brokers that are away."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stream_guard.core.backoff import pause_s
from stream_guard.core.errors import BrokerAwayError, BrokerError, SettingsError
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.kafka.connection_failure import unusable
from stream_guard.kafka.permissions import explain_missing
from stream_guard.kafka.protocol_errors import may_pass
from stream_guard.kafka.security import connection_options
from stream_guard.settings import SideTopics

if TYPE_CHECKING:
    from stream_guard.settings import KafkaSettings

_log = structlog.get_logger(__name__)
NO_SIDE_TOPICS: Final = SideTopics()


async def existing_topics(settings: KafkaSettings, timeout_s: float = 30) -> set[str]:
    """Return the names of the broker's topics.

    Raises:
        BrokerAwayError: it does not answer, or not for a reason that is certain.
        BrokerError: it refuses us.
    """
    options = connection_options(settings)
    try:
        admin = AIOKafkaAdminClient(**options)
        try:
            async with asyncio.timeout(timeout_s):
                await start_client(admin)
                return await _list_topics(admin, settings.retry_backoff_ms / 1_000)
        finally:
            await stop_client(admin)
    except (KafkaError, OSError, TimeoutError) as error:
        raise await unusable(settings, options, error) from error


async def _list_topics(admin: AIOKafkaAdminClient, backoff_s: float) -> set[str]:
    """Ask until a broker answers: the client asks any of them, and one that has just died is named for some time."""
    while True:
        try:
            return set(await admin.list_topics())
        except KafkaError as error:
            if not may_pass(error):
                raise
            await asyncio.sleep(backoff_s)


async def check_topics(settings: KafkaSettings, side: SideTopics = NO_SIDE_TOPICS) -> set[str]:
    """Return the topics of posts that would be read now.

    Args:
        settings: of the connection and the topics.
        side: topics that other sections name; they must exist, and no pattern catches them.

    Raises:
        SettingsError: neither topics nor a pattern is set, or the pattern is malformed.
        BrokerAwayError: the broker cannot be reached.
        BrokerError: it refuses us, or a topic that is named does not exist.
    """
    if not settings.topics and not settings.topic_pattern and not side.read:
        message = (
            "kafka.topics (STREAM_GUARD_KAFKA__TOPICS) is empty: name the topics to read, for example "
            """'["posts"]', or set kafka.topic_pattern"""
        )
        raise SettingsError(message)
    pattern = None
    if settings.topic_pattern:
        try:
            pattern = re.compile(settings.topic_pattern)
        except re.error as error:
            message = (
                f"kafka.topic_pattern: not a regular expression: {error}; for example posts\\..*"
            )
            raise SettingsError(message) from error
    there = await existing_topics(settings)
    needed = [*settings.topics, *settings.written_topics, *side.all]
    missing = [topic for topic in needed if topic not in there]
    if missing:
        raise BrokerError(await explain_missing(settings, missing))
    if pattern is not None:
        ours = {*settings.own_topics, *side.all}
        return {topic for topic in there if pattern.match(topic) and topic not in ours}
    return set(settings.topics)


async def wait_for_topics(
    settings: KafkaSettings, patience_s: float, side: SideTopics = NO_SIDE_TOPICS
) -> set[str]:
    """Return the topics that would be read now, once a broker answers.

    A rolling update of brokers, or a cut, is no reason to end a start: the next one would come later. What a broker
    refuses ends it at once.

    Args:
        settings: of the connection and the topics.
        patience_s: how long no broker may answer, in s (``delivery.publish_timeout_s``).
        side: topics that other sections name; see :func:`check_topics`.

    Raises:
        SettingsError: see :func:`check_topics`.
        BrokerError: see :func:`check_topics`; the last one of the time.
    """
    until_s = time.monotonic() + patience_s
    failures = 0
    while True:
        try:
            return await check_topics(settings, side)
        except BrokerAwayError as error:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise
            _log.warning("brokers_away", error=str(error), waits_s=round(left_s, 1))
            await asyncio.sleep(min(left_s, pause_s(failures)))
            failures += 1
