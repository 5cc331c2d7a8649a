"""Runs a replay: finds verdicts, their records and their policies, and rebuilds the prompts.

It never joins a consumer group and writes nothing. It reports a result for every verdict.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.core.english import did_you_mean
from stream_guard.core.errors import EvidenceError, OperatorError, RecordError, SettingsError
from stream_guard.kafka.archive import require_archive
from stream_guard.kafka.ranges import RangeReader
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.kafka.registry.written import open_verdicts
from stream_guard.offline.audit.audit_judge import AuditJudge
from stream_guard.offline.audit.replay import Rebuilder, Replayed, compare, read_entries
from stream_guard.policies.policy import PolicySet
from stream_guard.policies.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.judging.archive.archive import Kept
    from stream_guard.kafka.bounds import Bound
    from stream_guard.kafka.registry.written import VerdictReader
    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import Post, PostParser
    from stream_guard.settings import Settings

VERDICTS_MAX: Final = 100_000
"""Of one replay. All are held in memory."""
_ID: Final = re.compile(r"[0-9a-f]{32}")
_JUDGED_AT_ONCE: Final = 256


@dataclass(slots=True, frozen=True)
class Wanted:
    """Which verdicts to replay: by id, or all in a range of the verdict topics.

    Attributes:
        ids: 32 hex digits each; empty for all.
        first, last: the range.
        policy: id of the only policy to include; None for every policy.
        judge: whether to judge each post again.
    """

    ids: frozenset[str] = field(default_factory=frozenset)
    first: Bound | None = None
    last: Bound | None = None
    policy: str | None = None
    judge: bool = False


def check_ids(ids: Sequence[str]) -> frozenset[str]:
    """Return ids as a set. Raises SettingsError where one is not a verdict id."""
    for one in ids:
        if _ID.fullmatch(one) is None:
            message = f"{one!r} is not a verdict id; give the 32 hex digits in a verdict's id or its header ce_id"
            raise SettingsError(message)
    return frozenset(ids)


async def replay(
    settings: Settings,
    wanted: Wanted,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Replayed]:
    """Replay verdicts, and return a result for each, in the order of their records.

    Raises:
        OperatorError: an id names no verdict, or there are too many verdicts.
        BrokerError: the broker does not answer, or a topic does not exist.
        EngineError: the model's tokenizer cannot be read, or the engine does not start.
        EvidenceError: the archive is off.
    """
    archive = require_archive(settings)
    verdicts = await find_verdicts(settings, wanted, progress)
    kept = await archive.load(frozenset(one["policy"]["sha256"] for one in verdicts))
    records = await _read_records(settings, verdicts)
    async with open_parser(settings) as parser:
        await parser.prepare(
            [one for one in records.values() if not isinstance(one, EvidenceError)]
        )
        rebuilder = await asyncio.to_thread(_make_rebuilder, settings, verdicts, parser.posts)
        replayed = await asyncio.to_thread(
            _rebuild_all, rebuilder, verdicts, records, kept, _name_archive(settings)
        )
    if wanted.judge:
        await _judge_again(settings, replayed)
    return replayed


async def find_verdicts(
    settings: Settings, wanted: Wanted, progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    """Return verdicts in the order of their records. Of several with one id, the last one counts."""
    kafka = settings.kafka
    topics = [kafka.verdict_topic, *([kafka.shadow_topic] if kafka.shadow_topic else [])]
    found: dict[str, dict[str, Any]] = {}
    others: set[str] = set()
    async with RangeReader(kafka, progress) as reader, open_verdicts(settings) as reading:
        for topic in topics:
            async for record in reader.read(await reader.spans(topic, wanted.first, wanted.last)):
                verdict = await read_verdict(reading, record.value)
                if verdict is None or (wanted.ids and verdict["id"] not in wanted.ids):
                    continue
                if wanted.policy is not None and verdict["policy"]["id"] != wanted.policy:
                    others.add(verdict["policy"]["id"])
                    continue
                found[verdict["id"]] = verdict
                if len(found) > VERDICTS_MAX:
                    message = f"--from, --to: over {VERDICTS_MAX:,} verdicts; narrow the range, or give --policy"
                    raise OperatorError(message)
    missing = sorted(wanted.ids - found.keys())
    if missing or not found:
        more = f" and {len(missing) - 1} more ids" if len(missing) > 1 else ""
        what = f"no verdict {missing[0]}{more}" if missing else "no verdict"
        if wanted.policy is not None:
            what += f" of the policy {wanted.policy}{did_you_mean(wanted.policy, others)}"
        message = f"{what} in {' and '.join(topics)} on {kafka.bootstrap_servers} in that range"
        raise OperatorError(message)
    return sorted(found.values(), key=lambda one: (*_place(one), one["policy"]["id"]))


async def read_verdict(reading: VerdictReader, value: bytes | None) -> dict[str, Any] | None:
    """Return the verdict in a record's value; None where the value is not a verdict. Raises as the reader."""
    try:
        return whole_verdict(await reading.read(value))
    except (orjson.JSONDecodeError, RecordError):
        return None


def whole_verdict(document: Any) -> dict[str, Any] | None:  # noqa: ANN401 - any JSON value
    """Return a document that is a verdict; None where it is not one."""
    try:
        whole = document["source"]["offset"] >= 0 and bool(
            document["policy"]["sha256"] and document["id"]
        )
    except (KeyError, TypeError):
        return None
    return document if whole and "provenance" in document else None


def _place(verdict: dict[str, Any]) -> tuple[str, int, int]:
    source = verdict["source"]
    return source["topic"], source["partition"], source["offset"]


async def _read_records(
    settings: Settings, verdicts: Sequence[dict[str, Any]]
) -> dict[tuple[str, int, int], Record | EvidenceError]:
    """Return the record of each verdict, or the error that says why it is missing."""
    records: dict[tuple[str, int, int], Record | EvidenceError] = {}
    async with RangeReader(settings.kafka) as reader:
        for place in dict.fromkeys(map(_place, verdicts)):
            try:
                records[place] = await reader.at(*place)
            except EvidenceError as error:
                records[place] = error
    return records


def _make_rebuilder(
    settings: Settings, verdicts: Sequence[dict[str, Any]], parser: PostParser
) -> Rebuilder:
    overlap_tokens = settings.engine.window_overlap_tokens
    if all(verdict["provenance"]["prompt_sha256"] is None for verdict in verdicts):
        return Rebuilder(parser, None, None, overlap_tokens)
    from stream_guard.judging.families.model_files import tokenizer_sha256
    from stream_guard.judging.families.registry import load_family

    family = load_family(settings.engine)
    return Rebuilder(parser, family, tokenizer_sha256(settings.engine), overlap_tokens)


def _rebuild_all(
    rebuilder: Rebuilder,
    verdicts: Sequence[dict[str, Any]],
    records: dict[tuple[str, int, int], Record | EvidenceError],
    kept: Sequence[Kept],
    archive: str,
) -> list[Replayed]:
    replayed = []
    for verdict in verdicts:
        record = records[_place(verdict)]
        try:
            if isinstance(record, EvidenceError):
                raise record
            entries = read_entries(kept, verdict, archive)
        except EvidenceError as error:
            replayed.append(Replayed(verdict, "unproven", str(error)))
        else:
            replayed.append(rebuilder.rebuild(verdict, record, entries))
    return replayed


async def _judge_again(settings: Settings, replayed: Sequence[Replayed]) -> None:
    """Judge each rebuilt post again, and note how the answers differ."""
    policies: dict[str, Policy] = {}
    asked: list[tuple[Replayed, Post, Policy]] = []
    for one in replayed:
        if one.post is None or one.entry is None or one.status == "unproven":
            continue
        name = one.entry.name.policy_sha256
        if name not in policies:
            policies[name] = one.entry.policy()
        asked.append((one, one.post, policies[name]))
    if not asked:
        return
    # By digest, because two versions of a policy have the same id.
    live = PolicySet.of(policies, Routing(default=tuple(policies)))
    async with AuditJudge(settings, live, duplicates=False) as judge:
        for begin in range(0, len(asked), _JUDGED_AT_ONCE):
            part = asked[begin : begin + _JUDGED_AT_ONCE]
            judgements = await judge.judge((post, policy) for _, post, policy in part)
            for (one, _, _), judgement in zip(part, judgements, strict=True):
                error = None if judgement.error is None else str(judgement.error)
                provenance = judgement.provenance
                sampling = None if provenance is None else provenance.sampling
                one.judged = compare(one.verdict, judgement.answer, error, sampling)


def _name_archive(settings: Settings) -> str:
    if settings.policies.archive == "folder":
        return str(settings.policies.archive_path)
    return settings.kafka.archive_topic
