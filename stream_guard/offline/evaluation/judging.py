"""Judges a golden set under one policy after another, with one engine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from stream_guard.judging.contract import JudgeRequest
from stream_guard.offline.evaluation.predictions import prediction_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from stream_guard.offline.evaluation.golden import GoldenRow
    from stream_guard.offline.session import OfflineJudge
    from stream_guard.policies.policy import Policy

__all__ = ["Judged", "judge_rows"]


class Judged(NamedTuple):
    """The predictions of one side.

    Attributes:
        lines: of ``predictions.jsonl``, in the order of the rows.
        seconds: duration, without the engine's start.
    """

    lines: list[dict[str, Any]]
    seconds: float


async def judge_rows(
    judge: OfflineJudge,
    rows: Sequence[GoldenRow],
    policy: Policy,
    source: str,
    progress: Callable[[int, int], None],
    run: int = 0,
) -> Judged:
    """Judge all rows under a policy, and return the predictions.

    Args:
        judge: may be used several times.
        rows: of a golden set.
        policy: the policy to judge by.
        source: name of the golden set.
        progress: called with the number of judged rows and of all rows; with 0 when the engine is ready.
        run: number of the repetition; each draws other samples, where the policy draws any.

    Raises:
        EngineError: the engine does not start, or crashes too often.
        PolicyError: the judge cannot use the policy.
    """
    began_s = time.monotonic()

    def ready() -> None:
        nonlocal began_s
        began_s = time.monotonic()
        progress(0, len(rows))

    requests = [JudgeRequest(str(n), row.post, policy, run=run) for n, row in enumerate(rows)]
    judgements = await judge.judge(requests, ready=ready, progress=progress)
    seconds = time.monotonic() - began_s
    lines = [
        prediction_line(row, judgement, source)
        for row, judgement in zip(rows, judgements, strict=True)
    ]
    return Judged(lines, seconds)
