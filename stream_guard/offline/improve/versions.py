"""Which version of a policy was in force when, by the archive's records and the folder of policies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from stream_guard.core.errors import EvidenceError, PolicyError
from stream_guard.judging.archive.promotion import PROMOTIONS, Version, read_promotions
from stream_guard.kafka.archive import require_archive
from stream_guard.policies.store import build_policies, read_policy_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.archive.archive import Note
    from stream_guard.judging.archive.promotion import Promotion
    from stream_guard.settings import Settings

__all__ = ["Period", "PolicyVersions", "periods", "versions_in_force"]


@dataclass(slots=True, frozen=True)
class Period:
    """One version in force.

    Attributes:
        version: which.
        from_ms: since when, Unix time in ms; None where no record says so.
        until_ms: until when; None where it is still in force, or where no record says so.
        how: what brought it: a promotion, a rollback, or an edit by hand, of which there is no record; ``first`` for
            the version before the first record.
        by: who; empty without a record.
        reason: why, in that person's words; empty without a record.
        live: whether it is in force now.
    """

    version: Version
    from_ms: int | None
    until_ms: int | None
    how: Literal["promote", "rollback", "edit", "first"]
    by: str = ""
    reason: str = ""
    live: bool = False


@dataclass(slots=True, frozen=True)
class PolicyVersions:
    """The versions of a policy, the latest first.

    Attributes:
        policy_id: the policy's id.
        periods: the versions; empty where a record was altered or is missing.
        fault: why there are none; empty otherwise.
    """

    policy_id: str
    periods: Sequence[Period]
    fault: str = ""


async def versions_in_force(settings: Settings) -> tuple[list[PolicyVersions], str]:
    """Return the versions of every policy, and why the live ones are unknown; empty where they are known.

    Raises:
        SettingsError: the archive is off.
        EvidenceError: the archive cannot be read.
        BrokerError: the archive's broker does not answer.
    """
    by_policy: dict[str, list[Note]] = {}
    for note in await require_archive(settings).notes(PROMOTIONS):
        policy_id, slash, _ = note.key.removeprefix(PROMOTIONS).rpartition("/")
        if slash:
            by_policy.setdefault(policy_id, []).append(note)
    live, fault = await asyncio.to_thread(_live, settings)
    found = [
        _versions(policy_id, by_policy.get(policy_id, []), live.get(policy_id))
        for policy_id in sorted(by_policy.keys() | live.keys())
    ]
    return found, fault


def _live(settings: Settings) -> tuple[dict[str, Version], str]:
    engine = settings.engine
    try:
        policies = build_policies(
            read_policy_files(settings.policies.path),
            effort=engine.effort,
            reasoning_tokens_max=engine.reasoning_tokens_max,
            answer=engine.answer,
            routes_needed=False,
        )
    except PolicyError as error:
        return {}, str(error)
    return {
        slug: Version(policy.version, policy.sha256) for slug, policy in policies.policies.items()
    }, ""


def _versions(policy_id: str, notes: Sequence[Note], live: Version | None) -> PolicyVersions:
    try:
        records = read_promotions(notes, policy_id)
    except EvidenceError as error:
        return PolicyVersions(policy_id, (), str(error))
    return PolicyVersions(policy_id, periods(records, live))


def periods(records: Sequence[Promotion], live: Version | None) -> list[Period]:
    """Return the versions that records tell of, the latest first. Pure.

    Args:
        records: of one policy, oldest first.
        live: the version in force now; None where the policy is gone, or is unknown.
    """
    found: list[Period] = []
    for record in records:
        if not found:
            found.append(Period(record.old, None, record.at_ms, "first"))
        elif found[-1].version.sha256 == record.old.sha256:
            found[-1] = replace(found[-1], until_ms=record.at_ms)
        else:
            found.append(Period(record.old, None, record.at_ms, "edit"))
        found.append(Period(record.new, record.at_ms, None, record.kind, record.by, record.reason))
    if live is not None:
        if found and found[-1].version.sha256 == live.sha256:
            found[-1] = replace(found[-1], live=True)
        else:
            how: Literal["edit", "first"] = "edit" if found else "first"
            found.append(Period(live, None, None, how, live=True))
    return found[::-1]
