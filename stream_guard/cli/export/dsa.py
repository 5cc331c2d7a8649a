"""``stream-guard export dsa``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_guard.cli.options import ConfigOption, FromOption, ToOption
from stream_guard.cli.output_files import refuse_existing, refuse_same_file
from stream_guard.cli.terminal import count_of, run_quietly, show_progress, warn, write_json_line
from stream_guard.core.errors import SettingsError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.kafka.bounds import read_bound
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

MappingOption = Annotated[
    Path,
    typer.Option(
        "--mapping",
        "-m",
        metavar="FILE",
        help="The database's words for your categories, as YAML.",
    ),
]
InputOption = Annotated[
    Path | None,
    typer.Option(
        "--input", "-i", metavar="FILE", help="Verdicts as JSON lines. Default: the verdict topic."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Statements. Default: standard output."),
]
ErrorsOption = Annotated[
    Path | None,
    typer.Option(
        "--errors",
        metavar="FILE",
        help="Verdicts that cannot be mapped. Default: standard error.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", "-f", help="Replace output files that exist.")
]


def dsa(
    mapping: MappingOption,
    *,
    first: FromOption = None,
    last: ToOption = None,
    source: InputOption = None,
    output: OutputOption = None,
    errors: ErrorsOption = None,
    force: ForceOption = False,
    config: ConfigOption = None,
) -> None:
    """Export violating verdicts as statements of reasons for the EU's DSA Transparency Database.

    One statement a line, valid by the schema dsa-statement-1.0.json. Exit code 2 if a verdict cannot be mapped.
    """
    from stream_guard.offline.export.dsa import Statements
    from stream_guard.offline.export.dsa_run import export, file_verdicts, topic_verdicts

    begin, end = read_bound(first, "--from"), read_bound(last, "--to")
    settings = load_settings(config)
    try:
        statements = Statements(mapping.read_bytes(), str(mapping))
    except OSError as error:
        raise SettingsError(f"--mapping {mapping}: {error.strerror}") from error
    refuse_same_file(**{"--input": source, "--output": output, "--errors": errors})
    for option, path in (("--output", output), ("--errors", errors)):
        if path is not None:
            refuse_existing(option, path, force=force)

    async def read() -> list[dict[str, Any]]:
        if source is not None:
            return await file_verdicts(source)
        with show_progress("reading") as progress:
            return await topic_verdicts(settings, begin, end, progress)

    made = export(statements, run_quietly(read()))
    _write(output, made.statements, "--output")
    _write(errors, made.errors, "--errors")
    warn(
        f"{count_of(len(made.statements), 'statement')}; {count_of(len(made.errors), 'verdict')} could not be mapped; "
        f"the mapping owes no statement for {made.not_owed:,}"
    )
    if made.undecided:
        warn(
            f"{count_of(made.undecided, 'verdict')} left to people, without a decision yet: no statement"
        )
    if made.errors:
        raise typer.Exit(ExitCode.USAGE)


def _write(path: Path | None, documents: Sequence[dict[str, Any]], option: str) -> None:
    from stream_guard.offline.export.dsa_run import json_lines

    if path is None:
        for document in documents:
            write_json_line(document, to_stderr=option == "--errors")
        return
    try:
        path.write_bytes(json_lines(documents))
    except OSError as error:
        raise SettingsError(f"{option} {path}: {error.strerror}") from error
