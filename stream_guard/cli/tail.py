"""``stream-guard tail``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from stream_guard.cli.options import ConfigOption
from stream_guard.cli.terminal import at_terminal, live_view, say, warn, write_json_line
from stream_guard.core.errors import RecordError
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream_guard.settings import Settings

_NO_VERDICT = "a record of the verdict topic holds no verdict"
_UNREADABLE = (orjson.JSONDecodeError, RecordError, KeyError, TypeError, AttributeError)


def tail(
    config: ConfigOption = None,
    *,
    json: Annotated[
        bool, typer.Option("--json", help="Print each verdict as JSON on one line.")
    ] = False,
    lines: Annotated[
        bool, typer.Option("--lines", help="Print a line for each verdict, also at a terminal.")
    ] = False,
    beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start with the oldest verdict in the topic.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Stop after N verdicts; 0 never stops.")
    ] = 0,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of the service's metrics. Default: this machine, port http.port.",
        ),
    ] = None,
) -> None:
    """Watch verdicts arrive: a live view at a terminal, else one line each."""
    from stream_guard.kafka.topics import tail_verdicts

    settings = load_settings(config)
    values = tail_verdicts(settings.kafka, from_beginning=beginning, limit=limit)
    live = at_terminal() and not (json or lines)
    asyncio.run(_watch(settings, values, metrics) if live else _write(settings, values, json=json))


async def _write(settings: Settings, values: AsyncIterator[bytes], *, json: bool) -> None:
    from stream_guard.cli.views.verdict_line import verdict_heads, verdict_line
    from stream_guard.kafka.registry.written import open_verdicts

    if at_terminal() and not json:
        say(verdict_heads())
    async with open_verdicts(settings) as verdicts:
        async for value in values:
            try:
                if json:
                    # Of a structured CloudEvent the whole event.
                    whole = value.startswith(b"{")
                    write_json_line(orjson.loads(value) if whole else await verdicts.read(value))
                else:
                    say(verdict_line(await verdicts.read(value)))
            except _UNREADABLE:
                warn(_NO_VERDICT)


async def _watch(settings: Settings, values: AsyncIterator[bytes], metrics: str | None) -> None:
    from stream_guard.cli.metrics_poll import follow
    from stream_guard.cli.views.live import LiveView
    from stream_guard.kafka.registry.written import open_verdicts

    view = LiveView(time.monotonic())
    address = metrics or f"http://localhost:{settings.http.port}/metrics"
    following = asyncio.create_task(follow(address, view))

    def render() -> Any:  # noqa: ANN401 - whatever rich can show
        return view.render(time.monotonic())

    try:
        with live_view(render):
            async with open_verdicts(settings) as verdicts:
                async for value in values:
                    with contextlib.suppress(*_UNREADABLE):
                        view.add(await verdicts.read(value), time.monotonic())
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
