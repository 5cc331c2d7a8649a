"""Builds the records of the review server's audit trail: who asked for what, and when. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson

if TYPE_CHECKING:
    from stream_guard.records.verdict_event import Headers

__all__ = ["WHAT", "Asked", "build_audit_entry", "encode_audit_entry"]

SCHEMA_VERSION: Final = "1.0"
EVENT_TYPE: Final = "stream_guard.review_audit.v1"
DATA_SCHEMA: Final = "urn:stream-guard:schema:review-audit:1.0"

Asked: TypeAlias = Literal["list", "show", "lease", "release", "decide", "stats", "audit"]
WHAT: Final[tuple[Asked, ...]] = ("list", "show", "lease", "release", "decide", "stats", "audit")
"""What a person may ask the review server for."""


def build_audit_entry(
    entry_id: str,
    *,
    at_ms: int,
    who: str,
    role: str,
    what: Asked,
    item_id: str | None,
    allowed: bool,
) -> dict[str, Any]:
    """Return one entry, as ``review-audit-1.0.json`` describes it.

    Args:
        entry_id: of the entry, 32 hex digits; no other entry has it.
        at_ms: when the server had the request, Unix time in ms.
        who: the person's pseudonym.
        role: the role of the person's token.
        what: the kind of request.
        item_id: of the item that was named or leased; None where it was none.
        allowed: whether the role may do this.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "id": entry_id,
        "at": at_ms,
        "who": who,
        "role": role,
        "what": what,
        "item_id": item_id,
        "allowed": allowed,
    }


def encode_audit_entry(entry: dict[str, Any]) -> tuple[bytes, bytes, Headers]:
    """Return key, value and headers of an entry's record: a CloudEvent 1.0 in binary mode; the key is the person."""
    return (
        entry["who"].encode(),
        orjson.dumps(entry),
        [
            ("content-type", b"application/json"),
            ("ce_specversion", b"1.0"),
            ("ce_type", EVENT_TYPE.encode()),
            ("ce_dataschema", DATA_SCHEMA.encode()),
            ("ce_id", entry["id"].encode()),
            ("ce_source", b"/stream-guard/review"),
        ],
    )
