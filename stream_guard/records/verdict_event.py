"""Encodes verdicts: ids, JSON and CloudEvents headers; decodes JSON and Avro. Pure."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias
from urllib.parse import quote

import orjson

from stream_guard.core.errors import DecodeError, SchemaError
from stream_guard.records.avro_contract import VERDICT, contract_of, restored
from stream_guard.records.contracts import writer_schema
from stream_guard.records.decoding.frame import find_frame, key_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.records.decoding.schema import Schemas

SCHEMA_VERSION: Final = "1.1"


EVENT_TYPE: Final = "stream_guard.verdict.v1"


DATA_SCHEMA: Final = "urn:stream-guard:schema:verdict:1.1"


_EVENT_HEADERS: Final = (
    ("ce_specversion", b"1.0"),
    ("ce_type", EVENT_TYPE.encode()),
    ("ce_dataschema", DATA_SCHEMA.encode()),
)
_BINARY_HEADERS: Final = (("content-type", b"application/json"), *_EVENT_HEADERS)
# The content type of the example in the Kafka protocol binding, section 3.2.5. The value has the registry's frame.
_AVRO_HEADERS: Final = (("content-type", b"application/avro"), *_EVENT_HEADERS)


TOO_LARGE_FOR_TOPIC: Final = "too_large_for_topic"
"""In ``provenance.degraded`` of a verdict that was cut because its topic refused it."""


STRUCTURED_CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"


EventMode: TypeAlias = Literal["binary", "structured"]


Headers = list[tuple[str, bytes]]


_FRAMED: Final = (b"\x00", b"\x01")
_DEPTH_MAX: Final = 64


class VerdictWriter(Protocol):
    """Writes a verdict's value in another form than JSON."""

    def encode(self, document: Mapping[str, Any]) -> bytes:
        """Return the value."""


def verdict_id(topic: str, partition: int, offset: int, policy_id: str, policy_sha256: str) -> str:
    """Return the id of a record's verdict under one policy text: 32 hex digits (128 bits of SHA-256)."""
    # Kafka topic names and slugs hold no newline, so the joined form is unambiguous.
    name = f"{topic}\n{partition}\n{offset}\n{policy_id}\n{policy_sha256}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def verdict_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) that this version writes verdicts by; readers take the reader's form of it."""
    return writer_schema(f"verdict-{SCHEMA_VERSION}.json")


def encode_verdict(verdict: dict[str, Any]) -> bytes:
    """Return a verdict as JSON."""
    return _fitted(orjson.dumps(verdict))


def _fitted(encoded: bytes) -> bytes:
    """Return a copy without the buffer of 8 kB that orjson's own result keeps.

    Thousands of verdicts wait in memory for the broker's acknowledgement.
    """
    return memoryview(encoded).tobytes()


def decode_verdict(value: bytes, schemas: Schemas | None = None) -> Any:  # noqa: ANN401 - any JSON value
    """Return the verdict in a record's value: of JSON, of a structured CloudEvent, or of Avro behind a schema id.

    Args:
        value: the record's value.
        schemas: of Avro, by id; the value's own must be there. None: Avro cannot be read.

    Raises:
        orjson.JSONDecodeError: the value is not JSON.
        RecordError: the value is Avro and its schema is missing, or its bytes do not follow the schema.
    """
    if value.startswith(_FRAMED):
        return _decode_avro(value, schemas)
    document = orjson.loads(value)
    if isinstance(document, dict) and "specversion" in document and "data" in document:
        return document["data"]
    return document


def _decode_avro(value: bytes, schemas: Schemas | None) -> Any:  # noqa: ANN401 - any JSON value
    found = find_frame(value, ())
    if found is None:
        raise DecodeError("the value begins with the byte of a schema id, and is cut")
    key, frame, start = found
    schema = None if schemas is None else schemas.get(key)
    if schema is None:
        message = f"the verdict is Avro with {key_name(key)}, and its schema is not here; name the schema registry"
        raise SchemaError(message)
    if isinstance(schema, SchemaError):
        raise SchemaError(str(schema))
    document, _ = schema.decode(value, frame, start, _DEPTH_MAX)
    return restored(document, contract_of(VERDICT).absent)


def cut_verdict(verdict: dict[str, Any]) -> dict[str, Any]:
    """Remove rationale and trail from a verdict, in place, and return it; ``provenance.degraded`` says so."""
    verdict["policy"]["rationale"] = None
    provenance = verdict["provenance"]
    provenance["trail"] = []
    provenance["degraded"] = [*provenance["degraded"], TOO_LARGE_FOR_TOPIC]
    return verdict


def smaller_verdict(
    key: bytes | None, value: bytes | None, headers: Headers
) -> tuple[bytes | None, bytes | None, Headers]:
    """Return a verdict's record without rationale and trail, for a topic that refuses it as too large.

    The id, the key and the headers stay. ``provenance.degraded`` has the word ``too_large_for_topic``.
    """
    assert value is not None, "a verdict has a value"
    document = orjson.loads(value)
    cut_verdict(document["data"] if "specversion" in document else document)
    return key, _fitted(orjson.dumps(document)), headers


# CloudEvents 1.0, type system, String: no C0 or C1 controls, no noncharacters, no surrogates. The percent sign is
# encoded as well, so that a reader can decode the whole.
_NOT_IN_STRINGS: Final = re.compile(
    "[%\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(
        f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
    )
    + "]"
)


def _percent_encoded(found: re.Match[str]) -> str:
    return quote(found[0].encode("utf-8", "replace"), safe="")


class VerdictEvents:
    """Encodes verdicts as CloudEvents 1.0 over Kafka, for a list that is published together.

    In binary mode (Kafka protocol binding, section 3.2) the value is the verdict and the attributes are ``ce_*``
    headers; in structured mode (section 3.3) the value is the event with the verdict as its ``data``. The header
    ``traceparent`` is there in both, where tracing libraries look for it.

    Args:
        published_ms: time of publishing, Unix time in ms.
        mode: binary or structured.
    """

    def __init__(self, published_ms: int, mode: EventMode = "binary") -> None:
        moment = datetime.fromtimestamp(published_ms / 1_000, UTC)
        self._binary = mode == "binary"
        self._sources: dict[tuple[str, int], tuple[str, tuple[str, bytes]]] = {}
        self._time = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._time_header = ("ce_time", self._time.encode())

    def encode(
        self, verdict: dict[str, Any], traceparent: str, avro: VerdictWriter | None = None
    ) -> tuple[bytes, Headers]:
        """Return the value and the headers of one verdict's record.

        Args:
            verdict: from :func:`stream_guard.judging.verdict.build_verdict`.
            traceparent: W3C trace context of the span that publishes the verdict.
            avro: writes the value; None for JSON. It needs the binary mode.
        """
        source = verdict["source"]
        place = source["topic"], source["partition"]
        known = self._sources.get(place)
        if known is None:
            name = f"/stream-guard/{place[0]}/{place[1]}"
            known = self._sources[place] = name, ("ce_source", name.encode())
        subject = verdict["content"]["id"]
        # The search takes longer than to see that it would find nothing.
        if not (subject.isascii() and subject.isprintable() and "%" not in subject):
            subject = _NOT_IN_STRINGS.sub(_percent_encoded, subject)
        if self._binary:
            value = encode_verdict(verdict) if avro is None else avro.encode(verdict)
            return value, [
                *(_BINARY_HEADERS if avro is None else _AVRO_HEADERS),
                ("ce_id", verdict["id"].encode()),
                known[1],
                ("ce_subject", subject.encode()),
                self._time_header,
                ("traceparent", traceparent.encode()),
            ]
        event = {
            "specversion": "1.0",
            "type": EVENT_TYPE,
            "source": known[0],
            "id": verdict["id"],
            "subject": subject,
            "time": self._time,
            "dataschema": DATA_SCHEMA,
            "datacontenttype": "application/json",
            "traceparent": traceparent,
            "data": verdict,
        }
        return _fitted(orjson.dumps(event)), [
            ("content-type", STRUCTURED_CONTENT_TYPE.encode()),
            ("traceparent", traceparent.encode()),
        ]
