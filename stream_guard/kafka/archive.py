"""Keeps the archive of policies in a compacted topic, so that it outlives every pod.

A record's key is the entry's name, which holds the digest of its value. A key is only written again with the same
value, so compaction loses nothing. A topic that deletes old records is rejected.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import stamina
import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)
from stamina.instrumentation import set_on_retry_hooks

from stream_guard.core.errors import BrokerError, EvidenceError, PolicyError, SettingsError, named
from stream_guard.core.kafka_clients import start_client, stop_client
from stream_guard.judging.archive.archive import FolderArchive, Kept, Note
from stream_guard.judging.archive.entry import EntryName
from stream_guard.kafka.batches import FATAL, discard_producer, make_producer, start_producer
from stream_guard.kafka.input_topics import existing_topics
from stream_guard.kafka.ranges import RangeReader
from stream_guard.kafka.security import connection_options
from stream_guard.settings import env_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.judging.archive.archive import PolicyArchive
    from stream_guard.settings import DeliverySettings, KafkaSettings, Settings

_log = structlog.get_logger(__name__)
RECORD_BYTES_MAX: Final = 8 << 20
"""``max.message.bytes`` of a created topic: room for a policy's text, rules and messages, as base64."""
_REPLICAS_MAX: Final = 3
# The log says what failed; stamina's own hooks would also count it in the process's default registry.
set_on_retry_hooks(())


class _AwayError(Exception):
    """The broker does not answer; a retry may succeed."""


class TopicArchive:
    """A :class:`~PolicyArchive` in ``kafka.archive_topic``, which is created if it is missing."""

    def __init__(self, settings: KafkaSettings, delivery: DeliverySettings) -> None:
        self._settings = settings
        self._delivery = delivery
        self._topic = settings.archive_topic
        self._checked = False

    async def keep(self, entries: Mapping[EntryName, bytes]) -> None:
        """See :meth:`PolicyArchive.keep`; retried until ``delivery.publish_timeout_s``."""
        await self._write({str(name): content for name, content in entries.items()})

    async def add_note(self, key: str, content: bytes) -> None:
        """See :meth:`PolicyArchive.add_note`."""
        await self._write({key: content})

    async def _write(self, entries: Mapping[str, bytes]) -> None:
        try:
            # stamina's own timeout would not interrupt a try that hangs.
            async with asyncio.timeout(self._delivery.publish_timeout_s):
                async for attempt in stamina.retry_context(
                    on=_AwayError, attempts=None, timeout=None, wait_initial=0.5
                ):
                    with attempt:
                        await self._try(entries)
        except TimeoutError as error:
            message = (
                f"policies could not be archived in {self._topic!r} (kafka.archive_topic) for "
                f"{self._delivery.publish_timeout_s:g} s (delivery.publish_timeout_s)"
            )
            raise BrokerError(message) from error

    async def _try(self, entries: Mapping[str, bytes]) -> None:
        try:
            if not self._checked:
                await ensure_compacted(self._settings, self._topic)
                self._checked = True
            await self._send(entries)
        except MessageSizeTooLargeError as error:
            largest = max(map(len, entries.values()))
            message = (
                f"{self._topic!r} (kafka.archive_topic) rejects a policy's entry of {largest:,} bytes; raise its "
                'max.message.bytes, or set policies.archive to "folder"'
            )
            raise PolicyError(message) from error
        except (KafkaError, OSError, TimeoutError) as error:
            if isinstance(error, FATAL):
                message = f"{self._topic!r} (kafka.archive_topic) cannot be written: {named(error)}"
                raise BrokerError(message) from error
            _log.warning("archive_failed", error=type(error).__name__)
            raise _AwayError from error

    async def _send(self, entries: Mapping[str, bytes]) -> None:
        producer = make_producer(self._settings, request_bytes_max=2 * RECORD_BYTES_MAX)
        await start_producer(producer, self._settings)
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1_000):
                for name, content in entries.items():
                    await producer.send_and_wait(self._topic, content, key=name.encode())
        finally:
            await discard_producer(producer, timeout_s=self._delivery.stop_timeout_s)

    async def load(self, wanted: frozenset[str] | None = None) -> list[Kept]:
        """See :meth:`PolicyArchive.load`; of a key, the latest value counts."""
        if self._topic not in await existing_topics(self._settings):
            message = (
                f"{self._topic!r} (kafka.archive_topic) does not exist on {self._settings.bootstrap_servers}; set it "
                "to the topic that the service writes"
            )
            raise EvidenceError(message)
        kept: dict[EntryName, Kept] = {}
        async with RangeReader(self._settings) as reader:
            async for record in reader.read(await reader.whole(self._topic)):
                name = EntryName.parse((record.key or b"").decode("utf-8", "replace"))
                if name is None or (wanted is not None and name.policy_sha256 not in wanted):
                    continue
                if record.value is None:
                    kept.pop(name, None)
                    continue
                where = f"{self._topic}/{record.partition}/{record.offset}"
                kept[name] = Kept(name, record.value, where)
        return list(kept.values())

    async def notes(self, prefix: str) -> list[Note]:
        """See :meth:`PolicyArchive.notes`; of a key, the latest value counts."""
        if self._topic not in await existing_topics(self._settings):
            return []
        found: dict[str, Note] = {}
        async with RangeReader(self._settings) as reader:
            async for record in reader.read(await reader.whole(self._topic)):
                key = (record.key or b"").decode("utf-8", "replace")
                if key.startswith(prefix) and record.value is not None:
                    where = f"{self._topic}/{record.partition}/{record.offset}"
                    found[key] = Note(key, record.value, where)
        return list(found.values())


class CompactedTopic(NamedTuple):
    """A topic that has to be compacted.

    Attributes:
        setting: of the section ``kafka``, which names the topic.
        partitions: of a new topic.
        lost: what would be deleted if it were not compacted.
        otherwise: what to do instead of creating it.
    """

    setting: str
    partitions: int
    lost: str
    otherwise: str

    @property
    def name(self) -> str:
        """The setting's name, and its environment variable."""
        return f"kafka.{self.setting} ({env_name('kafka', self.setting)})"


ARCHIVE: Final = CompactedTopic(
    "archive_topic", 1, "old policies", 'set policies.archive to "folder" or "off"'
)
DECISIONS: Final = CompactedTopic(
    "decision_topic", 6, "people's decisions", "set decisions.enabled to false"
)


async def ensure_compacted(
    settings: KafkaSettings, topic: str, kind: CompactedTopic = ARCHIVE
) -> None:
    """Create a compacted topic, or check that an existing one is compacted.

    Args:
        settings: the broker.
        topic: its name.
        kind: for messages, and for a new topic.

    Raises:
        SettingsError: it exists and deletes old records.
        BrokerError: it cannot be created.
        KafkaError, OSError, TimeoutError: the broker does not answer.
    """
    admin = AIOKafkaAdminClient(**connection_options(settings))
    try:
        async with asyncio.timeout(settings.request_timeout_ms / 1_000):
            await start_client(admin)
            if topic not in await admin.list_topics():
                await _make(admin, settings, topic, kind)
            found = await topic_configs(admin, topic, ("cleanup.policy",))
            policy = found.get("cleanup.policy")
    finally:
        await stop_client(admin)
    if policy is None:
        _log.warning("archive_topic_not_checked", topic=topic, setting=kind.setting)
    elif policy.strip() != "compact":
        message = (
            f"{kind.name}: {topic!r} has cleanup.policy={policy}, so {kind.lost} would be deleted; set it to compact: "
            f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=compact"
        )
        raise SettingsError(message)


async def _make(
    admin: AIOKafkaAdminClient, settings: KafkaSettings, topic: str, kind: CompactedTopic
) -> None:
    brokers = len((await admin.describe_cluster())["brokers"])
    configs = {"cleanup.policy": "compact", "max.message.bytes": str(RECORD_BYTES_MAX)}
    if kind is DECISIONS:
        # A decision that is written late is restated before compaction can drop the standing one.
        configs = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(7 * 86_400_000)}
    new = NewTopic(topic, kind.partitions, min(brokers, _REPLICAS_MAX), topic_configs=configs)
    made = await admin.create_topics([new])
    for _, code, *_ in made.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError or not code:
            continue
        hidden = error is TopicAuthorizationFailedError
        message = (
            f"{kind.name}: {topic!r} does not exist"
            f"{' for this user' if hidden else ''} and could not be made ({error.__name__}); create it: kafka-topics.sh"
            f" --create --topic {topic} --config cleanup.policy=compact --bootstrap-server {settings.bootstrap_servers}"
            f"{', and grant Write' if hidden else ''}; or {kind.otherwise}"
        )
        raise BrokerError(message)
    _log.info("archive_topic_made", topic=topic, setting=kind.setting)


async def topic_configs(
    admin: AIOKafkaAdminClient, topic: str, names: Sequence[str]
) -> dict[str, str]:
    """Return settings of a topic by Kafka's names; empty if this client may not read them."""
    wanted = ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict.fromkeys(names))
    return {
        config[0]: str(config[1])
        for answer in await admin.describe_configs([wanted])
        for resource in answer.resources
        for config in resource[-1]
        if config[0] in names
    }


def make_archive(settings: Settings) -> PolicyArchive | None:
    """Return the archive of the settings, or None if it is off."""
    where = settings.policies.archive
    if where == "off":
        return None
    if where == "folder":
        path = settings.policies.archive_path
        assert path is not None, "checked by the settings"
        return FolderArchive(path)
    return TopicArchive(settings.kafka, settings.delivery)


def require_archive(settings: Settings) -> PolicyArchive:
    """Return the archive of the settings. Raises SettingsError if it is off."""
    archive = make_archive(settings)
    if archive is None:
        message = (
            "policies.archive (STREAM_GUARD_POLICIES__ARCHIVE) is off, so no archive has the policies; "
            "set it to the service's value: topic or folder"
        )
        raise SettingsError(message)
    return archive
