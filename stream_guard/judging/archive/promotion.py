"""Records of the archive that say who made which version of a policy live, and why. Pure.

A record is a JSON document. Its key holds the digest of its bytes, and it names the record before it: a record that was
altered or removed is noticed. Verdicts do not need these records; people do.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import orjson

from stream_guard.core.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.judging.archive.archive import Note

__all__ = [
    "PROMOTIONS",
    "Promotion",
    "Version",
    "promotions_prefix",
    "read_promotions",
    "write_promotion",
]

PROMOTIONS: Final = "promotions/"
"""What the keys of all these records begin with."""

FORMAT: Final = "stream-guard.promotion/1"
Kind: TypeAlias = Literal["promote", "rollback"]


class Version(NamedTuple):
    """A version of a policy: its name for people, and the digest of its files."""

    version: str
    sha256: str

    def __str__(self) -> str:
        if self.sha256.startswith(self.version):
            return self.version
        return f"{self.version} ({self.sha256[:12]})"


@dataclass(slots=True, frozen=True)
class Promotion:
    """One change of the live version.

    Attributes:
        kind: ``promote`` or ``rollback``.
        policy_id: the policy's id.
        at_ms: when, Unix time in ms.
        by: who.
        reason: why, in that person's words.
        old, new: the live version before and after.
        gates: each gate with its limit, its value and whether it held; empty for a rollback.
        figures: all figures behind the gates, as plain data.
        previous: digest of the record before this one about the same policy; None for the first.
        program: version of Stream Guard.
        sha256: digest of this record; empty before it is written.
    """

    kind: Kind
    policy_id: str
    at_ms: int
    by: str
    reason: str
    old: Version
    new: Version
    gates: tuple[dict[str, Any], ...]
    figures: dict[str, Any]
    previous: str | None
    program: str
    sha256: str = field(default="", compare=False)

    def describe(self) -> dict[str, Any]:
        """Return the record as plain data for JSON."""
        return asdict(self) | {"old": self.old._asdict(), "new": self.new._asdict()}


def promotions_prefix(policy_id: str) -> str:
    """Return what the keys of a policy's records begin with."""
    return f"{PROMOTIONS}{policy_id}/"


def write_promotion(promotion: Promotion) -> tuple[str, bytes]:
    """Return the key and the bytes of a record."""
    document = {"format": FORMAT, **promotion.describe()}
    del document["sha256"]
    content = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return promotions_prefix(promotion.policy_id) + hashlib.sha256(content).hexdigest(), content


def read_promotions(notes: Iterable[Note], policy_id: str) -> list[Promotion]:
    """Return the records of a policy, oldest first, after verifying them.

    Args:
        notes: of the archive, with the prefix of this policy.
        policy_id: the policy's id.

    Raises:
        EvidenceError: a record was altered, or one is missing.
    """
    found: dict[str, Promotion] = {}
    for note in notes:
        sha256 = hashlib.sha256(note.content).hexdigest()
        if note.key != promotions_prefix(policy_id) + sha256:
            message = f"{note.where}: was altered after it was archived; restore it from a backup, and find out by whom"
            raise EvidenceError(message)
        found[sha256] = _read(note, sha256)
    for promotion in found.values():
        if promotion.previous is not None and promotion.previous not in found:
            message = (
                f"the archive lacks the record {promotion.previous[:12]} of {policy_id!r}, which the record "
                f"{promotion.sha256[:12]} follows; restore it from a backup, and find out who removed it"
            )
            raise EvidenceError(message)
    return _in_order(found)


def _in_order(found: dict[str, Promotion]) -> list[Promotion]:
    """Return records after those that they follow; by time where two follow one record."""
    following: dict[str | None, list[Promotion]] = {}
    for promotion in sorted(found.values(), key=lambda each: (each.at_ms, each.sha256)):
        following.setdefault(promotion.previous, []).append(promotion)
    ordered: list[Promotion] = []
    ready = following.pop(None, [])
    while ready:
        ready.sort(key=lambda each: (each.at_ms, each.sha256))
        ordered.append(ready.pop(0))
        ready += following.pop(ordered[-1].sha256, [])
    return ordered


def _read(note: Note, sha256: str) -> Promotion:
    try:
        document = orjson.loads(note.content)
        if document.pop("format") != FORMAT:
            raise ValueError("another format")  # noqa: TRY301 - one message for all that is no record
        document |= {name: Version(**document[name]) for name in ("old", "new")}
        document |= {"gates": tuple(document["gates"]), "sha256": sha256}
        return Promotion(**document)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"{note.where}: is no record of a promotion ({type(error).__name__})"
        raise EvidenceError(message) from error
