"""What a person chose about a verdict, and the decision that it becomes; for commands, the review API and pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from stream_guard.core.errors import SettingsError
from stream_guard.core.field_faults import field_faults
from stream_guard.records.decision import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.records.decision import About

__all__ = ["Choice", "Section", "decision_of"]


class Choice(NamedTuple):
    """What a person decides about a verdict.

    Attributes:
        decision: ``violates`` or ``safe``; None for a retraction and an expiry.
        kind: ``review``, ``appeal``, ``retraction`` or ``expiry``.
        category: of the policy, or None.
        action: to recommend. None: ``none`` if safe; else that of the policy or of the verdict.
        reason: the person's words, or None.
        valid_until: when the decision expires, Unix time in ms, or None.
    """

    decision: str | None
    kind: str = "review"
    category: str | None = None
    action: str | None = None
    reason: str | None = None
    valid_until: int | None = None


class Section(NamedTuple):
    """The category whose meaning a decision rests on, and the digest of that meaning.

    Both are None where the digest is unknown: then the decision counts while the whole policy keeps its digest.
    """

    code: str | None
    sha256: str | None


def decision_of(
    choice: Choice,
    *,
    decision_id: str,
    by: str,
    role: str,
    about: About | Mapping[str, Any],
    outcome: Mapping[str, Any] | None,
    now_ms: int,
) -> Decision:
    """Return the decision that a choice becomes.

    Args:
        choice: what the person chose.
        decision_id: its id.
        by: the person's pseudonym.
        role: the person's role.
        about: the verdict, its content, policy and source.
        outcome: what is to stand instead of the verdict; None for a retraction and an expiry.
        now_ms: when it was decided, Unix time in ms.

    Raises:
        SettingsError: a field is invalid. The message names the first ones.
    """
    try:
        return Decision.model_validate(
            {
                "schema_version": "1.0",
                "id": decision_id,
                "kind": choice.kind,
                "decided_at": now_ms,
                "decided_by": {"id": by, "role": role},
                "about": about,
                "outcome": outcome,
                "reason": choice.reason,
                "valid_until": choice.valid_until,
                "breaker": None,
            }
        )
    except ValidationError as error:
        raise SettingsError(
            f"the decision is invalid: {field_faults(error, choice.kind)}"
        ) from None
