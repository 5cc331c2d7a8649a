"""``python -m tests.integration.word_app``: the real program; its model says what one word of each post says.

``WORD_PLACE`` is the word's place. The model's name is the group's.
"""

from __future__ import annotations

import asyncio
import os

from stream_guard.service.app import App
from stream_guard.settings import load_settings
from stream_guard.telemetry.logs import configure_logs
from tests.escalations import WordJudge


def main() -> None:
    """Run until a signal."""
    settings = load_settings()
    configure_logs(settings.telemetry)
    judge = WordJudge(settings.kafka.group_id, int(os.environ["WORD_PLACE"]))

    async def go() -> None:
        await App(settings, judge=judge).run()

    asyncio.run(go())


if __name__ == "__main__":
    main()
