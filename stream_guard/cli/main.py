"""The command line: commands only, no logic. Exit codes are those of :mod:`stream_guard.core.exit_codes`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console

from stream_guard.cli import attack as cli_attack
from stream_guard.cli import audit as cli_audit
from stream_guard.cli import classify as cli_classify
from stream_guard.cli import dlq as cli_dlq
from stream_guard.cli import eval as cli_eval
from stream_guard.cli import export as cli_export
from stream_guard.cli import policies as cli_policies
from stream_guard.cli import tiers as cli_tiers
from stream_guard.cli import watch as cli_watch
from stream_guard.core.errors import StreamGuardError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Coroutine

app = typer.Typer(
    name="stream-guard",
    help="Judge a stream of posts under written policies: posts in from Kafka, verdicts out.",
    epilog=(
        f"Exit codes: {ExitCode.CLEAN} clean, {ExitCode.USAGE} usage or settings, {ExitCode.BROKER} broker, "
        f"{ExitCode.ENGINE} engine, {ExitCode.LIMIT} stopped by a limit, "
        f"{ExitCode.EVIDENCE} evidence missing or different."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="Settings as TOML; the environment wins over it."
    ),
]
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer's own signature
    if value:
        from stream_guard.core.version import package_version

        out.print(f"stream-guard {package_version()}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    del version


@app.command(
    epilog="Example: STREAM_GUARD_KAFKA__TOPICS='[\"posts\"]' stream-guard run --config guard.toml"
)
def run(config: ConfigOption = None) -> None:
    """Read posts, judge them, publish verdicts, until SIGTERM or SIGINT; then drain."""
    from stream_guard.telemetry.output import capture_output

    if os.environ.get("STREAM_GUARD_TELEMETRY__LOG_FORMAT") == "json":
        # From the first line on, also where a setting is wrong.
        capture_output()
    from stream_guard.service.app import App
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry, whole_output=True)

    async def go() -> None:
        await App(settings).run()

    _run(go(), fast=True)


@app.command(epilog="Example: stream-guard check --config guard.toml")
def check(config: ConfigOption = None) -> None:
    """Check settings, policies, broker, topics and model: each a tick, or the reason why not."""
    from stream_guard.service.diagnostics.checks import run_checks

    failed = None
    for result in run_checks(config):
        mark = "[green]✓[/]" if result.error is None else "[red]✗[/]"
        out.print(f"{mark} {result.name}: ", end="")
        out.print(result.detail if result.error is None else str(result.error), markup=False)
        failed = failed or result.error
    if failed is not None:
        raise typer.Exit(failed.exit_code)


@app.command("config", epilog="Example: stream-guard config --schema > settings.schema.json")
def show_config(
    config: ConfigOption = None,
    *,
    schema: Annotated[
        bool, typer.Option("--schema", help="Show the settings' JSON Schema instead.")
    ] = False,
) -> None:
    """Show the effective settings as JSON; secrets are masked."""
    document: Any = (
        Settings.model_json_schema() if schema else load_settings(config).model_dump(mode="json")
    )
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")


@app.command(epilog="Example: stream-guard produce posts.jsonl posts")
def produce(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.jsonl", help="One post a line, sent as it is; - for stdin."),
    ],
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    config: ConfigOption = None,
    key: Annotated[
        str, typer.Option(help="JSON pointer of the record's key; empty for none.")
    ] = "/author",
) -> None:
    """Send posts from a file to a topic."""
    from stream_guard.kafka.topics import produce_lines

    count = _run(produce_lines(load_settings(config).kafka, file, topic, key))
    err.print(f"sent {count} records to {topic}")


cli_policies.app.command(epilog="Example: stream-guard policies attack dangerous-content")(
    cli_attack.attack
)
cli_policies.app.command(
    epilog="Example: stream-guard policies classify builtin:toxicity posts.jsonl"
)(cli_tiers.classify)
cli_policies.app.command(
    epilog="Example: stream-guard policies calibrate touting verdicts.jsonl labels.csv --write"
)(cli_tiers.calibrate)


@app.command("round-trip", epilog="Example: stream-guard round-trip posts --timeout 60")
def round_trip(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    config: ConfigOption = None,
    text: Annotated[
        str, typer.Option(help="The post's text.")
    ] = "A made-up post, sent to see whether a verdict comes.",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that the verdict may take.")] = 120,
) -> None:
    """Send one post to a topic and wait for its verdict: exit 0 with the verdict as JSON, or 5 without one."""
    from uuid import uuid4

    from stream_guard.kafka import round_trip as trip

    verdict = _run(
        trip.round_trip(
            load_settings(config),
            topic,
            post_id=f"round-trip-{uuid4().hex}",
            text=text,
            timeout_s=timeout,
        )
    )
    sys.stdout.write(verdict.decode("utf-8", "replace") + "\n")


app.command(epilog="Example: stream-guard replay 0f3a9c21d4b84e6f9a7c5d1e2b3f4a60")(
    cli_audit.replay
)
app.command(
    epilog="Example: stream-guard backtest --policy drafts/touting --topic posts --from 2026-01-01 -o touting.jsonl"
)(cli_audit.backtest)
app.command(epilog="Example: stream-guard tail --json --from-beginning --limit 10 > tail.jsonl")(
    cli_watch.tail
)
app.command(epilog="Example: stream-guard doctor --config guard.toml --json | jq .ok")(
    cli_watch.doctor
)
app.add_typer(cli_policies.app)
app.add_typer(cli_dlq.app)
app.add_typer(cli_export.app)
app.add_typer(cli_eval.app)
app.command(
    epilog="Example: stream-guard classify --policy dangerous-content --json posts.jsonl > judged.jsonl"
)(cli_classify.classify)
app.command(epilog="Example: stream-guard route posts.jsonl --topic forum.posts")(
    cli_policies.route
)


def _run(work: Coroutine[Any, Any, Any], *, fast: bool = False) -> Any:  # noqa: ANN401 - what the work returns
    loop_factory = None
    if fast:
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)


def main() -> None:
    """Run a command; an error of ours is one line and its exit code, never a stack trace."""
    # What libraries warn of on the way to it is in that line; `run` sets up a log of its own.
    logging.getLogger().addHandler(logging.NullHandler())
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        app(standalone_mode=True)
    except StreamGuardError as error:
        err.print(f"stream-guard: {error}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
