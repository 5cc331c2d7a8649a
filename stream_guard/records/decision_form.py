"""Reads the common form of a decision several times faster than :func:`stream_guard.records.decision.parse_decision`.

A start reads every decision that was ever made. Nearly all of them have only known fields, and are valid. For these the
check here is exact: what it accepts, ``parse_decision`` accepts, with the same content. It says nothing about all
others; ``parse_decision`` must look at them. A property test compares both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from stream_guard.core.errors import CloudEventError
from stream_guard.core.vocabulary import Severity  # noqa: TC001 - msgspec reads it at run time
from stream_guard.records.cloud_event import is_structured, open_cloud_event
from stream_guard.records.decision import DATA_SCHEMA, EVENT_TYPE, VALUE_BYTES_MAX, subject_key

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DecisionForm", "Glimpse", "glimpse", "read_form"]

_Sha256 = Annotated[str, Meta(min_length=64, max_length=64)]
_Time = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
_Field = Annotated[str, Meta(max_length=4_096)]
_Word = Annotated[str, Meta(min_length=1, max_length=64)]
_Code = Annotated[str, Meta(min_length=1, max_length=40)]


# ``forbid_unknown_fields``: what an unknown field may hold is for ``parse_decision`` to say.
class _Form(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The limits of each class here are those of the class of the same fields in ``records/decision.py``."""


class DecidedByForm(_Form, frozen=True, gc=False):
    """Who decided."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    role: str


class ContentForm(_Form, frozen=True, gc=False):
    """The content."""

    id: Annotated[str, Meta(min_length=1, max_length=4_096)]
    sha256: _Sha256 | None = None
    author: _Field | None = None
    tenant: _Field | None = None
    language: _Field | None = None


class PolicyForm(_Form, frozen=True, gc=False):
    """The policy."""

    id: Annotated[str, Meta(min_length=1, max_length=200)]
    version: _Word
    sha256: _Sha256
    section: _Code | None = None
    section_sha256: _Sha256 | None = None


class SourceForm(_Form, frozen=True, gc=False):
    """The record that was judged."""

    topic: Annotated[str, Meta(min_length=1, max_length=249)]
    partition: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
    offset: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    key: Annotated[str, Meta(max_length=16_384)] | None = None
    timestamp_ms: Annotated[int, Meta(ge=-1, le=253_402_300_799_999)] = -1


class AboutForm(_Form, frozen=True, gc=False):
    """The subject of a decision."""

    verdict_id: Annotated[str, Meta(min_length=32, max_length=32)] | None
    content: ContentForm
    policy: PolicyForm
    source: SourceForm | None


class OutcomeForm(_Form, frozen=True, gc=False):
    """The decision itself."""

    decision: Literal["violates", "safe"]
    action: _Word
    category: _Code | None = None
    severity: Severity | None = None
    labels: Annotated[tuple[_Word, ...], Meta(max_length=16)] = ()
    rule_ids: Annotated[tuple[_Word, ...], Meta(max_length=64)] = ()


class DecisionForm(_Form, frozen=True, gc=False):
    """A decision of any kind but ``breaker_reset``; the fields of :class:`stream_guard.records.decision.Decision`."""

    schema_version: str
    id: str
    kind: Literal["review", "appeal", "retraction", "expiry"]
    decided_at: _Time
    decided_by: DecidedByForm
    about: AboutForm
    outcome: OutcomeForm | None = None
    reason: Annotated[str, Meta(max_length=2_000)] | None = None
    valid_until: _Time | None = None
    breaker: None = None


class _Id(Struct, frozen=True, gc=False):
    id: str


class _ContentOf(Struct, frozen=True, gc=False):
    id: str
    tenant: str | None = None


class _AboutOf(Struct, frozen=True, gc=False):
    content: _ContentOf
    policy: _Id


class _RoleOf(Struct, frozen=True, gc=False):
    role: str


class Glimpse(Struct, frozen=True, gc=False):
    """What a start needs to know of a decision until somebody asks about its subject; nothing else is looked at."""

    decided_at: int
    decided_by: _RoleOf
    about: _AboutOf


_decode: Final = msgspec.json.Decoder(DecisionForm).decode
_decode_glimpse: Final = msgspec.json.Decoder(Glimpse).decode
# One match for all fields that have a pattern is faster than one for each. No field may hold a line's end.
_PATTERNS: Final = re.compile(
    r"1\.[0-9]{1,4}\n"  # schema_version
    r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\n"  # id
    r"[a-z][a-z0-9_-]{0,31}\n"  # decided_by.role
    r"[0-9a-f]*\n[0-9a-f]*\n[0-9a-f]*\n[0-9a-f]*"  # digests, whose lengths are right
)
_OWN_HEADERS: Final = (
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_type", EVENT_TYPE.encode()),
    ("ce_dataschema", DATA_SCHEMA.encode()),
)
"""How the headers begin that :func:`stream_guard.records.decision.encode_decision` writes."""


def read_form(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
) -> DecisionForm | None:
    """Return the decision in a record, where the record has the common form and is valid; None says nothing."""
    if type(value) is not bytes or len(value) > VALUE_BYTES_MAX or not _common(headers):
        return None
    try:
        form = _decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    about = form.about
    content, policy = about.content, about.policy
    replaces = form.kind in ("review", "appeal")
    if (
        (form.outcome is not None) != replaces
        or (form.valid_until is not None and not replaces)
        or (about.source is None and about.verdict_id is not None)
        or key != subject_key(policy.id, content.tenant, content.id)
        or not _PATTERNS.fullmatch(
            f"{form.schema_version}\n{form.id}\n{form.decided_by.role}\n{about.verdict_id or ''}\n"
            f"{content.sha256 or ''}\n{policy.sha256}\n{policy.section_sha256 or ''}"
        )
    ):
        return None
    return form


def glimpse(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> Glimpse | None:
    """Return a few fields of a record that may be a decision about a subject, unchecked; None says nothing.

    What follows from such a value follows from the value without its headers, too.
    """
    if type(value) is not bytes or len(value) > VALUE_BYTES_MAX or not _common(headers):
        return None
    try:
        return _decode_glimpse(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _common(headers: Sequence[tuple[str, bytes]]) -> bool:
    """Whether the value is the decision itself, and nothing in the headers is against it."""
    if not headers:
        return True
    if len(headers) == 6 and tuple(headers[:4]) == _OWN_HEADERS:  # noqa: PLR2004 - those and two more
        (id_name, event_id), (source_name, source) = headers[4:]
        if id_name == "ce_id" and source_name == "ce_source" and event_id and source:
            return True
    # What other writers send: as parse_decision() looks at it, which takes longer.
    try:
        open_cloud_event(None, headers, msgspec.json.decode, required=False)
    except CloudEventError:
        return False
    return not is_structured(headers)
