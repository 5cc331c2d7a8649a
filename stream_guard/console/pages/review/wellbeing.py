"""Limits that protect reviewers: breaks, and how much of a category one person sees. Pure.

They are computed from the audit trail of the review database, so a restart of the console forgets nothing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.settings import ConsoleSettings

__all__ = ["Work", "break_end_ms", "full_categories", "work_since_ms"]

Work: TypeAlias = "Sequence[tuple[int, str, Mapping[str, Any] | None]]"
"""What a person did, oldest first: when (Unix time in ms), what, and with which item."""
_ACTIVE: Final = frozenset({"lease", "decide", "release", "skip", "escalate"})
_ANY: Final = "*"


def work_since_ms(now_ms: int, settings: ConsoleSettings) -> int:
    """Return from when on a person's work is needed for the limits, Unix time in ms."""
    stretch_s = 2 * (settings.review_break_after_s + settings.review_break_s)
    return now_ms - round(1_000 * max(settings.review_exposure_s, stretch_s))


def break_end_ms(work: Work, now_ms: int, settings: ConsoleSettings) -> int | None:
    """Return when a person's break ends, Unix time in ms; None where no break is due.

    A stretch of work ends by a pause as long as a break. A break is due in a stretch with too many items, or that
    began too long ago. It begins with the last thing that the person did.
    """
    break_ms = round(settings.review_break_s * 1_000)
    begun_ms, last_ms, taken = 0, None, 0
    for at_ms, what, _ in work:
        if what not in _ACTIVE:
            continue
        if last_ms is None or at_ms - last_ms >= break_ms:
            begun_ms, taken = at_ms, 0
        last_ms = at_ms
        taken += what == "lease"
    if last_ms is None or now_ms - last_ms >= break_ms:
        return None
    too_many = taken >= settings.review_break_items
    too_long = now_ms - begun_ms >= settings.review_break_after_s * 1_000
    return last_ms + break_ms if too_many or too_long else None


def full_categories(
    work: Work, now_ms: int, settings: ConsoleSettings
) -> dict[tuple[str, str], int]:
    """Return the policies and categories of which a person has seen enough, with the limit of each."""
    since_ms = now_ms - settings.review_exposure_s * 1_000
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for at_ms, what, item in work:
        if what == "lease" and item is not None and at_ms > since_ms:
            category = item["verdict"]["category"]
            if category is not None:
                seen[item["policy"]["id"], category].add(item["id"])
    full = {}
    for (policy, category), names in seen.items():
        limit = _limit(policy, category, settings.review_exposure_max)
        if limit is not None and len(names) >= limit:
            full[policy, category] = limit
    return full


def _limit(policy: str, category: str, limits: Mapping[str, Mapping[str, int]]) -> int | None:
    """Return the limit of a category: of the policy's entry first, then of the entry for all."""
    for named in (policy, _ANY):
        of_policy = limits.get(named, {})
        for code in (category, _ANY):
            if code in of_policy:
                return of_policy[code]
    return None
