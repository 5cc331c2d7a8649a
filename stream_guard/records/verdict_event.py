"""Encodes verdicts: ids, JSON and CloudEvents headers. Pure."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote

import orjson

from stream_guard.records.contracts import writer_schema

SCHEMA_VERSION: Final = "1.1"


EVENT_TYPE: Final = "stream_guard.verdict.v1"


DATA_SCHEMA: Final = "urn:stream-guard:schema:verdict:1.1"


_BINARY_HEADERS: Final = (
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_type", EVENT_TYPE.encode()),
    ("ce_dataschema", DATA_SCHEMA.encode()),
)


TOO_LARGE_FOR_TOPIC: Final = "too_large_for_topic"
"""In ``provenance.degraded`` of a verdict that was cut because its topic refused it."""


STRUCTURED_CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"


EventMode: TypeAlias = Literal["binary", "structured"]


Headers = list[tuple[str, bytes]]


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


def decode_verdict(value: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Return the verdict in a record's value, also from inside a structured CloudEvent.

    Raises:
        orjson.JSONDecodeError: the value is not JSON.
    """
    document = orjson.loads(value)
    if isinstance(document, dict) and "specversion" in document and "data" in document:
        return document["data"]
    return document


def smaller_verdict(
    key: bytes | None, value: bytes | None, headers: Headers
) -> tuple[bytes | None, bytes | None, Headers]:
    """Return a verdict's record without rationale and trail, for a topic that refuses it as too large.

    The id, the key and the headers stay. ``provenance.degraded`` has the word ``too_large_for_topic``.
    """
    assert value is not None, "a verdict has a value"
    document = orjson.loads(value)
    verdict = document["data"] if "specversion" in document else document
    verdict["policy"]["rationale"] = None
    provenance = verdict["provenance"]
    provenance["trail"] = []
    provenance["degraded"] = [*provenance["degraded"], TOO_LARGE_FOR_TOPIC]
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

    def encode(self, verdict: dict[str, Any], traceparent: str) -> tuple[bytes, Headers]:
        """Return the value and the headers of one verdict's record.

        Args:
            verdict: from :func:`stream_guard.judging.verdict.build_verdict`.
            traceparent: W3C trace context of the span that publishes the verdict.
        """
        source = verdict["source"]
        place = source["topic"], source["partition"]
        known = self._sources.get(place)
        if known is None:
            name = f"/stream-guard/{place[0]}/{place[1]}"
            known = self._sources[place] = name, ("ce_source", name.encode())
        subject = _NOT_IN_STRINGS.sub(_percent_encoded, verdict["content"]["id"])
        if self._binary:
            return encode_verdict(verdict), [
                *_BINARY_HEADERS,
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
