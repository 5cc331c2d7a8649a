"""Reads what Stream Guard wrote to its topics, also in Avro: for commands, outside the service.

Without ``registry.url``, JSON is read as ever, and a record in Avro is an error that names the setting.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_guard.core.errors import SettingsError
from stream_guard.records.decoding.frame import find_frame, key_name
from stream_guard.records.verdict_event import decode_verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from stream_guard.core.errors import SchemaError
    from stream_guard.kafka.registry.schemas import Schemas
    from stream_guard.records.decoding.schema import Schema
    from stream_guard.settings import Settings

__all__ = ["OutputSchemas", "VerdictReader", "open_verdicts"]


class _Value(NamedTuple):
    """The parts of a record that name its schema."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class OutputSchemas:
    """The schemas of verdicts and dead letters, fetched when they are needed.

    Args:
        settings: all sections; ``registry`` is used.
    """

    def __init__(self, settings: Settings) -> None:
        self._schemas: Schemas | None = None
        self._settings = settings.registry

    @property
    def known(self) -> Mapping[bytes, Schema | SchemaError]:
        """The fetched schemas, by id."""
        return {} if self._schemas is None else self._schemas.known

    async def prepare(self, value: bytes | None, what: str) -> None:
        """Fetch the schema that a value names, if it names one.

        Args:
            value: the record's value.
            what: names the record in an error.

        Raises:
            SettingsError: ``registry.url`` is not set.
            RegistryError: the registry is unreachable, or refused the request.
        """
        found = find_frame(value or b"", ())
        if value is None or found is None or found[0] in self.known:
            return
        if self._settings.url is None:
            message = (
                f"{what} is Avro with {key_name(found[0])}; set registry.url (STREAM_GUARD_REGISTRY__URL) to the "
                "registry that has this schema"
            )
            raise SettingsError(message)
        if self._schemas is None:
            # One module of these libraries is optional.
            from stream_guard.kafka.registry.schemas import Schemas

            # A command ends, so all of its schemas may stay.
            registry = self._settings.model_copy(update={"schemas_max": sys.maxsize})
            self._schemas = Schemas(registry, keep_bytes=True)
        await self._schemas.prepare([_Value(value)])

    async def close(self) -> None:
        """Close the connection to the registry."""
        if self._schemas is not None:
            await self._schemas.close()


class VerdictReader:
    """Reads verdicts in each form.

    Args:
        settings: all sections; ``registry`` is used.
    """

    def __init__(self, settings: Settings) -> None:
        self._schemas = OutputSchemas(settings)

    @property
    def schemas(self) -> Mapping[bytes, Schema | SchemaError]:
        """The fetched schemas, for :func:`.decode_verdict`."""
        return self._schemas.known

    async def prepare(self, value: bytes | None) -> None:
        """Fetch the schema that a value needs, if it needs one; raises as :meth:`read`."""
        await self._schemas.prepare(value, "a verdict")

    async def read(self, value: bytes | None) -> Any:  # noqa: ANN401 - any JSON value
        """Return the document in a value of a verdict topic.

        Raises:
            orjson.JSONDecodeError: the value is not JSON.
            RecordError: the value is Avro that cannot be decoded.
            SettingsError: the value is Avro, and ``registry.url`` is not set.
            RegistryError: the registry is unreachable, or refused the request.
        """
        await self.prepare(value)
        return decode_verdict(value or b"", self._schemas.known)

    async def close(self) -> None:
        """Close the connection to the registry."""
        await self._schemas.close()


@asynccontextmanager
async def open_verdicts(settings: Settings) -> AsyncIterator[VerdictReader]:
    """Open a reader of verdicts, and close it at the end."""
    reader = VerdictReader(settings)
    try:
        yield reader
    finally:
        await reader.close()
