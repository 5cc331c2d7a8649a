"""Reads verdicts and exports them as statements. Of several verdicts with one id, the last one counts.

Every violating verdict yields a statement, an error line or a count.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.core.errors import RecordError, SettingsError
from stream_guard.kafka.ranges import RangeReader
from stream_guard.kafka.registry.written import open_verdicts
from stream_guard.offline.audit.replay_run import read_verdict, whole_verdict
from stream_guard.offline.export.dsa import Statements, UnmappableError
from stream_guard.records.verdict_event import decode_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from stream_guard.kafka.bounds import Bound
    from stream_guard.settings import Settings


_FIELDS: Final = ("id", "supersedes", "decision", "needs_review")
"""What :func:`export` reads of a verdict that owes no statement, besides its kind of route."""


@dataclass(slots=True)
class Exported:
    """The result of an export.

    Attributes:
        statements: valid under the schema.
        errors: one for each verdict that could not be mapped, with its id, record, policy and the reason.
        not_owed: number of violating verdicts whose action is not a restriction, by the mapping, or that confirm a
            verdict that has its statement here.
        undecided: number of verdicts that leave the post to people, who have not decided in this range.
    """

    statements: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    not_owed: int = 0
    undecided: int = 0


def export(statements: Statements, verdicts: Iterable[dict[str, Any]]) -> Exported:
    """Make statements from violating verdicts, except those of shadow policies.

    What a person decided is a verdict of its own. It has a statement unless the verdict that it supersedes has one.
    """
    made = Exported()
    last = {verdict["id"]: verdict for verdict in verdicts}
    decided = {verdict["supersedes"] for verdict in last.values() if "supersedes" in verdict}
    done: set[str] = set()
    for verdict in sorted(last.values(), key=lambda one: "supersedes" in one):
        if verdict["provenance"]["route_mode"] == "shadow":
            continue
        if verdict["decision"] != "violates":
            left = verdict["decision"] == "undetermined" and verdict["needs_review"]
            made.undecided += left and verdict["id"] not in decided
            continue
        if verdict.get("supersedes") in done:
            made.not_owed += 1
            continue
        try:
            statement = statements.make(verdict)
        except UnmappableError as error:
            source = verdict["source"]
            place = f"{source['topic']}/{source['partition']}/{source['offset']}"
            about = {
                "verdict_id": verdict["id"],
                "record": place,
                "policy": verdict["policy"]["id"],
            }
            made.errors.append({"error": str(error), **about})
            continue
        if statement is None:
            made.not_owed += 1
        else:
            made.statements.append(statement)
            done.add(verdict["id"])
    return made


def _owing(verdict: dict[str, Any]) -> dict[str, Any]:
    """Return what an export reads of a verdict: of most, a few fields, so that a long range fits into memory."""
    mode = verdict["provenance"]["route_mode"]
    if verdict["decision"] == "violates" and mode != "shadow":
        return verdict
    part = {name: verdict[name] for name in _FIELDS if name in verdict}
    return part | {"provenance": {"route_mode": mode}}


async def topic_verdicts(
    settings: Settings,
    first: Bound | None,
    last: Bound | None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    offsets_max: int | None = None,
) -> list[dict[str, Any]]:
    """Return the verdicts in a range of the verdict topic, of those that owe no statement a few fields.

    Args:
        settings: the broker and the topic.
        first: the range's beginning; None for the topic's.
        last: the range's end; None for the current end.
        progress: called with the offsets read and their total.
        offsets_max: the most offsets that the range may have; None for any number.

    Raises:
        BrokerError: the broker does not answer.
        SettingsError: the range has more offsets; or verdicts are Avro, and ``registry.url`` is not set.
    """
    async with RangeReader(settings.kafka, progress) as reader, open_verdicts(settings) as reading:
        spans = await reader.spans(settings.kafka.verdict_topic, first, last)
        count = sum(span.end - span.begin for span in spans.values())
        if offsets_max is not None and count > offsets_max:
            message = f"the range has {count:,} offsets, and the limit is {offsets_max:,}; take a shorter range"
            raise SettingsError(message)
        return [
            _owing(verdict)
            async for record in reader.read(spans)
            if (verdict := await read_verdict(reading, record.value)) is not None
        ]


async def file_verdicts(path: Path) -> list[dict[str, Any]]:
    """Return the verdicts in a file of JSON lines, of those that owe no statement a few fields.

    Raises:
        SettingsError: the file cannot be read, or a line is not a verdict.
    """
    try:
        lines = (await asyncio.to_thread(path.read_bytes)).splitlines()
    except OSError as error:
        message = f"--input {path}: cannot be read ({error.strerror}); name a readable file"
        raise SettingsError(message) from error
    verdicts = []
    for number, line in enumerate(lines, 1):
        verdict = _of_line(line)
        if verdict is None and line.strip():
            message = f"--input {path}:{number}: not a verdict; use the output of stream-guard tail --json"
            raise SettingsError(message)
        if verdict is not None:
            verdicts.append(_owing(verdict))
    return verdicts


def _of_line(line: bytes) -> dict[str, Any] | None:
    try:
        return whole_verdict(decode_verdict(line))
    except (orjson.JSONDecodeError, RecordError):
        return None


def json_lines(documents: Iterable[dict[str, Any]]) -> bytes:
    """Return documents as JSON lines."""
    return b"".join(orjson.dumps(document) + b"\n" for document in documents)
