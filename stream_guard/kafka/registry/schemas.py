"""The schemas in memory: each is fetched once, compiled in a thread, and kept until newer ones need its place.

A registry that is down is asked again, with growing pauses, until it answers. An unknown id is kept as an error for a
while, and then asked for again, because a schema can be registered later.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from stream_guard.core.backoff import pause_s
from stream_guard.core.errors import RegistryError, SchemaError, SettingsError
from stream_guard.kafka.registry.client import RegistryClient
from stream_guard.records.decoding.frame import find_frame, key_name
from stream_guard.records.decoding.json_schema import JsonSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.records.decoding.frame import SchemaKey
    from stream_guard.records.decoding.schema import Schema
    from stream_guard.settings import RegistrySettings
    from stream_guard.telemetry.metrics import Metrics

__all__ = ["Framed", "Schemas", "require_libraries"]

_log = structlog.get_logger(__name__)
_UNKNOWN_S: Final = 30.0
"""How long an unknown id is not asked for again."""
_REFERENCES_MAX: Final = 200
_SAY_EVERY_S: Final = 30.0


class Framed(Protocol):
    """The parts of a record that name its schema."""

    @property
    def value(self) -> bytes | None:
        """The value."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """The headers."""


def require_libraries() -> None:
    """Import what decodes schemas.

    Raises:
        SettingsError: the extra is not installed.
    """
    try:
        import fastavro  # noqa: F401 - only whether it is there
        import google.protobuf.message_factory  # noqa: F401 - the same
    except ImportError as error:
        message = (
            f"registry.url is set, but {error.name} is not installed; install the extra: "
            "pip install 'stream-guard[registry]'"
        )
        raise SettingsError(message) from error


class Schemas:
    """Fetches schemas and keeps them.

    Args:
        settings: the section; ``url`` is set.
        metrics: counts requests; None for none.
        show: called with the state for ``/healthz`` whenever it changes.
        keep_bytes: whether bytes of Avro stay bytes.

    Attributes:
        known: schemas by id or GUID, or why one cannot be used.
        changed: set whenever a schema has come; a caller that waits clears it first.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        metrics: Metrics | None = None,
        show: Callable[[Mapping[str, Any]], None] = lambda _state: None,
        keep_bytes: bool = False,
    ) -> None:
        require_libraries()
        self._keep_bytes = keep_bytes
        self._settings = settings
        self._metrics = metrics
        self._show = show
        self._client = RegistryClient(settings)
        self._entered = False
        self._fetching: dict[SchemaKey, asyncio.Task[None]] = {}
        self._again_s: dict[SchemaKey, float] = {}
        self._said_s = float("-inf")
        self._fault: str | None = None
        self._waiting: tuple[str, ...] = ()
        self.known: dict[SchemaKey, Schema | SchemaError] = {}
        self.changed = asyncio.Event()
        self._report()

    def first_unknown(self, records: Sequence[Framed]) -> int | None:
        """Return the index of the first record whose schema is not in memory; None where there is none."""
        known = self.known
        for index, record in enumerate(records):
            if record.value is None:
                continue
            try:
                found = find_frame(record.value, record.headers)
            except SchemaError:
                continue  # parsing the record says so
            if found is not None and found[0] not in known:
                return index
        return None

    def request(self, records: Iterable[Record]) -> None:
        """Begin to fetch every schema that these records name and that is not in memory."""
        now_s = time.monotonic()
        for record in records:
            try:
                found = None if record.value is None else find_frame(record.value, record.headers)
            except SchemaError:
                continue
            if found is None or found[0] in self._fetching:
                continue
            key = found[0]
            if key in self.known and now_s < self._again_s.get(key, now_s + 1):
                continue
            self._fetching[key] = asyncio.create_task(self._fetch(key), name="schema")

    async def prepare(self, records: Sequence[Framed]) -> None:
        """Return once every schema that these records name is in memory, or is known to be missing.

        Raises:
            RegistryError: the registry is unreachable, or refused a request.
        """
        while (index := self.first_unknown(records)) is not None:
            found = find_frame(records[index].value or b"", records[index].headers)
            assert found is not None, "it names a schema"
            self._keep(found[0], await self._try(found[0]))

    def show_waiting(self, partitions: Iterable[str]) -> None:
        """Show which partitions wait for a schema."""
        waiting = tuple(sorted(partitions))
        if waiting == self._waiting:
            return
        self._waiting = waiting
        if self._metrics is not None:
            self._metrics.registry_waiting.set(len(waiting))
        self._report()

    async def close(self) -> None:
        """Stop fetching."""
        tasks = [*self._fetching.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._client.__aexit__()

    async def _fetch(self, key: SchemaKey) -> None:
        failures = 0
        while True:
            try:
                schema = await self._try(key)
                break
            except (RegistryError, SettingsError) as error:
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - a partition must not wait for a task that has ended
                _log.exception("schema_failed", schema=key_name(key))
                schema = SchemaError(f"{key_name(key)} cannot be used: {type(error).__name__}")
                break
            await asyncio.sleep(pause_s(failures))
            failures += 1
        del self._fetching[key]
        self._keep(key, schema)
        self.changed.set()

    async def _try(self, key: SchemaKey) -> Schema | SchemaError:
        """Fetch and compile a schema once; return an error where it is unknown, or cannot be used."""
        if not self._entered:
            self._entered = True
            await self._client.__aenter__()
        name = key_name(key)
        try:
            schema = await self._load(key)
        except SchemaError as error:
            self._count("unknown")
            where = ", ".join(self._settings.urls)
            answer: Schema | SchemaError = SchemaError(
                f"{name} from the registry at {where}: {error}"
            )
        except RegistryError:
            self._count("failed")
            raise
        else:
            self._count("ok")
            answer = schema
        if self._fault is not None:
            self._fault = None
            _log.info("registry_answers", url=self._settings.urls)
        return answer

    async def _load(self, key: SchemaKey) -> Schema:
        guid = len(key) > 4  # noqa: PLR2004 - bytes of an id
        path = (
            f"schemas/guids/{uuid.UUID(bytes=key)}"
            if guid
            else f"schemas/ids/{int.from_bytes(key)}"
        )
        found = await self._client.schema(path)
        kind = found.get("schemaType") or "AVRO"
        if kind == "JSON":
            return JsonSchema()
        if kind == "AVRO":
            references = await self._references(found, "")
            return await asyncio.to_thread(self._avro, found["schema"], references)
        if kind == "PROTOBUF":
            # Text would need a compiler of .proto files.
            found = await self._client.schema(f"{path}?format=serialized")
            references = await self._references(found, "?format=serialized")
            return await asyncio.to_thread(self._protobuf, found["schema"], references)
        message = f"its type {str(kind)[:40]!r} is none of AVRO, PROTOBUF and JSON"
        raise SchemaError(message)

    def _avro(self, schema: str, references: Sequence[tuple[str, str]]) -> Schema:
        from stream_guard.records.decoding.avro import AvroSchema

        try:
            texts = [json.loads(text) for _, text in references]
            return AvroSchema(_avro_document(schema), texts, keep_bytes=self._keep_bytes)
        except (ValueError, RecursionError):
            raise SchemaError("its text is not JSON") from None

    def _protobuf(self, schema: str, references: Sequence[tuple[str, str]]) -> Schema:
        from stream_guard.records.decoding.protobuf import ProtobufSchema

        try:
            files = [(name, base64.b64decode(text, validate=True)) for name, text in references]
            return ProtobufSchema(base64.b64decode(schema, validate=True), files)
        except binascii.Error:
            raise SchemaError(
                "the registry does not return it as a descriptor (format=serialized); use a registry that does, such "
                "as Confluent's"
            ) from None

    async def _references(self, schema: Mapping[str, Any], options: str) -> list[tuple[str, str]]:
        """Return the name and text of each schema that this one refers to, each after its own references."""
        found: dict[str, str] = {}

        async def add(within: Mapping[str, Any], depth: int) -> None:
            for reference in within.get("references") or ():
                name = str(reference["name"])
                if name in found:
                    continue
                if depth > 20 or len(found) >= _REFERENCES_MAX:  # noqa: PLR2004 - deeper than any real schema
                    raise SchemaError("it has too many references")
                each = await self._client.version(
                    str(reference["subject"]), int(reference["version"]), options
                )
                await add(each, depth + 1)
                found[name] = each["schema"]

        try:
            await add(schema, 0)
        except (KeyError, TypeError, ValueError):
            raise SchemaError("its references are malformed") from None
        return [*found.items()]

    def _keep(self, key: SchemaKey, schema: Schema | SchemaError) -> None:
        self.known.pop(key, None)
        while len(self.known) >= self._settings.schemas_max:
            oldest = next(iter(self.known))
            del self.known[oldest]
            self._again_s.pop(oldest, None)
        self.known[key] = schema
        if isinstance(schema, SchemaError):
            self._again_s[key] = time.monotonic() + _UNKNOWN_S
        else:
            self._again_s.pop(key, None)
        self._report()

    def forget_errors(self) -> None:
        """Forget unknown ids that may be asked for again."""
        now_s = time.monotonic()
        for key in [key for key, at_s in self._again_s.items() if at_s <= now_s]:
            del self._again_s[key]
            self.known.pop(key, None)

    def _failed(self, error: Exception) -> None:
        fault, now_s = str(error), time.monotonic()
        if fault != self._fault or now_s - self._said_s >= _SAY_EVERY_S:
            self._said_s = now_s
            _log.warning("registry_failed", error=fault, remedy="partitions with its schemas wait")
        self._fault = fault
        self._report()

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.registry_requests.labels(outcome).inc()

    def _report(self) -> None:
        self._show(
            {
                "url": list(self._settings.urls),
                "error": self._fault,
                "schemas": len(self.known),
                "waiting_partitions": list(self._waiting),
            }
        )


def _avro_document(schema: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return an Avro schema's document. Registries keep a primitive type as JSON text or as its bare name."""
    return schema if schema.isalpha() else json.loads(schema)
