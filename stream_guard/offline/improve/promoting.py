"""Makes a draft live, or an archived version live again, with a record of who, why and on which figures.

Theory of operation. Everything is read once: the bytes that were measured are the bytes that go live. Both versions and
the record are in the archive before the live folder changes, so that no change is without a record. A record whose
change was interrupted is harmless: the live version is the one in the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stream_guard.core.errors import EvidenceError, LimitError, OperatorError, PolicyError
from stream_guard.core.threads import entered_in_thread, run_to_its_end
from stream_guard.core.version import package_version
from stream_guard.judging.archive.archive import Keeper
from stream_guard.judging.archive.promotion import (
    Promotion,
    Version,
    promotions_prefix,
    read_promotions,
    write_promotion,
)
from stream_guard.kafka.archive import require_archive
from stream_guard.policies.policy import PolicySet
from stream_guard.policies.replacing import locked, staged
from stream_guard.policies.store import (
    build_policies,
    read_policy_files,
    refuse_errors,
    replace_policy,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stream_guard.judging.archive.archive import PolicyArchive
    from stream_guard.judging.archive.entry import Entry
    from stream_guard.judging.archive.promotion import Kind
    from stream_guard.offline.improve.gates import Gate, Measured
    from stream_guard.policies.drafts import Draft
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

__all__ = ["Change", "check_draft", "history", "promote", "rollback"]

_SHA256_DIGITS_MIN = 6


@dataclass(slots=True, frozen=True)
class Change:
    """Who changes the live version of a policy, and why.

    Attributes:
        settings: the archive, and the defaults of policies.
        path: the folder of policies.
        live: the live version, as it was measured.
        by: who.
        reason: why.
        now_ms: Unix time in ms.
    """

    settings: Settings
    path: Path
    live: Policy
    by: str
    reason: str
    now_ms: int


def check_draft(live: Policy, draft: Draft) -> None:
    """Refuse a draft that changes nothing, or that was made from another version than the live one.

    Raises:
        PolicyError: it is one of these.
    """
    if draft.policy.files == live.files:
        message = f"{draft.folder}: is equal to the live version {live.version}; edit it first"
        raise PolicyError(message)
    if draft.base != live.sha256:
        message = (
            f"{draft.folder}: was made from the version {draft.base[:12]}, but {live.sha256[:12]} is live now; bring "
            f"what changed into the draft, then run: stream-guard policies draft {live.id} --rebase (or start again "
            "with --fresh)"
        )
        raise PolicyError(message)


async def promote(
    change: Change, draft: Draft, gates: Sequence[Gate], measured: Measured
) -> Promotion:
    """Make a draft live, and return the record.

    Args:
        change: who and why.
        draft: as it was measured.
        gates: every gate of the policy.
        measured: the figures.

    Raises:
        LimitError: a gate does not hold.
        PolicyError: the draft cannot be live, the live version has changed, or the archive refuses it.
        SettingsError: the archive is off.
        BrokerError: the archive's broker does not answer.
    """
    check_draft(change.live, draft)
    failing = [str(gate) for gate in gates if not gate.held]
    if failing or not gates:
        raise LimitError("\n".join(failing) or "no gate was checked")
    about = tuple(gate._asdict() for gate in gates)
    return await _replace(change, "promote", draft.policy, about, measured.describe())


async def rollback(change: Change, to: str | None) -> Promotion:
    """Make an archived version live again, and return the record.

    Args:
        change: who and why.
        to: the version's name, or the first digits of its sha256. None for the version that the latest promotion of
            the live version replaced; after an edit by hand, for the version of the latest record.

    Raises:
        OperatorError: there is no such version, or it is live.
        EvidenceError: the archive lacks it, or it was altered.
        PolicyError, SettingsError, BrokerError: as :func:`promote`.
    """
    archive = require_archive(change.settings)
    target = await _target(archive, change, to)
    if target.files == change.live.files:
        message = f"{change.live.id}: the version {target.version} is live already; name another one with --to"
        raise OperatorError(message)
    return await _replace(change, "rollback", target.policy(), (), {}, files=target.files)


async def history(settings: Settings, slug: str) -> list[Promotion]:
    """Return the records of a policy, oldest first. Raises as :func:`rollback`."""
    return await _history(require_archive(settings), slug)


async def _history(archive: PolicyArchive, slug: str) -> list[Promotion]:
    return read_promotions(await archive.notes(promotions_prefix(slug)), slug)


async def _target(archive: PolicyArchive, change: Change, to: str | None) -> Entry:
    slug, live = change.live.id, change.live.sha256
    records = await _history(archive, slug)
    if to is None:
        promoted = [each for each in records if each.kind == "promote"]
        found = next((each.old for each in reversed(promoted) if each.new.sha256 == live), None)
        if records and records[-1].new.sha256 != live:
            found = records[-1].new  # somebody edited the live folder since
        if found is None:
            message = (
                f"{slug}: no promotion made the live version {change.live.version}, so nothing says which version was "
                "before it; name one with --to"
            )
            raise OperatorError(message)
        return await _entry(archive, slug, found.sha256)
    named = {
        version.sha256
        for each in records
        for version in (each.old, each.new)
        if version.version == to or version.sha256.startswith(to)
    }
    if not named and len(to) >= _SHA256_DIGITS_MIN:
        named = {
            one.name.policy_sha256
            for one in await archive.load()
            if one.name.policy_sha256.startswith(to) and one.read().policy_id == slug
        }
    if len(named) != 1:
        what = "several versions" if named else "no version"
        message = (
            f"--to {to}: the archive has {what} of {slug!r} with this name; stream-guard policies history {slug} lists "
            "them, and the digits of a sha256 name one exactly"
        )
        raise OperatorError(message)
    return await _entry(archive, slug, named.pop())


async def _entry(archive: PolicyArchive, slug: str, sha256: str) -> Entry:
    entries = [one.read() for one in await archive.load(frozenset({sha256}))]
    own = [entry for entry in entries if entry.policy_id == slug]
    if not own:
        message = f"{slug}: the archive lacks the version {sha256[:12]}; name another one with --to"
        raise OperatorError(message)
    return own[-1]


async def _replace(
    change: Change,
    kind: Kind,
    new: Policy,
    gates: tuple[dict[str, Any], ...],
    figures: dict[str, Any],
    *,
    files: Mapping[str, bytes] | None = None,
) -> Promotion:
    """Archive both versions and the record, then make the new version live."""
    settings, live = change.settings, change.live
    archive = require_archive(settings)
    contents = new.files if files is None else files
    async with entered_in_thread(locked(change.path)):
        await run_to_its_end(partial(_check_set, change, contents))
        await _keep(archive, settings, live)
        await _keep(archive, settings, new)
        records = await _history(archive, live.id)
        program = await run_to_its_end(package_version)
        key, content = write_promotion(
            record := Promotion(
                kind=kind,
                policy_id=live.id,
                at_ms=change.now_ms,
                by=change.by,
                reason=change.reason,
                old=Version(live.version, live.sha256),
                new=Version(new.version, new.sha256),
                gates=gates,
                figures=figures,
                previous=records[-1].sha256 if records else None,
                program=program,
            )
        )
        staging = staged(change.path / live.id, live.files, contents)
        async with entered_in_thread(staging) as make_live:
            await archive.add_note(key, content)
            await run_to_its_end(make_live)
    return record


def _check_set(change: Change, contents: Mapping[str, bytes]) -> None:
    """Check all policies and routes as they will be. Raises PolicyError."""
    engine, live = change.settings.engine, change.live
    reading = read_policy_files(change.path)
    for files in (reading, replace_policy(reading, live.id, contents)):
        policies = build_policies(
            files,
            effort=engine.effort,
            reasoning_tokens_max=engine.reasoning_tokens_max,
            answer=engine.answer,
            routes_needed=False,
        )
        if files is reading and policies.policies[live.id].files != live.files:
            message = f"{change.path / live.id}: was edited in the meantime; run the command again"
            raise PolicyError(message)
    refuse_errors(policies, change.path)


async def _keep(archive: PolicyArchive, settings: Settings, policy: Policy) -> None:
    """Archive a version as the service does, unless the archive has it. Raises as :meth:`.PolicyArchive.keep`."""
    if await _is_kept(archive, policy):
        return  # a rollback needs no model
    kind = settings.engine.kind
    keeper = await Keeper.of(archive, settings, {"engine": kind, "model": kind})
    assert keeper is not None, "the archive is not off"
    await keeper.keep(PolicySet({policy.id: policy}, default=(policy.id,)))


async def _is_kept(archive: PolicyArchive, policy: Policy) -> bool:
    """Return whether the archive has exactly these files."""
    try:
        kept = await archive.load(frozenset({policy.sha256}))
    except EvidenceError:
        return False  # there is no archive yet
    entries = [one.read() for one in kept]
    return any(each.policy_id == policy.id and each.files == policy.files for each in entries)
