"""The pause between two tries: it grows, has a maximum, and is jittered.

stamina counts its timeout from the first try of one call. Our deadlines count over several calls (a transaction, its
claim and its next transaction), so those loops keep their own clock and share this.
"""

from __future__ import annotations

import random
from typing import Final

_PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def pause_s(attempt: int) -> float:
    """Return how long to wait after a failure, in s: 0.1 s at first, then up to 5 s, less up to half of it.

    Args:
        attempt: failures before this one in a row, from 0.
    """
    return _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)] * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
