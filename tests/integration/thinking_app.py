"""``python -m tests.integration.thinking_app``: the real program; its judge decides by a rule, and has thoughts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.judging.contract import Thought
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.service.app import App
from stream_guard.settings import load_settings
from stream_guard.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest


class ThinkingJudge(ScriptedJudge):
    """Thinks of each post's text, which must show up nowhere else."""

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        def think(judgements: Sequence[Judgement]) -> None:
            for judgement in judgements:
                text = judgement.request.post.text
                judgement.thoughts = (Thought("low", f"I read: {text}"),)
            deliver(judgements)

        super().submit(requests, think)


if __name__ == "__main__":
    settings = load_settings()
    configure_logs(settings.telemetry)
    asyncio.run(App(settings, judge=ThinkingJudge()).run())
