"""Judges a golden set, by one policy after another, with one engine."""

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
    """One side, judged.

    Attributes:
        lines: of ``predictions.jsonl``, in the rows' order.
        seconds: that it took, without the engine's start.
    """

    lines: list[dict[str, Any]]
    seconds: float


async def judge_rows(
    judge: OfflineJudge,
    rows: Sequence[GoldenRow],
    policy: Policy,
    source: str,
    progress: Callable[[int, int], None],
) -> Judged:
    """Judge all rows by a policy, and return what was predicted.

    Args:
        judge: to be used once or again.
        rows: of a golden set.
        policy: to judge by.
        source: the golden set's name.
        progress: called with how many of how many are judged, and once with none when the engine is ready.

    Raises:
        EngineError: the engine does not start, or dies too often.
        PolicyError: the policy cannot be judged by.
    """
    began_s = time.monotonic()

    def ready() -> None:
        nonlocal began_s
        began_s = time.monotonic()
        progress(0, len(rows))

    requests = [JudgeRequest(str(n), row.post, policy) for n, row in enumerate(rows)]
    judgements = await judge.judge(requests, ready=ready, progress=progress)
    seconds = time.monotonic() - began_s
    lines = [
        prediction_line(row, judgement, source)
        for row, judgement in zip(rows, judgements, strict=True)
    ]
    return Judged(lines, seconds)
