"""Counts what judgements cost, and what is unusual about how they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.stream.in_flight import PostJudgement
    from stream_guard.telemetry.metrics import Metrics


def count_made(metrics: Metrics, judgements: Sequence[PostJudgement]) -> None:
    """Count the tokens of judgements with an answer, and the marks of those that are unusual."""
    prompt = cached = output = 0
    degraded: dict[str, int] = {}
    for judgement in judgements:
        made = judgement.provenance
        assert made is not None, "a judge says how it came to its answer"
        for what in made.degraded:
            degraded[what] = degraded.get(what, 0) + 1
        if made.reasoning_cut:
            metrics.reasoning_cuts.labels(judgement.request.policy.id).inc()
        if made.windows > 1:
            metrics.windowed_verdicts.labels(judgement.request.policy.id).inc()
        if made.output_tokens:
            prompt += made.prompt_tokens
            cached += made.cached_tokens
            output += made.output_tokens
    for what, count in degraded.items():
        metrics.degraded.labels(what).inc(count)
    if output:
        for kind, tokens in (("prompt", prompt), ("cached", cached), ("output", output)):
            metrics.tokens.labels(kind).inc(tokens)
