"""Verdicts: their deterministic ids, their JSON, their CloudEvents headers. Pure.

What it must never do: make an id of anything but topic, partition, offset, policy id and policy sha256,
so that the same record under the same policy always has the same verdict id.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson

from stream_guard.calibration import calibrate

if TYPE_CHECKING:
    from stream_guard.judge import Answer, Judgement
    from stream_guard.policy import Policy
    from stream_guard.ports import Record
    from stream_guard.routing import Mode

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


def needs_review(answer: Answer) -> bool:
    """Whether a person should look: nothing was decided, or the answer had to be mended to be read."""
    return answer.decision == "undetermined" or answer.parse_status not in ("ok", "not_applicable")


def recommended_action(answer: Answer, policy: Policy) -> str:
    """Return what enforcement is advised to do: ``none``, ``review``, or what the policy says.

    For a violation that is its category's action; for what could not be decided, the policy's rule: failing open
    recommends nothing, failing closed the policy's own action, and holding a review.
    """
    if answer.decision == "safe":
        return "none"
    if answer.decision == "violates":
        return policy.action_for(answer.category)
    if policy.undetermined == "fail_open":
        return "none"
    return policy.action if policy.undetermined == "fail_closed" else "review"


def _key_text(key: bytes | None) -> str | None:
    return None if key is None else key.decode("utf-8", "backslashreplace")


def build_verdict(
    record: Record,
    judgement: Judgement,
    *,
    consumed_ms: int,
    published_ms: int,
    route_mode: Mode = "live",
) -> dict[str, Any]:
    """Return a verdict as the JSON Schema describes it.

    Args:
        record: where the post came from.
        judgement: with an answer.
        consumed_ms: when the record was read, Unix time in ms.
        published_ms: when the verdict was handed to the producer, Unix time in ms.
        route_mode: how the policy came to judge the post. A shadow's verdict recommends nothing and asks for no
            review, so that even a reader who takes it for another does not act on it.
    """
    answer, provenance = judgement.answer, judgement.provenance
    assert answer is not None, "a judgement with an error becomes a dead letter"
    assert provenance is not None, "a judge says how it came to its answer"
    post, policy = judgement.request.post, judgement.request.policy
    confidence, method = calibrate(
        judgement.confidence,
        judgement.confidence_method,
        policy,
        model=provenance.model,
        revision=provenance.revision,
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "id": verdict_id(record.topic, record.partition, record.offset, policy.id, policy.sha256),
        "decision": answer.decision,
        "action": "none" if route_mode == "shadow" else recommended_action(answer, policy),
        "needs_review": route_mode != "shadow" and needs_review(answer),
        "source": {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": _key_text(record.key),
            "timestamp_ms": record.timestamp,
        },
        "content": {
            "id": post.id,
            "sha256": post.sha256,
            "author": post.author,
            "tenant": post.tenant,
            "language": post.language,
        },
        "policy": {
            "id": policy.id,
            "version": policy.version,
            "sha256": policy.sha256,
            "category": answer.category,
            "severity": policy.severity_of(answer.category),
            "rule_ids": answer.rule_ids,
            "rationale": answer.rationale,
        },
        "confidence": {"value": confidence, "method": method, "raw": judgement.confidence},
        "provenance": {
            "route_mode": route_mode,
            "tier": provenance.tier,
            "model": provenance.model,
            "revision": provenance.revision,
            "engine_version": provenance.engine_version,
            "effort": provenance.effort,
            "prompt_sha256": provenance.prompt_sha256,
            "prompt_ids_sha256": provenance.prompt_ids_sha256,
            "prompt_tokens": provenance.prompt_tokens,
            "cached_tokens": provenance.cached_tokens,
            "output_tokens": provenance.output_tokens,
            "finish_reason": provenance.finish_reason,
            "parse_status": answer.parse_status,
            "attempts": provenance.attempts,
            "degraded": provenance.degraded,
            "trail": [
                {
                    "tier": step.tier,
                    "outcome": step.outcome,
                    "reason": step.reason,
                    "duration_us": step.duration_us,
                    "effort": step.effort,
                }
                for step in provenance.trail
            ],
        },
        "timing": {
            "event": record.timestamp if post.created_at_ms is None else post.created_at_ms,
            "consumed": consumed_ms,
            "judged": judgement.finished_ns // 1_000_000,
            "published": published_ms,
        },
    }


def verdict_schema() -> dict[str, Any]:
    """Return the published JSON Schema (2020-12) of a verdict, as it ships in this package."""
    file = resources.files("stream_guard") / "schemas" / f"verdict-{SCHEMA_VERSION}.json"
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
