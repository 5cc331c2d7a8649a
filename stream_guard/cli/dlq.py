"""The commands about dead letters: commands only, no logic."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from stream_guard.cli.terminal import stdout_kept_clean
from stream_guard.cli.views.dead_letter import COLUMNS, Newest, details, offset_range, row
from stream_guard.core.errors import OperatorError
from stream_guard.core.times import time_ms
from stream_guard.records.dead_letter import DeadLetterFilter, Place
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from stream_guard.kafka.dead_letter_reader import Survey
    from stream_guard.records.dead_letter import DeadLetter
    from stream_guard.settings import KafkaSettings

app = typer.Typer(
    name="dlq",
    help="List, show and replay dead letters: records that could not be judged.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
_WIDTH_OF_A_PIPE: Final = 1_000
err = Console(stderr=True, highlight=False)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Settings as TOML.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
ReasonOption = Annotated[
    list[str] | None,
    typer.Option("--reason", "-r", metavar="WORD", help="Of this reason; may be repeated."),
]
TopicOption = Annotated[
    str | None, typer.Option("--topic", "-t", help="Whose record comes from this topic.")
]
PartitionOption = Annotated[
    int | None, typer.Option("--partition", "-p", min=0, help="And from this partition of it.")
]
OffsetsOption = Annotated[
    str | None, typer.Option("--offsets", metavar="A-B", help="And these offsets, both included.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Given up at this time or later.")
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Given up before this time.")
]
IdOption = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="This one; may be repeated.")
]


@app.command("list", epilog="Example: stream-guard dlq list --reason json --since 2026-01-31")
def list_letters(  # noqa: PLR0913 - each an option of the command
    *,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    partition: PartitionOption = None,
    offsets: OffsetsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="The last so many; 0 for all.")
    ] = 50,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List dead letters, and count them by reason; the counts are of all, whatever the limit."""
    wanted = _filter(reason, topic, partition, offsets, since, until)
    newest = Newest(limit)
    seen = run_quietly(_survey(load_settings(config).kafka, wanted, newest.add))
    kept = newest.letters()
    if json:
        listed = [{**letter.describe(), "replayed": letter.id in seen.replayed} for letter in kept]
        _write_json({**_counts(seen), "dead_letters": listed})
        return
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for letter in kept:
        table.add_row(*row(letter, replayed=letter.id in seen.replayed))
    # Into a file or a pipe nothing is folded: each dead letter is one line there.
    out.print(table, width=None if out.is_terminal else _WIDTH_OF_A_PIPE)
    _print_counts(seen, shown=len(kept))


@app.command(epilog="Example: stream-guard dlq show posts/3/41 --content")
def show(
    which: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC/PARTITION/OFFSET|ID",
            help="Its own place, its record's place, or its id.",
        ),
    ],
    *,
    content: Annotated[
        bool, typer.Option("--content", help="The record's key and value as well.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show a dead letter: where, when, why, its headers, and with --content its bytes."""
    letters = run_quietly(_find(load_settings(config).kafka, which))
    if not letters:
        message = f"no dead letter {which!r}; stream-guard dlq list has those that there are"
        raise OperatorError(message)
    for letter in letters:
        if json:
            _write_json(_document(letter, content=content))
            continue
        for line in details(letter, content=content):
            out.print(line, markup=False, soft_wrap=True)


@app.command(epilog="Example: stream-guard dlq replay --reason missing_field --dry-run")
def replay(  # noqa: PLR0913 - each an option of the command
    *,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    partition: PartitionOption = None,
    offsets: OffsetsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    letter_id: IdOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Send the records of dead letters back to their topics; each once, however often this is run."""
    from stream_guard.kafka.dead_letter_replay import replay as send_back

    wanted = _filter(reason, topic, partition, offsets, since, until, letter_id)
    settings = load_settings(config).kafka

    async def go() -> Survey:
        with show_progress("replaying") as progress:
            return await send_back(settings, wanted, dry_run=dry_run, progress=progress)

    seen: Survey = run_quietly(go())
    if json:
        _write_json({**_counts(seen), "sent": seen.sent, "would_send": len(seen.chosen)})
        return
    _print_counts(seen)
    told = f"would send {len(seen.chosen)}" if dry_run else f"sent {seen.sent}"
    where = f" back to {', '.join(sorted(seen.source_topics))}" if seen.source_topics else ""
    out.print(f"{told} records{where}", markup=False, soft_wrap=True)


async def _survey(
    settings: KafkaSettings, wanted: DeadLetterFilter, found: Callable[[DeadLetter], None]
) -> Survey:
    from stream_guard.kafka.dead_letter_reader import DeadLetterReader, survey

    with show_progress("reading") as progress:
        async with DeadLetterReader(settings, progress) as reader:
            return await survey(reader, await reader.ends(), wanted, found)


async def _find(settings: KafkaSettings, which: str) -> list[DeadLetter]:
    """Return the dead letter at a place of the topic, or those of the record with this place or id."""
    from stream_guard.kafka.dead_letter_reader import DeadLetterReader

    place = Place.parse(which)
    async with DeadLetterReader(settings) as reader:
        if place is not None and place.topic == settings.dead_letter_topic:
            one = await reader.at(place.partition, place.offset)
            return [] if one is None else [one]
    wanted = DeadLetterFilter(ids=frozenset([which]))
    if place is not None:
        wanted = DeadLetterFilter(
            topic=place.topic,
            partition=place.partition,
            offset_min=place.offset,
            offset_max=place.offset,
        )
    found: list[DeadLetter] = []
    await _survey(settings, wanted, found.append)
    return found


def _filter(
    reason: list[str] | None,
    topic: str | None,
    partition: int | None,
    offsets: str | None,
    since: str | None,
    until: str | None,
    ids: list[str] | None = None,
) -> DeadLetterFilter:
    low, high = (None, None) if offsets is None else offset_range(offsets)
    return DeadLetterFilter(
        reasons=frozenset(reason or ()),
        topic=topic,
        partition=partition,
        offset_min=low,
        offset_max=high,
        since_ms=None if since is None else time_ms(since, "--since"),
        until_ms=None if until is None else time_ms(until, "--until"),
        ids=frozenset(ids or ()),
    )


def _document(letter: DeadLetter, *, content: bool) -> dict[str, Any]:
    document = letter.describe()
    document["headers"] = [
        [name, None if value is None else base64.b64encode(value).decode()]
        for name, value in letter.headers
    ]
    if content:
        for name, held in (("key", letter.key), ("value", letter.value)):
            document[f"{name}_base64"] = None if held is None else base64.b64encode(held).decode()
    return document


def _counts(seen: Survey) -> dict[str, Any]:
    return {
        "total": seen.reasons.total(),
        "reasons": dict(seen.reasons.most_common()),
        "replayed_before": seen.already,
        "repeats": seen.repeats,
        "cut": seen.cut,
        "foreign": seen.foreign,
    }


def _print_counts(seen: Survey, shown: int | None = None) -> None:
    total = seen.reasons.total()
    told = f"{total} dead letters" + (
        f", the last {shown} shown" if shown not in (None, total) else ""
    )
    for reason, count in seen.reasons.most_common():
        told += f"\n  {reason}: {count}"
    for count, what in (
        (seen.already, "replayed before"),
        (seen.repeats, "of a record that has another here, which counts once"),
        (seen.cut, "cut, which cannot be replayed: the source record has the whole"),
        (seen.foreign, "records that are no dead letters of ours"),
    ):
        if count:
            told += f"\n{count} {what}"
    out.print(told, markup=False, soft_wrap=True)


@contextlib.contextmanager
def show_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr where that is a terminal."""
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def run_quietly(work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what the work returns
    """Run a command's work, without what the client logs, and with stdout left to the command's result.

    An engine in this process, or in one that it starts, may print: vLLM and what it is built on do.
    """
    # What it logs of a broker that is away comes as our error, with the setting that names it.
    log = logging.getLogger("aiokafka")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with stdout_kept_clean(), asyncio.Runner() as runner:
            return runner.run(work)
    finally:
        log.setLevel(level)


def _write_json(document: object) -> None:
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
