"""``stream-guard tail`` and ``stream-guard doctor``: what passes, and what would hurt. Commands only, no logic."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.live import Live

from stream_guard.core.exit_codes import ExitCode
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream_guard.service.diagnostics.topic_advice import Advice
    from stream_guard.settings import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="Settings as TOML; the environment wins over it."
    ),
]
out = Console(highlight=False)
_FRAMES_PER_S = 4
_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "error": "[red]✗[/]"}


def tail(
    config: ConfigOption = None,
    *,
    json: Annotated[
        bool, typer.Option("--json", help="Each verdict as its JSON, one a line.")
    ] = False,
    lines: Annotated[
        bool, typer.Option("--lines", help="A line for each verdict, at a terminal, too.")
    ] = False,
    beginning: Annotated[
        bool, typer.Option("--from-beginning", help="All that the topic holds, first.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Stop after so many; 0 for never.")
    ] = 0,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the service's metrics are; by default on this machine, at http.port.",
        ),
    ] = None,
) -> None:
    """Watch verdicts as they come: a live view at a terminal, else a line each."""
    from stream_guard.cli.views.verdict_line import verdict_line
    from stream_guard.kafka.topics import tail_verdicts
    from stream_guard.records.verdict_event import decode_verdict

    settings = load_settings(config)
    values = tail_verdicts(settings.kafka, from_beginning=beginning, limit=limit)

    async def write() -> None:
        async for value in values:
            if json:
                sys.stdout.write(value.decode("utf-8", "replace") + "\n")
                sys.stdout.flush()
                continue
            try:
                out.print(verdict_line(decode_verdict(value)), soft_wrap=True)
            except (orjson.JSONDecodeError, KeyError, TypeError):
                out.print("a record that is no verdict", style="dim")

    asyncio.run(
        write() if json or lines or not out.is_terminal else _show(settings, values, metrics)
    )


async def _show(settings: Settings, values: AsyncIterator[bytes], metrics: str | None) -> None:
    from stream_guard.cli.metrics_poll import follow
    from stream_guard.cli.views.live import LiveView
    from stream_guard.records.verdict_event import decode_verdict

    view = LiveView(time.monotonic())
    address = metrics or f"http://localhost:{settings.http.port}/metrics"
    following = asyncio.create_task(follow(address, view))

    def get_renderable() -> Any:  # noqa: ANN401 - whatever rich can show
        return view.render(time.monotonic())

    try:
        with Live(console=out, refresh_per_second=_FRAMES_PER_S, get_renderable=get_renderable):
            async for value in values:
                with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                    view.take(decode_verdict(value), time.monotonic())
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def doctor(
    config: ConfigOption = None,
    *,
    json: Annotated[
        bool, typer.Option("--json", help="All findings as one JSON document.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit {ExitCode.USAGE} where there are warnings, too.")
    ] = False,
) -> None:
    """Look at all that a start needs, and at what would lose posts or hurt later; each with a remedy."""
    from stream_guard.service.diagnostics.doctor import Doctor

    examined = Doctor(config)
    found: list[Advice] = []
    for advice in examined.run():
        found.append(advice)
        if not json:
            _print(advice)
    code = examined.exit_code or (ExitCode.USAGE if strict and examined.warnings else 0)
    if json:
        document = {"ok": code == 0, "findings": [advice._asdict() for advice in found]}
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    if code:
        raise typer.Exit(code)


def _print(advice: Advice) -> None:
    out.print(f"{_MARKS[advice.level]} {advice.name}: ", end="")
    out.print(advice.detail, markup=False, soft_wrap=True)
    if advice.remedy:
        out.print(f"    {advice.remedy}", style="dim", markup=False, soft_wrap=True)
