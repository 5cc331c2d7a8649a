"""``python -m tests.integration.blocked_app``: the real program, and a thread of it that never ends."""

from __future__ import annotations

import asyncio
import threading

from stream_guard.cli.run import run
from stream_guard.service.app import App


def main() -> None:
    """Run until a signal."""
    drain = App.run

    async def run_with_a_blocked_thread(app: App) -> None:
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
        await drain(app)

    App.run = run_with_a_blocked_thread  # type: ignore[method-assign]
    run()


if __name__ == "__main__":
    main()
