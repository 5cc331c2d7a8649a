"""Verdicts as typed, immutable objects, parsed from the JSON or Avro that Stream Guard publishes.

Fields that a later minor version adds are ignored; a verdict of another major version is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from stream_guard.client.errors import UnreadableVerdictError
from stream_guard.core.errors import RecordError
from stream_guard.core.field_faults import field_faults
from stream_guard.core.vocabulary import Severity
from stream_guard.records.verdict_event import decode_verdict

if TYPE_CHECKING:
    from stream_guard.records.decoding.schema import Schemas

SUPPORTED_MAJOR: Final = "1"
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""From the least to the most severe."""
_OPEN: Final = ConfigDict(extra="ignore", frozen=True)


class SourceRef(BaseModel):
    """The judged record; ``timestamp_ms`` is Unix time in ms, or -1 if it had none."""

    model_config = _OPEN

    topic: str
    partition: int
    offset: int
    key: str | None
    timestamp_ms: int


class ContextRef(BaseModel):
    """How many texts of the thread were kept, and how many earlier posts the limits dropped."""

    model_config = _OPEN

    texts: int
    dropped: int


class Content(BaseModel):
    """The judged post without its text; ``sha256`` is the digest of the text's UTF-8 bytes.

    Attributes:
        repaired: whether the record had lone surrogates, which were replaced by U+FFFD.
        nulled: names of the fields that the record has, but that could not be used.
        context: the thread around the post, or None.
        markup: how the text's markup was resolved: ``format``, ``changes`` and ``model_read``; None if it had none.
    """

    model_config = _OPEN

    id: str
    sha256: str
    author: str | None
    tenant: str | None
    language: str | None
    repaired: bool = False
    nulled: tuple[str, ...] = ()
    context: ContextRef | None = None
    markup: dict[str, Any] | None = None


class PolicyRef(BaseModel):
    """The policy and its result: labels, category, severity, rule ids, rationale.

    ``labels`` are the policy's own words, where the decision does not tell them.
    """

    model_config = _OPEN

    id: str
    version: str
    sha256: str
    labels: tuple[str, ...] = ()
    category: str | None
    severity: Severity | None = None
    rule_ids: tuple[str, ...]
    rationale: str | None


class Confidence(BaseModel):
    """A value between 0 and 1 and how it was measured; both None if it was not."""

    model_config = _OPEN

    value: float | None
    method: str | None


class Votes(BaseModel):
    """How many samples made each decision; ``unread`` are those without an answer."""

    model_config = _OPEN

    violates: int
    safe: int
    undetermined: int
    unread: int


class Sampling(BaseModel):
    """How the answer was drawn: temperature, share of the probability, number of samples, and their votes."""

    model_config = _OPEN

    temperature: float
    top_p: float
    samples: int
    votes: Votes


class Provenance(BaseModel):
    """How the decision was made; counts are tokens."""

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
    reasoning_cut: bool = False
    sampling: Sampling | None = None
    windows: int = 1
    context_dropped: int = 0


class Timing(BaseModel):
    """Unix times in ms: when the post was written, consumed, judged and published."""

    model_config = _OPEN

    event: int
    consumed: int
    judged: int
    published: int


class Retracts(BaseModel):
    """What a retraction takes back.

    Attributes:
        verdict_id: one verdict; None for all verdicts on earlier records of the post.
        content_id: the post's id; None where the source did not say it.
        key: of the post's records, as text, or None.
        cause: ``deleted`` at the source, or a person's ``decision``.
    """

    model_config = _OPEN

    verdict_id: str | None
    content_id: str | None
    key: str | None
    cause: str


class Hop(BaseModel):
    """A deployment that judged an escalated post before: its name, its verdict's id, and what it said."""

    model_config = _OPEN

    deployment: str
    verdict_id: str
    reason: str
    decision: Literal["violates", "safe", "undetermined"]
    category: str | None = None
    confidence: float | None = None
    model: str


class Verdict(BaseModel):
    """The verdict of one policy on one record.

    Attributes:
        id: 32 hex digits; a duplicate of the verdict has the same id.
        decision: never treat ``undetermined`` as ``safe``.
        action: the advised enforcement: ``none``, ``review`` or a word of the policy.
        needs_review: whether a person should review the post.
        review_reasons: why, each a word of the schema.
        supersedes: id of the verdict that a person's decision or a larger model replaces; or of an earlier verdict on
            the same record by another version of the policy, set by :class:`stream_guard.client.VerdictConsumer` if it
            has seen that verdict.
        provisional: whether a larger model judges the post again; this verdict counts until that one supersedes it.
        escalated: the deployments that judged the post before; this verdict supersedes all of theirs.
        revision: orders all verdicts on one content under one policy: Unix time in ms of a person's decision, 0 of
            the machine. The highest counts; of equal ones the greater ``decision_id``.
        decision_id: of the person's decision, or None.
        valid_until: when it expires, Unix time in ms, or None.
        retracts: of a retraction, what is taken back; None otherwise.
        expired: of an expiry, the id of the verdict that has expired; None otherwise.
    """

    model_config = _OPEN

    schema_version: str
    id: str
    decision: Literal["violates", "safe", "undetermined"]
    action: str
    needs_review: bool
    review_reasons: tuple[str, ...] = ()
    source: SourceRef
    content: Content
    policy: PolicyRef
    confidence: Confidence
    provenance: Provenance
    timing: Timing
    supersedes: str | None = None
    revision: int = 0
    decision_id: str | None = None
    valid_until: int | None = None
    retracts: Retracts | None = None
    expired: str | None = None
    provisional: bool = False
    escalated: tuple[Hop, ...] = ()

    @property
    def event(self) -> Literal["verdict", "retraction", "expiry"]:
        """What kind of event it is. Do not enforce a retraction or an expiry: undo earlier actions."""
        if self.retracts is not None:
            return "retraction"
        return "verdict" if self.expired is None else "expiry"

    @property
    def is_human(self) -> bool:
        """Whether a person decided."""
        return self.decision_id is not None

    @property
    def content_subject(self) -> tuple[str, str | None, str]:
        """The policy, the tenant and the content: all that people decide about. See ``revision``."""
        return self.policy.id, self.content.tenant, self.content.id

    def is_valid_at(self, now_ms: int) -> bool:
        """Return whether the verdict has not expired, at a Unix time in ms."""
        return self.valid_until is None or now_ms < self.valid_until

    @property
    def subject(self) -> tuple[str, int, int, str]:
        """The record and the policy: topic, partition, offset and policy id, without the policy's version."""
        return self.source.topic, self.source.partition, self.source.offset, self.policy.id

    def is_at_least(self, severity: Severity) -> bool:
        """Return whether the category is known to be at least this severe."""
        known = self.policy.severity
        return known is not None and SEVERITIES.index(known) >= SEVERITIES.index(severity)


def parse_verdict(
    value: bytes | None, place: str = "verdict", schemas: Schemas | None = None
) -> Verdict:
    """Return the verdict in a record's value.

    Args:
        value: the record's value: a CloudEvent of either mode, or Avro.
        place: the record's place, for the message.
        schemas: of Avro: ``SchemaRegistry.known``, which has the value's schema. None: Avro is unreadable.

    Raises:
        UnreadableVerdictError: the value is not a verdict, or has another major version.
    """
    if value is None:
        message = f"{place}: the value is null (a tombstone); Stream Guard never deletes verdicts"
        raise UnreadableVerdictError(message)
    try:
        verdict = Verdict.model_validate(decode_verdict(value, schemas))
    except orjson.JSONDecodeError:
        message = f"{place}: not a verdict: not JSON"
        raise UnreadableVerdictError(message) from None
    except RecordError as error:
        message = f"{place}: not readable: {error}"
        raise UnreadableVerdictError(message) from None
    except ValidationError as error:
        message = f"{place}: not a verdict: {field_faults(error)}"
        raise UnreadableVerdictError(message) from None
    major = verdict.schema_version.partition(".")[0]
    if major != SUPPORTED_MAJOR:
        message = (
            f"{place}: schema version {verdict.schema_version} is not supported, this client reads "
            f"{SUPPORTED_MAJOR}.x; upgrade stream-guard"
        )
        raise UnreadableVerdictError(message)
    return verdict
