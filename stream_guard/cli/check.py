"""``stream-guard check``."""

from __future__ import annotations

import typer

from stream_guard.cli.options import ConfigOption
from stream_guard.cli.terminal import say, styled


def check(config: ConfigOption = None) -> None:
    """Check what a start needs: settings, policies, broker, topics, engine and model.

    Each check is a tick, or a cross with the reason. The exit code is that of the first failure.
    """
    from stream_guard.service.diagnostics.checks import run_checks

    failed = None
    for result in run_checks(config):
        mark = ("✓", "green") if result.error is None else ("✗", "red")
        detail = result.detail if result.error is None else str(result.error)
        say(styled(mark, (f" {result.name}: {detail}", "")))
        failed = failed or result.error
    if failed is not None:
        raise typer.Exit(failed.exit_code)
