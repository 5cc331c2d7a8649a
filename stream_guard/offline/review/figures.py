"""Estimates quality from sampled decisions, and measures how far people agree. Pure.

Each drawn verdict stands for ``1 / share`` verdicts (Horvitz and Thompson 1952). Drawn verdicts that nobody has decided
are taken to be like the decided ones of the same policy and decision. Shares have Wilson's interval (1927) at the
effective number of rows under unequal weights (Kish 1965; Korn and Graubard 1998). A total's interval adds the
uncertainty of the number of verdicts. Sums and the ratio of totals have intervals by MOVER, which stay apart from
zero where no mistake was found (Zou and Donner 2008; Newcombe 2016). All intervals are for 95 %.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Estimate", "Quality", "Row", "agreement", "kappa", "qualities", "wilson"]

_Z: Final = 1.959963984540054


class Row(NamedTuple):
    """One drawn verdict.

    Attributes:
        policy: its id.
        machine, machine_category: the verdict's decision and category.
        share: the probability with which it was drawn.
        person, person_category: what people decided; None where nobody has.
    """

    policy: str
    machine: str
    machine_category: str | None
    share: float
    person: str | None = None
    person_category: str | None = None


class Estimate(NamedTuple):
    """A figure with the ends of its interval; None where it cannot be estimated."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Quality(NamedTuple):
    """Quality of a policy, or of one of its categories.

    Attributes:
        policy: its id.
        category: None for the whole policy.
        drawn, decided: verdicts that were drawn, and those of them that people decided.
        precision: share of the verdicts that violate, by the machine, with which people agree.
        recall: share of the violations, by people, that the machine found. ``undetermined`` finds none.
    """

    policy: str
    category: str | None
    drawn: int
    decided: int
    precision: Estimate
    recall: Estimate


def wilson(share: float, rows: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of so many rows; ``rows`` may be an effective number, and over 0."""
    z2 = _Z * _Z / rows
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


class _Total(NamedTuple):
    """An estimated number of verdicts, with its interval."""

    value: float
    low: float
    high: float


def _weights(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Return the decided rows of one stratum with the number of verdicts that each stands for."""
    drawn = sum(1 / row.share for row in rows)
    decided = [row for row in rows if row.person is not None]
    answered = sum(1 / row.share for row in decided)
    return [(row, drawn / answered / row.share) for row in decided]


def _share(rows: Sequence[tuple[Row, float]], hit: Callable[[Row], bool]) -> Estimate:
    """Return the weighted share of the rows that are hits."""
    if not rows:
        return Estimate(None)
    weight = sum(w for _, w in rows)
    value = sum(w for row, w in rows if hit(row)) / weight
    effective = weight * weight / sum(w * w for _, w in rows)
    return Estimate(value, *wilson(value, effective))


def _total(rows: Sequence[tuple[Row, float]], hit: Callable[[Row], bool]) -> _Total:
    """Return the number of verdicts that are hits."""
    if not rows:
        return _Total(0.0, 0.0, 0.0)
    share = _share(rows, hit)
    assert share.value is not None, "there are rows"
    assert share.low is not None, "there are rows"
    assert share.high is not None, "there are rows"
    number = sum(w for _, w in rows)
    value = number * share.value
    # The number of verdicts is an estimate as well, because each is drawn by itself (Poisson sampling).
    spread = _Z * share.value * math.sqrt(sum(w * max(0.0, w - 1) for _, w in rows))
    return _Total(
        value,
        max(0.0, value - math.hypot(number * (share.value - share.low), spread)),
        value + math.hypot(number * (share.high - share.value), spread),
    )


def _sum(totals: Sequence[_Total]) -> _Total:
    """Return the sum of independent totals (Zou and Donner 2008, equation 2)."""
    value = sum(one.value for one in totals)
    below = math.sqrt(sum((one.value - one.low) ** 2 for one in totals))
    above = math.sqrt(sum((one.high - one.value) ** 2 for one in totals))
    return _Total(value, max(0.0, value - below), value + above)


def _recall(found: _Total, missed: _Total) -> Estimate:
    """Return found / (found + missed), by the interval of missed / found (Newcombe 2016, MOVER-R)."""
    if not found.value + missed.value:
        return Estimate(None)
    if not found.value:
        return Estimate(0.0, 0.0, found.high / (found.high + missed.low or 1.0))
    a, b = missed, found
    product = a.value * b.value

    def end(a_end: float, b_end: float, sign: int) -> float:
        below = b_end * (2 * b.value - b_end)
        if below <= 0:
            return 0.0 if sign < 0 else math.inf
        root = product * product - a_end * b_end * (2 * a.value - a_end) * (2 * b.value - b_end)
        return max(0.0, (product + sign * math.sqrt(max(0.0, root))) / below)

    low, high = end(a.low, b.high, -1), end(a.high, b.low, 1)
    return Estimate(1 / (1 + a.value / b.value), 1 / (1 + high), 1 / (1 + low))


def _quality(policy: str, category: str | None, strata: dict[str, list[Row]]) -> Quality:
    def by_machine(row: Row) -> bool:
        same = category is None or row.machine_category == category
        return row.machine == "violates" and same

    def by_people(row: Row) -> bool:
        same = category is None or row.person_category == category
        return row.person == "violates" and same

    weighted = {name: _weights(rows) for name, rows in strata.items()}
    positive = [pair for pair in weighted.get("violates", ()) if by_machine(pair[0])]
    negative = [[p for p in rows if not by_machine(p[0])] for rows in weighted.values()]
    missed = _sum([_total(rows, by_people) for rows in negative if rows])
    safe_seen = bool(weighted.get("safe"))
    drawn = [row for rows in strata.values() for row in rows]
    return Quality(
        policy,
        category,
        len(drawn),
        sum(row.person is not None for row in drawn),
        _share(positive, by_people),
        # Without decisions about safe verdicts the missed violations are unknown.
        _recall(_total(positive, by_people), missed) if safe_seen else Estimate(None),
    )


def qualities(rows: Iterable[Row]) -> list[Quality]:
    """Return the quality of each policy, followed by that of each of its categories."""
    policies: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        policies[row.policy][row.machine].append(row)
    found = []
    for policy, strata in sorted(policies.items()):
        found.append(_quality(policy, None, strata))
        named = {
            code
            for each in strata.values()
            for row in each
            for code in (row.machine_category, row.person_category)
            if code is not None
        }
        found += [_quality(policy, code, strata) for code in sorted(named)]
    return found


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa (1960) of two people's labels; None without pairs, or where chance alone agrees always."""
    if not pairs:
        return None
    count = len(pairs)
    first, second = (Counter(side) for side in zip(*pairs, strict=True))
    seen = sum(one == other for one, other in pairs) / count
    chance = sum(first[label] * second[label] for label in first) / count**2
    return None if chance == 1 else (seen - chance) / (1 - chance)


def agreement(
    reviews: Iterable[tuple[str, Sequence[tuple[str, str]]]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return how far people agree, by policy and by reviewer: pairs, the share that agrees, and kappa.

    Args:
        reviews: policy, and (reviewer, decision) in the order of time, of each item. The first decisions of the first
            two people count.
    """
    by_policy: dict[str, list[tuple[str, str]]] = defaultdict(list)
    by_reviewer: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for policy, made in reviews:
        firsts: dict[str, str] = {}
        for reviewer, decision in made:
            firsts.setdefault(reviewer, decision)
        if len(firsts) > 1:
            (one, first), (other, second) = list(firsts.items())[:2]
            by_policy[policy].append((first, second))
            by_reviewer[one].append((first, second))
            by_reviewer[other].append((second, first))

    def figures(groups: dict[str, list[tuple[str, str]]]) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "pairs": len(pairs),
                "agree": sum(a == b for a, b in pairs) / len(pairs),
                "kappa": kappa(pairs),
            }
            for name, pairs in sorted(groups.items())
        }

    return {"policies": figures(by_policy), "reviewers": figures(by_reviewer)}
