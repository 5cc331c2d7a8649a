"""Reads and writes decisions of people: the records of the decisions topic. Pure: no I/O, no clock.

A decision comes from outside, so every field has a limit, and nothing of it is used before all of it was checked. No
error's message holds text of a decision.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stream_guard.core.errors import DecisionError, TombstoneError, TooLargeError
from stream_guard.core.field_faults import field_faults
from stream_guard.core.kafka_types import OversizedValue
from stream_guard.core.vocabulary import Severity
from stream_guard.records.cloud_event import is_structured, open_cloud_event
from stream_guard.records.verdict_event import verdict_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "About",
    "Breaker",
    "Decision",
    "DecisionKind",
    "Outcome",
    "about_verdict",
    "bare_value",
    "decision_key",
    "encode_decision",
    "parse_decision",
    "subject_key",
]

SCHEMA_VERSION: Final = "1.0"
EVENT_TYPE: Final = "stream_guard.decision.v1"
DATA_SCHEMA: Final = "urn:stream-guard:schema:decision:1.0"
VALUE_BYTES_MAX: Final = 64 << 10
"""The largest value of a decision's record, in bytes."""

DecisionKind: TypeAlias = Literal["review", "appeal", "retraction", "expiry", "breaker_reset"]
_OPEN: Final = ConfigDict(extra="ignore", frozen=True, strict=True)
_LAST_MS: Final = 253_402_300_799_999
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
_Time = Annotated[int, Field(ge=0, le=_LAST_MS)]
_Field = Annotated[str, Field(max_length=4_096)]
_Word = Annotated[str, Field(min_length=1, max_length=64)]
_Slug = Annotated[str, Field(min_length=1, max_length=200)]
_Code = Annotated[str, Field(min_length=1, max_length=40)]


class DecidedBy(BaseModel):
    """Who decided: a pseudonym, and a role of ``decisions.roles``."""

    model_config = _OPEN

    id: Annotated[str, Field(min_length=1, max_length=128)]
    role: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}\z")]


class DecidedContent(BaseModel):
    """The content; ``sha256`` is the digest of the text that was decided about, None for any text."""

    model_config = _OPEN

    id: Annotated[str, Field(min_length=1, max_length=4_096)]
    sha256: _Sha256 | None = None
    author: _Field | None = None
    tenant: _Field | None = None
    language: _Field | None = None


class DecidedPolicy(BaseModel):
    """The policy in the version that was decided by.

    Attributes:
        id, version, sha256: as in the verdict.
        section: the category whose meaning the decision rests on; None for the whole text.
        section_sha256: digest of that section's text; None where the decision rests on ``sha256``.
    """

    model_config = _OPEN

    id: _Slug
    version: _Word
    sha256: _Sha256
    section: _Code | None = None
    section_sha256: _Sha256 | None = None


class DecidedSource(BaseModel):
    """The record that was judged, as in the verdict; ``timestamp_ms`` is Unix time in ms, or -1."""

    model_config = _OPEN

    topic: Annotated[str, Field(min_length=1, max_length=249)]
    partition: Annotated[int, Field(ge=0, lt=1 << 31)]
    offset: Annotated[int, Field(ge=0, lt=1 << 63)]
    key: Annotated[str, Field(max_length=16_384)] | None = None
    timestamp_ms: Annotated[int, Field(ge=-1, le=_LAST_MS)] = -1


class About(BaseModel):
    """The verdict or content that was decided about; ``verdict_id`` is None where it is a content id alone."""

    model_config = _OPEN

    verdict_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}\z")] | None
    content: DecidedContent
    policy: DecidedPolicy
    source: DecidedSource | None

    @model_validator(mode="after")
    def _sourced(self) -> About:
        if self.verdict_id is not None and self.source is None:
            raise ValueError("a decision about a verdict names the verdict's source")
        return self


class Outcome(BaseModel):
    """The decision itself, as a verdict says it."""

    model_config = _OPEN

    decision: Literal["violates", "safe"]
    category: _Code | None = None
    severity: Severity | None = None
    labels: Annotated[tuple[_Word, ...], Field(max_length=16, strict=False)] = ()
    rule_ids: Annotated[tuple[_Word, ...], Field(max_length=64, strict=False)] = ()
    action: _Word


class Breaker(BaseModel):
    """Which breaker is closed; None in a field means all."""

    model_config = _OPEN

    action: _Word | None = None
    policy: _Slug | None = None
    tenant: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None


class Decision(BaseModel):
    """One decision.

    Attributes:
        id: the writer's own.
        kind: ``review``, ``appeal``, ``retraction``, ``expiry`` or ``breaker_reset``.
        decided_at: Unix time in ms.
        decided_by: who.
        about: what; None for ``breaker_reset`` alone.
        outcome: of ``review`` and ``appeal``; None for the other kinds.
        reason: the person's words, or None.
        valid_until: when the decision expires, Unix time in ms, or None.
        breaker: of ``breaker_reset`` alone.
    """

    model_config = _OPEN

    schema_version: Annotated[str, Field(pattern=r"^1\.[0-9]{1,4}\z")]
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\z")]
    kind: DecisionKind
    decided_at: _Time
    decided_by: DecidedBy
    about: About | None = None
    outcome: Outcome | None = None
    reason: Annotated[str, Field(max_length=2_000)] | None = None
    valid_until: _Time | None = None
    breaker: Breaker | None = None

    @model_validator(mode="after")
    def _complete(self) -> Decision:
        replaces = self.kind in ("review", "appeal")
        for name, wanted in (
            ("outcome", replaces),
            ("about", self.kind != "breaker_reset"),
            ("breaker", self.kind == "breaker_reset"),
        ):
            if (getattr(self, name) is not None) != wanted:
                message = (
                    f"{name} is {'missing' if wanted else 'not allowed'} in a decision of this kind"
                )
                raise ValueError(message)
        if self.valid_until is not None and not replaces:
            raise ValueError("valid_until is not allowed in a decision of this kind")
        return self

    @property
    def rank(self) -> tuple[int, str]:
        """What orders decisions about the same: the time, then the id. The greatest counts."""
        return self.decided_at, self.id


def subject_key(policy_id: str, tenant: str | None, content_id: str) -> bytes:
    """Return the key of all decisions about one content under one policy: 32 hex digits (128 bits of SHA-256)."""
    # What _digest() does, for the one name of which a start makes a million.
    tenant = tenant or ""
    named = f"7:subject\n{len(policy_id)}:{policy_id}\n{len(tenant)}:{tenant}\n{len(content_id)}:{content_id}"
    return _hex(named)


def decision_key(decision: Decision) -> bytes:
    """Return the key of a decision's record: of its subject, or of its breaker."""
    breaker, about = decision.breaker, decision.about
    if breaker is not None:
        return _digest("breaker", breaker.action or "", breaker.policy or "", breaker.tenant or "")
    assert about is not None, "a decision of every other kind is about something"
    return subject_key(about.policy.id, about.content.tenant, about.content.id)


def _digest(*parts: str) -> bytes:
    # Lengths keep parts apart that hold any character.
    return _hex("\n".join(f"{len(part)}:{part}" for part in parts))


def _hex(named: str) -> bytes:
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32].encode()


def encode_decision(decision: Decision) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Return key, value and headers of a decision's record: a CloudEvent 1.0 in binary mode."""
    headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_type", EVENT_TYPE.encode()),
        ("ce_dataschema", DATA_SCHEMA.encode()),
        ("ce_id", decision.id.encode()),
        ("ce_source", b"/stream-guard/decisions"),
    ]
    return decision_key(decision), orjson.dumps(decision.model_dump(mode="json")), headers


def parse_decision(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
) -> Decision:
    """Return the decision in a record of the decisions topic, also from inside a structured CloudEvent.

    Raises:
        TombstoneError: the value is null: the subject is forgotten.
        TooLargeError: the value is over the limit.
        DecisionError: it is not a decision, a field is over its limit, or the key is another's.
        CloudEventError: it says that it is a CloudEvent, and is not a valid one.
    """
    if value is None:
        raise TombstoneError("the value is null")
    if isinstance(value, OversizedValue) or len(value) > VALUE_BYTES_MAX:
        message = f"the decision has over {VALUE_BYTES_MAX} bytes"
        raise TooLargeError(message)
    try:
        decision = Decision.model_validate_json(bare_value(value, headers))
    except orjson.JSONDecodeError:
        raise DecisionError("not a decision: not JSON") from None
    except (orjson.JSONEncodeError, RecursionError):
        raise DecisionError("not a decision: nested too deep") from None
    except ValidationError as error:
        raise DecisionError(f"not a decision: {field_faults(error)}") from None
    if key != decision_key(decision):
        raise DecisionError(
            "the record's key is not that of the decision's subject, so compaction would drop another decision; "
            "write decisions with stream-guard decide, or make the key as docs/explanation/guarantees.md says"
        )
    return decision


def bare_value(value: bytes, headers: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the JSON of the decision in a record: its value, but for that of a structured CloudEvent.

    Raises:
        CloudEventError: it says that it is a CloudEvent, and is not a valid one.
    """
    if not headers:
        return value
    if not is_structured(headers):
        open_cloud_event(None, headers, orjson.loads, required=False)  # checks the attributes
        return value
    document, _ = open_cloud_event(orjson.loads(value), headers, orjson.loads, required=False)
    return orjson.dumps(document)


def about_verdict(
    verdict: Mapping[str, Any], *, section: str | None = None, section_sha256: str | None = None
) -> About:
    """Return what a decision about a verdict says that it is about.

    Args:
        verdict: as it was published; of a person's verdict, its own source leads to the machine's.
        section: the category whose meaning the decision rests on; None for the whole text.
        section_sha256: digest of that section; None where the decision rests on the whole policy's digest.

    Raises:
        ValidationError: the verdict's fields are over the limits of a decision.
    """
    source, content, policy = verdict["source"], verdict["content"], verdict["policy"]
    return About(
        verdict_id=verdict_id(
            source["topic"], source["partition"], source["offset"], policy["id"], policy["sha256"]
        ),
        content=DecidedContent(
            **{name: content[name] for name in ("id", "sha256", "author", "tenant", "language")}
        ),
        policy=DecidedPolicy(
            **{name: policy[name] for name in ("id", "version", "sha256")},
            section=section,
            section_sha256=section_sha256,
        ),
        source=DecidedSource(**source),
    )
