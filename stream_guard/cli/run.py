"""``stream-guard run``."""

from __future__ import annotations

import asyncio
import os

from stream_guard.cli.options import ConfigOption
from stream_guard.settings import load_settings


def run(config: ConfigOption = None) -> None:
    """Run the service: read posts, judge them, publish verdicts.

    SIGTERM or SIGINT stops it: posts in flight are judged and published first.
    """
    import uvloop

    from stream_guard.telemetry.output import capture_output

    if os.environ.get("STREAM_GUARD_TELEMETRY__LOG_FORMAT") == "json":
        # From the first line on, also where a setting is wrong.
        capture_output()
    from stream_guard.service.app import App
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry, whole_output=True)

    async def serve() -> None:
        await App(settings).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
