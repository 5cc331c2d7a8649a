"""Puts the registry's parts together by the settings; without ``registry.url`` there are none."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from stream_guard.kafka.source import KafkaSource
from stream_guard.records.post import PostParser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.records.post import Post
    from stream_guard.settings import Settings
    from stream_guard.stream.ports import Source
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["RecordParser", "make_source", "open_parser"]


def make_source(
    settings: Settings, metrics: Metrics, show: Callable[[Mapping[str, Any]], None]
) -> tuple[Source, PostParser]:
    """Return the source of records and the parser of their posts.

    Args:
        settings: all sections; ``kafka``, ``delivery``, ``post`` and ``registry`` are used.
        metrics: counts requests to the registry.
        show: called with the registry's state whenever it changes.

    Raises:
        SettingsError: the extra ``registry`` is not installed, or a file of TLS cannot be used.
    """
    also = [settings.kafka.decision_topic] if settings.decisions.enabled else []
    side = settings.side_topics
    source = KafkaSource(settings.kafka, settings.delivery, metrics, [*also, *side.read], side)
    if settings.registry.url is None:
        return source, PostParser(settings.post)
    from stream_guard.kafka.registry.schemas import Schemas
    from stream_guard.kafka.registry.source import SchemaSource

    schemas = Schemas(settings.registry, metrics=metrics, show=show)
    return SchemaSource(source, schemas), PostParser(settings.post, schemas.known)


class RecordParser:
    """Parses single records, and fetches their schemas before. For commands that read topics outside the service.

    Args:
        settings: all sections; ``post`` and ``registry`` are used.

    Attributes:
        posts: the parser; the schemas of a record must have been fetched by :meth:`prepare`.
    """

    def __init__(self, settings: Settings) -> None:
        self._schemas = None
        if settings.registry.url is not None:
            from stream_guard.kafka.registry.schemas import Schemas

            # A command ends, so all of its schemas may stay.
            registry = settings.registry.model_copy(update={"schemas_max": sys.maxsize})
            self._schemas = Schemas(registry)
        known = None if self._schemas is None else self._schemas.known
        self.posts = PostParser(settings.post, known)

    async def prepare(self, records: Sequence[Record]) -> None:
        """Fetch the schemas of records. Raises RegistryError."""
        if self._schemas is not None:
            await self._schemas.prepare(records)

    async def parse(self, record: Record) -> tuple[Post, Any]:
        """Return a record's post and document; raises as :meth:`.PostParser.parse_document`, and RegistryError."""
        await self.prepare([record])
        return self.posts.of_topic(record.topic).parse_document(record.value, record.headers)

    async def close(self) -> None:
        """Close the connection to the registry."""
        if self._schemas is not None:
            await self._schemas.close()


@asynccontextmanager
async def open_parser(settings: Settings) -> AsyncIterator[RecordParser]:
    """Open a parser of single records, and close it at the end."""
    parser = RecordParser(settings)
    try:
        yield parser
    finally:
        await parser.close()
