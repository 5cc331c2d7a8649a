"""``stream-guard doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from stream_guard.cli.options import ConfigOption, JsonOption
from stream_guard.cli.terminal import say, styled, write_json
from stream_guard.core.exit_codes import ExitCode

if TYPE_CHECKING:
    from stream_guard.service.diagnostics.topic_advice import Advice

_MARKS: Final = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


def doctor(
    config: ConfigOption = None,
    *,
    json: JsonOption = False,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit {ExitCode.USAGE} if there are warnings.")
    ] = False,
) -> None:
    """Check what a start needs, and what would lose posts or fail later, with a remedy for each finding."""
    from stream_guard.service.diagnostics.doctor import Doctor

    examination = Doctor(config)
    found: list[Advice] = []
    for advice in examination.run():
        found.append(advice)
        if not json:
            _say(advice)
    code = examination.exit_code or (
        ExitCode.USAGE if strict and examination.warnings else ExitCode.CLEAN
    )
    if json:
        write_json({"ok": code == 0, "findings": [advice._asdict() for advice in found]})
    if code:
        raise typer.Exit(code)


def _say(advice: Advice) -> None:
    say(styled(_MARKS[advice.level], (f" {advice.name}: {advice.detail}", "")))
    if advice.remedy:
        say(f"    {advice.remedy}", style="dim")
