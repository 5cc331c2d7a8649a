"""The garbage collector, tuned for a process with many records in flight."""

from __future__ import annotations

import gc


def tune_garbage_collector() -> None:
    """Exclude long-lived objects from collection, and collect less often.

    Records in flight are many and short-lived, and reference counting frees them. With the default thresholds the
    collector walks all of them again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
