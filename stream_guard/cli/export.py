"""The commands that export: commands only, no logic."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from stream_guard.cli.audit import (  # noqa: TC001 - typer reads them
    ConfigOption,
    FromOption,
    ToOption,
)
from stream_guard.cli.dlq import run_quietly, show_progress
from stream_guard.core.errors import SettingsError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.kafka.bounds import read_bound
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.settings import Settings

app = typer.Typer(
    name="export",
    help="Export verdicts for others.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
err = Console(stderr=True, highlight=False)


@app.callback()
def _main() -> None:
    """Export verdicts for others."""


@app.command(
    epilog="Example: stream-guard export dsa --mapping dsa.yaml --from 2026-01-01 -o statements.jsonl"
)
def dsa(
    mapping: Annotated[
        Path,
        typer.Option(
            "--mapping",
            "-m",
            metavar="FILE",
            help="What the database calls our categories, as YAML.",
        ),
    ],
    *,
    first: FromOption = None,
    last: ToOption = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", metavar="FILE", help="Verdicts as JSON lines, instead of the topic."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="By default, to standard output."),
    ] = None,
    errors: Annotated[
        Path | None,
        typer.Option(
            "--errors", metavar="FILE", help="What cannot be mapped; by default, to standard error."
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Export violating verdicts as statements of reasons for the EU's DSA Transparency Database, one a line.

    Each is valid by the schema dsa-statement-1.0.json. What cannot be mapped is an error line, and exit code 2.
    """
    from stream_guard.offline.export.dsa import Statements
    from stream_guard.offline.export.dsa_run import export, file_verdicts, lines, topic_verdicts

    begin, end = read_bound(first, "--from"), read_bound(last, "--to")
    settings: Settings = load_settings(config)
    try:
        statements = Statements(mapping.read_bytes(), str(mapping))
    except OSError as error:
        raise SettingsError(f"--mapping {mapping}: {error.strerror}") from error

    async def read() -> list[dict[str, Any]]:
        if source is not None:
            return await file_verdicts(source)
        with show_progress("reading") as progress:
            return await topic_verdicts(settings.kafka, begin, end, progress)

    made = export(statements, run_quietly(read()))
    _write(output, lines(made.statements), "--output", sys.stdout.buffer)
    _write(errors, lines(made.errors), "--errors", sys.stderr.buffer)
    err.print(
        f"{len(made.statements)} statements, {len(made.errors)} verdicts that could not be mapped, {made.not_owed} "
        "for which the mapping says that none is owed",
        soft_wrap=True,
    )
    if made.errors:
        raise typer.Exit(ExitCode.USAGE)


def _write(path: Path | None, content: bytes, option: str, stream: Any) -> None:  # noqa: ANN401 - a binary stream
    if path is None:
        stream.write(content)
        stream.flush()
        return
    try:
        path.write_bytes(content)
    except OSError as error:
        raise SettingsError(f"{option} {path}: {error.strerror}") from error
