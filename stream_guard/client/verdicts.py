"""Verdicts as typed, immutable objects, read from the JSON that Stream Guard publishes.

What it must never do: refuse a verdict for a field that a later minor version has added, or read a verdict of
another major version as if it understood it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from stream_guard.client.errors import UnreadableVerdictError
from stream_guard.core.vocabulary import Severity
from stream_guard.records.verdict_event import decode_verdict

SUPPORTED_MAJOR: Final = "1"
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""From the least grave to the gravest."""
_OPEN: Final = ConfigDict(extra="ignore", frozen=True)


class SourceRef(BaseModel):
    """The record that was judged; ``timestamp_ms`` is Unix time in ms, -1 where it had none."""

    model_config = _OPEN

    topic: str
    partition: int
    offset: int
    key: str | None
    timestamp_ms: int


class Content(BaseModel):
    """The post that was judged, without its text; ``sha256`` is that of the text's UTF-8 bytes."""

    model_config = _OPEN

    id: str
    sha256: str
    author: str | None
    tenant: str | None
    language: str | None


class PolicyRef(BaseModel):
    """The policy that judged, and what it says: category, severity, rule ids, rationale."""

    model_config = _OPEN

    id: str
    version: str
    sha256: str
    category: str | None
    severity: Severity | None = None
    rule_ids: tuple[str, ...]
    rationale: str | None


class Confidence(BaseModel):
    """Between 0 and 1, and how it was measured; None for both where it was not."""

    model_config = _OPEN

    value: float | None
    method: str | None


class Provenance(BaseModel):
    """How the decision came about; counts are tokens."""

    model_config = _OPEN

    route_mode: Literal["live", "canary", "shadow"]
    tier: str
    model: str
    revision: str | None
    engine_version: str | None
    effort: str | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    parse_status: str
    attempts: int
    degraded: tuple[str, ...]
    trail: tuple[dict[str, Any], ...] = ()


class Timing(BaseModel):
    """Unix times in ms: of the post itself, of its reading, judging and publishing."""

    model_config = _OPEN

    event: int
    consumed: int
    judged: int
    published: int


class Verdict(BaseModel):
    """What one policy says of one record.

    Attributes:
        id: 32 hex digits; a repeat of the same verdict has the same id.
        decision: ``undetermined`` is never to be read as ``safe``.
        action: what enforcement is advised to do: ``none``, ``review`` or the policy's own word.
        needs_review: whether a person should look.
        supersedes: id of an earlier verdict on the same record by another version of the same policy, where
            the consumer has seen one; set by :class:`stream_guard.client.VerdictConsumer`.
    """

    model_config = _OPEN

    schema_version: str
    id: str
    decision: Literal["violates", "safe", "undetermined"]
    action: str
    needs_review: bool
    source: SourceRef
    content: Content
    policy: PolicyRef
    confidence: Confidence
    provenance: Provenance
    timing: Timing
    supersedes: str | None = None

    @property
    def subject(self) -> tuple[str, int, int, str]:
        """What the verdict is about: topic, partition, offset and policy id, whatever the policy's version."""
        return self.source.topic, self.source.partition, self.source.offset, self.policy.id

    def is_at_least(self, severity: Severity) -> bool:
        """Whether its category is known to be as grave as this, or graver."""
        known = self.policy.severity
        return known is not None and SEVERITIES.index(known) >= SEVERITIES.index(severity)


def parse_verdict(value: bytes | None, place: str = "verdict") -> Verdict:
    """Return the verdict in a record's value.

    Args:
        value: what Stream Guard published, as a CloudEvent of either mode.
        place: where it was found, for the message.

    Raises:
        UnreadableVerdictError: it is no verdict, or one of another major version.
    """
    if value is None:
        message = f"{place}: empty (a tombstone); verdicts are never deleted by Stream Guard"
        raise UnreadableVerdictError(message)
    try:
        verdict = Verdict.model_validate(decode_verdict(value))
    except orjson.JSONDecodeError:
        message = f"{place}: not a verdict: not JSON"
        raise UnreadableVerdictError(message) from None
    except ValidationError as error:
        # Inputs stay out of the message: a log is no place for what stands in a topic.
        what = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)[:3]
        )
        message = f"{place}: not a verdict: {what}"
        raise UnreadableVerdictError(message) from None
    major = verdict.schema_version.partition(".")[0]
    if major != SUPPORTED_MAJOR:
        message = (
            f"{place}: schema version {verdict.schema_version}, and this client reads "
            f"{SUPPORTED_MAJOR}.x; upgrade stream-guard"
        )
        raise UnreadableVerdictError(message)
    return verdict
