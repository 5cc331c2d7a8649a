"""Reads verdicts and exports them as statements. Of several verdicts with one id, the last one counts.

Every violating verdict yields a statement, an error line or a count.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from stream_guard.core.errors import SettingsError
from stream_guard.kafka.ranges import RangeReader
from stream_guard.offline.audit.replay_run import read_verdict
from stream_guard.offline.export.dsa import Statements, UnmappableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from stream_guard.kafka.bounds import Bound
    from stream_guard.settings import KafkaSettings


@dataclass(slots=True)
class Exported:
    """The result of an export.

    Attributes:
        statements: valid under the schema.
        errors: one for each verdict that could not be mapped, with its id, record, policy and the reason.
        not_owed: number of violating verdicts whose action is not a restriction, by the mapping.
    """

    statements: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    not_owed: int = 0


def export(statements: Statements, verdicts: Iterable[dict[str, Any]]) -> Exported:
    """Make statements from violating verdicts, except those of shadow policies."""
    made = Exported()
    last = {verdict["id"]: verdict for verdict in verdicts}
    for verdict in last.values():
        if verdict["decision"] != "violates" or verdict["provenance"]["route_mode"] == "shadow":
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
    return made


async def topic_verdicts(
    settings: KafkaSettings,
    first: Bound | None,
    last: Bound | None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[dict[str, Any]]:
    """Return the verdicts in a range of the verdict topic. Raises BrokerError."""
    async with RangeReader(settings, progress) as reader:
        spans = await reader.spans(settings.verdict_topic, first, last)
        return [
            verdict
            async for record in reader.read(spans)
            if (verdict := read_verdict(record.value)) is not None
        ]


async def file_verdicts(path: Path) -> list[dict[str, Any]]:
    """Return the verdicts in a file of JSON lines.

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
        verdict = read_verdict(line)
        if verdict is None and line.strip():
            message = f"--input {path}:{number}: not a verdict; use the output of stream-guard tail --json"
            raise SettingsError(message)
        if verdict is not None:
            verdicts.append(verdict)
    return verdicts


def json_lines(documents: Iterable[dict[str, Any]]) -> bytes:
    """Return documents as JSON lines."""
    return b"".join(orjson.dumps(document) + b"\n" for document in documents)
