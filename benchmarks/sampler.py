"""Measures what each way to a token's probability costs the sampler per step, by the number of posts in the step.

    OMP_NUM_THREADS=1 python -m benchmarks.sampler

``named`` asks vLLM for the tokens 0 and 1 by name, ``chosen`` for the token that was chosen. Both need the logarithms,
which have their own column. Prints host work per step in ms, as medians; there is no target.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS: Final = (32, 64, 256)
VOCABULARY: Final = 4_096
_RUNS: Final = 50


def median_ms(work: Callable[[], object]) -> float:
    """Return the median of how long it takes, the first runs left out."""
    taken = []
    for _ in range(_RUNS + 5):
        started_s = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started_s) * 1_000)
    return statistics.median(taken[5:])


def main() -> None:
    """Print a table."""
    import torch
    from vllm.v1.sample.sampler import Sampler

    sampler = Sampler()
    print(
        "| posts in a step | named ms | chosen ms | logarithms ms |\n| ---: | ---: | ---: | ---: |"
    )
    for rows in ROWS:
        logits = torch.randn(rows, VOCABULARY)
        logprobs = logits.log_softmax(-1)
        chosen = logprobs.argmax(-1)
        named = {row: [15, 16] for row in range(rows)}
        costs = (
            median_ms(lambda: sampler.gather_specific_token_logprobs(logprobs, named, chosen)),  # noqa: B023 - called here
            median_ms(lambda: sampler.gather_logprobs(logprobs, 0, token_ids=chosen)),  # noqa: B023
            median_ms(lambda: sampler.compute_logprobs(logits)),  # noqa: B023
        )
        print(f"| {rows} | " + " | ".join(f"{cost:.2f}" for cost in costs) + " |")


if __name__ == "__main__":
    main()
