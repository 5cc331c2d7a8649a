"""Builds and reads escalations: posts that one deployment hands to another, with its verdict so far. Pure.

An escalation holds the post as it was parsed, so the second deployment needs neither the record nor its schema. Each
deployment that has judged the post is a *hop*.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson
from jsonschema import Draft202012Validator

from stream_guard.core.errors import EscalationError, TooLargeError
from stream_guard.core.kafka_types import OversizedValue
from stream_guard.core.vocabulary import HOPS_MAX, LATE
from stream_guard.records.contracts import reader_schema
from stream_guard.records.markup import Resolved
from stream_guard.records.post import Post
from stream_guard.records.thread import ThreadEntry
from stream_guard.records.verdict_event import Headers, cut_verdict, verdict_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.kafka_types import Record

__all__ = [
    "Escalation",
    "build_escalation",
    "encode_escalation",
    "escalated_id",
    "escalated_ids",
    "finalised",
    "late_verdict",
    "parse_escalation",
    "restated",
    "smaller_escalation",
]

SCHEMA_VERSION: Final = "1.0"
EVENT_TYPE: Final = "stream_guard.escalation.v1"
DATA_SCHEMA: Final = "urn:stream-guard:schema:escalation:1.0"
_FILE: Final = "escalation-1.0.json"

Hop: TypeAlias = "dict[str, Any]"
"""A deployment that judged the post: its name, the topic that it wrote to, and what it said."""


def escalated_id(made: str, hops: int) -> str:
    """Return the id of a verdict on an escalated post: 32 hex digits (128 bits of SHA-256).

    Args:
        made: the id that the verdict would have without an escalation: of its record and its policy's text.
        hops: how many deployments judged the post before, at least 1.
    """
    return hashlib.sha256(f"escalation\n{hops}\n{made}".encode()).hexdigest()[:32]


def escalated_ids(made: str) -> frozenset[str]:
    """Return all ids that verdicts on this record by this policy's text can have: escalated or not."""
    return frozenset((made, *(escalated_id(made, hops) for hops in range(1, HOPS_MAX + 1))))


def _id_of(verdict: Mapping[str, Any], hops: int) -> str:
    source, policy = verdict["source"], verdict["policy"]
    place = source["topic"], source["partition"], source["offset"]
    return escalated_id(verdict_id(*place, policy["id"], policy["sha256"]), hops)


@dataclass(slots=True, frozen=True, eq=False)
class SourceRecord:
    """The record of the post, as far as its verdict repeats it: a :class:`stream_guard.core.kafka_types.Record`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(slots=True, frozen=True, eq=False)
class Escalation:
    """An escalation that was read.

    Attributes:
        verdict: the verdict so far, as JSON.
        hops: where the post was judged, the first deployment first; never empty.
        post: None where the topic refused the post's text as too large.
        source: the record of the post.
        reach: how many people the post reaches, as the first deployment found it; None where it is unknown.
    """

    verdict: dict[str, Any]
    hops: tuple[Hop, ...]
    post: Post | None
    source: SourceRecord
    reach: float | None = None

    def has_passed(self, deployment: str) -> bool:
        """Return whether a deployment has judged the post already."""
        return any(hop["deployment"] == deployment for hop in self.hops)


def build_escalation(
    verdict: Mapping[str, Any],
    post: Post,
    *,
    deployment: str,
    topic: str,
    reason: str,
    withheld: bool,
    hops: Sequence[Hop] = (),
    reach: float | None = None,
) -> dict[str, Any]:
    """Return an escalation, as ``escalation-1.0.json`` describes it.

    Args:
        verdict: as it is published, or would be.
        post: the post.
        deployment: the name of this deployment.
        topic: where the escalation goes.
        reason: why the post is escalated, as the trail of a ladder names it.
        withheld: whether the verdict is not published.
        hops: where the post was judged before.
        reach: how many people the post reaches; None where it is unknown.
    """
    made: Hop = {
        "deployment": deployment,
        "topic": topic,
        "verdict_id": verdict["id"],
        "reason": reason,
        "decision": verdict["decision"],
        "category": verdict["policy"]["category"],
        "confidence": verdict["confidence"]["value"],
        "model": verdict["provenance"]["model"],
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "id": hashlib.sha256(f"escalated\n{verdict['id']}".encode()).hexdigest()[:32],
        "escalation": "withhold" if withheld else "provisional",
        "escalated_at": verdict["timing"]["published"],
        "hops": [*hops, made],
        "verdict": dict(verdict),
        "post": _post_document(post),
        "reach": reach,
    }


def _post_document(post: Post) -> dict[str, Any]:
    markup = post.markup
    return {
        "id": post.id,
        "text": post.text,
        "sha256": post.sha256,
        "text_bytes": post.text_bytes,
        "author": post.author,
        "tenant": post.tenant,
        "language": post.language,
        "title": post.title,
        "created_at_ms": post.created_at_ms,
        "repaired": post.repaired,
        "nulled": list(post.nulled),
        "context": [entry._asdict() for entry in post.context],
        "context_dropped": post.context_dropped,
        "markup": None
        if markup is None
        else {
            "format": markup.format,
            "text": markup.text,
            "links": list(markup.links),
            "hidden": list(markup.hidden),
            "changes": list(markup.changes),
            "for_model": markup.for_model,
        },
    }


def encode_escalation(escalation: Mapping[str, Any], traceparent: str) -> tuple[bytes, Headers]:
    """Return the value and the headers of an escalation's record: a CloudEvent 1.0 in binary mode."""
    source = escalation["verdict"]["source"]
    return orjson.dumps(escalation), [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_type", EVENT_TYPE.encode()),
        ("ce_dataschema", DATA_SCHEMA.encode()),
        ("ce_id", escalation["id"].encode()),
        ("ce_source", f"/stream-guard/{source['topic']}/{source['partition']}".encode()),
        ("traceparent", traceparent.encode()),
    ]


def smaller_escalation(
    key: bytes | None, value: bytes | None, headers: Headers
) -> tuple[bytes | None, bytes | None, Headers]:
    """Return an escalation without the post, for a topic that refuses it as too large: the verdict so far is final."""
    assert value is not None, "an escalation has a value"
    document = orjson.loads(value)
    document["post"] = None
    cut_verdict(document["verdict"])
    return key, orjson.dumps(document), headers


@functools.cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(reader_schema(_FILE))


def parse_escalation(record: Record) -> Escalation:
    """Return the escalation in a record.

    Raises:
        TooLargeError: the record was too long to keep.
        EscalationError: it is none, or of another major version. The message has nothing of the post in it.
    """
    if isinstance(record.value, OversizedValue):
        raise TooLargeError(f"an escalation has over {record.value.limit_bytes} bytes")
    try:
        document = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        raise EscalationError("an escalation is JSON, and this record is not") from None
    fault = next(_validator().iter_errors(document), None)
    if fault is not None:
        where = ".".join(map(str, fault.absolute_path)) or "value"
        message = f"not an escalation: {where} does not meet '{fault.validator}' of the schema"
        raise EscalationError(message)
    verdict = document["verdict"]
    source = verdict["source"]
    post = None if document["post"] is None else _post_of(document["post"])
    return Escalation(
        verdict,
        tuple(document["hops"]),
        post,
        SourceRecord(
            source["topic"],
            source["partition"],
            source["offset"],
            source["timestamp_ms"],
            # The record has the post's own key, where that has one.
            None if source["key"] is None else record.key,
        ),
        document.get("reach"),
    )


def _post_of(document: Mapping[str, Any]) -> Post:
    markup = document["markup"]
    if markup is None or not markup["for_model"]:
        digest = hashlib.sha256(document["text"].encode()).hexdigest()
        if digest != document["sha256"]:
            raise EscalationError("post.sha256 is not the digest of post.text")
    return Post(
        document["id"],
        document["text"],
        document["sha256"],
        document["text_bytes"],
        document["author"],
        document["tenant"],
        document["language"],
        document["title"],
        document["created_at_ms"],
        document["repaired"],
        tuple(document["nulled"]),
        tuple(
            ThreadEntry(entry["kind"], entry["text"], entry["author"])
            for entry in document["context"]
        ),
        document["context_dropped"],
        None
        if markup is None
        else Resolved(
            markup["format"],
            markup["text"],
            tuple(markup["links"]),
            tuple(markup["hidden"]),
            tuple(markup["changes"]),
            markup["for_model"],
        ),
    )


def finalised(verdict: dict[str, Any], hops: Sequence[Hop]) -> dict[str, Any]:
    """Make a verdict on an escalated post supersede the one before, in place, and return it."""
    verdict["id"] = _id_of(verdict, len(hops))
    verdict["supersedes"] = hops[-1]["verdict_id"]
    verdict["escalated"] = list(hops)
    return verdict


def restated(
    escalation: Escalation, why: str, *, deployment: str, consumed_ms: int, published_ms: int
) -> dict[str, Any]:
    """Return the verdict so far as the final one.

    Args:
        escalation: has the verdict.
        why: the last deployment does not decide by itself; a word of :data:`Unjudged`.
        deployment: its name.
        consumed_ms: when it read the escalation, Unix time in ms.
        published_ms: when it handed the verdict to the producer, Unix time in ms.
    """
    verdict = _copy(escalation.verdict, why, consumed_ms=consumed_ms, published_ms=published_ms)
    verdict.pop("provisional", None)
    step = {"tier": "escalation", "outcome": "skipped", "reason": f"{why}:{deployment}"}
    trail = verdict["provenance"]["trail"]
    verdict["provenance"]["trail"] = [*trail, step | {"duration_us": 0, "effort": None}]
    return finalised(verdict, escalation.hops)


def late_verdict(escalation: Escalation, *, consumed_ms: int, published_ms: int) -> dict[str, Any]:
    """Return a withheld verdict, which is published as provisional because the other deployment is late."""
    verdict = _copy(escalation.verdict, LATE, consumed_ms=consumed_ms, published_ms=published_ms)
    verdict["provisional"] = True
    return verdict


def _copy(
    verdict: Mapping[str, Any], word: str, *, consumed_ms: int, published_ms: int
) -> dict[str, Any]:
    provenance = verdict["provenance"]
    return {
        **verdict,
        "provenance": {**provenance, "degraded": [*provenance["degraded"], word]},
        "timing": {**verdict["timing"], "consumed": consumed_ms, "published": published_ms},
    }
