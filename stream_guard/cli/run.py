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
    from stream_guard.core.errors import StreamGuardError
    from stream_guard.core.exit_codes import ExitCode
    from stream_guard.service.app import App
    from stream_guard.service.health.exit_guard import end_process_within
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry, whole_output=True)

    async def serve() -> None:
        await App(settings).run()

    exit_code: int = ExitCode.UNEXPECTED
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve())
            exit_code = ExitCode.CLEAN
        except StreamGuardError as error:
            exit_code = error.exit_code
            raise
        finally:
            end_process_within(settings.delivery.stop_timeout_s, exit_code)
