"""Verdicts on the wire: their ids, their JSON, their CloudEvents headers. Pure."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final, Literal, TypeAlias

import orjson

SCHEMA_VERSION: Final = "1.0"


EVENT_TYPE: Final = "stream_guard.verdict.v1"


DATA_SCHEMA: Final = "urn:stream-guard:schema:verdict:1.0"


_BINARY_HEADERS: Final = (
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_type", EVENT_TYPE.encode()),
    ("ce_dataschema", DATA_SCHEMA.encode()),
)


STRUCTURED_CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"


EventMode: TypeAlias = Literal["binary", "structured"]


Headers = list[tuple[str, bytes]]


def verdict_id(topic: str, partition: int, offset: int, policy_id: str, policy_sha256: str) -> str:
    """Return 32 hex digits (128 bits of SHA-256) that name one record's verdict under one policy text."""
    # Kafka topic names and slugs hold no newline, so the joined form is unambiguous.
    name = f"{topic}\n{partition}\n{offset}\n{policy_id}\n{policy_sha256}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def verdict_schema() -> dict[str, Any]:
    """Return the published JSON Schema (2020-12) of a verdict, as it ships in this package."""
    file = resources.files("stream_guard.records") / "schemas" / f"verdict-{SCHEMA_VERSION}.json"
    schema: dict[str, Any] = orjson.loads(file.read_bytes())
    return schema


def encode_verdict(verdict: dict[str, Any]) -> bytes:
    """Return a verdict's bytes."""
    return _fitted(orjson.dumps(verdict))


def _fitted(encoded: bytes) -> bytes:
    """Return a copy that takes no more memory than it says; orjson's own keeps a buffer of 8 kB until it is freed.

    A verdict stays in memory until the broker has acknowledged it, and thousands do at a time.
    """
    return memoryview(encoded).tobytes()


def decode_verdict(value: bytes) -> Any:  # noqa: ANN401 - whatever JSON stands there
    """Return the verdict in a record's value, taken out of a structured CloudEvent where it is in one.

    Raises:
        orjson.JSONDecodeError: it is no JSON.
    """
    document = orjson.loads(value)
    if isinstance(document, dict) and "specversion" in document and "data" in document:
        return document["data"]
    return document


class VerdictEvents:
    """Verdicts as CloudEvents 1.0 over Kafka, for a list of verdicts that are published at one time.

    In binary mode (Kafka protocol binding, section 3.2) the value is the verdict and the attributes are ``ce_*``
    headers; in structured mode (section 3.3) the value is the event with the verdict as its ``data``. The header
    ``traceparent`` is there in both, where tracing libraries look for it.

    Args:
        published_ms: when, Unix time in ms.
        mode: which of the two.
    """

    def __init__(self, published_ms: int, mode: EventMode = "binary") -> None:
        moment = datetime.fromtimestamp(published_ms / 1_000, UTC)
        self._binary = mode == "binary"
        self._sources: dict[tuple[str, int], str] = {}
        self._time = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._time_header = ("ce_time", self._time.encode())

    def encode(self, verdict: dict[str, Any], traceparent: str) -> tuple[bytes, Headers]:
        """Return the value and the headers of one verdict's record.

        Args:
            verdict: as :func:`build_verdict` makes it.
            traceparent: W3C trace context of the span that publishes it.
        """
        source = verdict["source"]
        place = source["topic"], source["partition"]
        name = self._sources.get(place)
        if name is None:
            name = self._sources[place] = f"/stream-guard/{place[0]}/{place[1]}"
        subject = verdict["content"]["id"]
        if self._binary:
            return encode_verdict(verdict), [
                *_BINARY_HEADERS,
                ("ce_id", verdict["id"].encode()),
                ("ce_source", name.encode()),
                ("ce_subject", subject.encode("utf-8", "replace")),
                self._time_header,
                ("traceparent", traceparent.encode()),
            ]
        event = {
            "specversion": "1.0",
            "type": EVENT_TYPE,
            "source": name,
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
