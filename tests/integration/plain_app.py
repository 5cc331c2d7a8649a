"""``python -m tests.integration.plain_app``: the real program and engine, with a model family of the tests."""

from __future__ import annotations

import asyncio

from stream_guard.judging.engine.judge import VllmJudge
from stream_guard.service.app import App
from stream_guard.settings import load_settings
from stream_guard.telemetry.logs import configure_logs
from tests.plain_family import load_plain


def main() -> None:
    """Run until a signal."""
    settings = load_settings()
    configure_logs(settings.telemetry)

    async def run() -> None:
        await App(settings, judge=VllmJudge(settings.engine, load_plain)).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
