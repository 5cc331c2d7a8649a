"""The garbage collector, tuned for a process with many records in flight."""

from __future__ import annotations

import gc
from typing import Final

_OBJECTS_MIN: Final = 50_000
_OBJECTS_MAX: Final = 1_000_000
_OLDER_EVERY: Final = 50 * _OBJECTS_MIN
_OBJECTS_PER_RECORD: Final = 20
"""A record in flight is some 14 objects that the collector knows, and a few more where much of it is traced."""


def tune_garbage_collector(records_max: int = 0) -> None:
    """Exclude long-lived objects from collection, and collect less often.

    Records in flight are many and short-lived, and reference counting frees them. With a threshold below what they
    are, the collector walks all of them again and again, and the event loop stands still meanwhile.

    Args:
        records_max: how many records may be in flight.
    """
    gc.collect()
    gc.freeze()
    objects = min(max(_OBJECTS_MIN, _OBJECTS_PER_RECORD * records_max), _OBJECTS_MAX)
    # An older generation is looked at as often as with the least threshold, whatever the threshold is.
    gc.set_threshold(objects, _OLDER_EVERY // objects, 100)
