"""Evaluates alerts over given samples: just that part of PromQL which our rules use, after Prometheus' own definitions.

The grammar is Prometheus' (promql-parser). What it must never do: give a value to an expression that it does not know;
it raises instead.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from itertools import pairwise
from typing import Any, TypeAlias

import promql_parser
from promql_parser import MatchOp

LOOKBACK_S = 300.0
Labels: TypeAlias = frozenset[tuple[str, str]]
Vector: TypeAlias = dict[Labels, float]
Samples: TypeAlias = list[tuple[float, float]]
"""(time in s, value), ascending."""


class UnknownError(Exception):
    """The expression has something that is not evaluated here."""


class Store:
    """Series by name and labels."""

    def __init__(self) -> None:
        self._series: dict[str, dict[Labels, Samples]] = defaultdict(dict)

    def add(self, name: str, labels: dict[str, str], at_s: float, value: float) -> None:
        """Add a sample, later than those before it."""
        self._series[name].setdefault(frozenset(labels.items()), []).append((at_s, value))

    def select(self, selector: Any) -> dict[Labels, Samples]:  # noqa: ANN401 - the parser has no types
        """Return the series that a selector names."""
        if selector.at is not None or selector.matchers.or_matchers:
            raise UnknownError(str(selector))
        return {
            labels: samples
            for labels, samples in self._series.get(selector.name, {}).items()
            if all(_matches(m, dict(labels).get(m.name, "")) for m in selector.matchers.matchers)
        }


def _matches(matcher: Any, value: str) -> bool:  # noqa: ANN401
    if matcher.op == MatchOp.Equal:
        return bool(value == matcher.value)
    if matcher.op == MatchOp.NotEqual:
        return bool(value != matcher.value)
    found = re.fullmatch(matcher.value, value) is not None
    return found if matcher.op == MatchOp.Re else not found


def evaluate(node: Any, store: Store, at_s: float) -> Vector | float:  # noqa: ANN401
    """Return an instant vector, or a number, at a time in s. Raises UnknownError."""
    kind = type(node).__name__
    if kind == "NumberLiteral":
        return float(node.val)
    if kind == "ParenExpr":
        return evaluate(node.expr, store, at_s)
    if kind == "VectorSelector":
        return _instant(node, store, at_s)
    if kind == "Call":
        return _call(node, store, at_s)
    if kind == "AggregateExpr":
        return _aggregate(node, store, at_s)
    if kind == "BinaryExpr":
        return _binary(node, store, at_s)
    raise UnknownError(f"{kind}: {node}")


def _offset_s(selector: Any) -> float:  # noqa: ANN401
    return 0.0 if selector.offset is None else float(selector.offset.total_seconds())


def _instant(node: Any, store: Store, at_s: float) -> Vector:  # noqa: ANN401
    at_s -= _offset_s(node)
    vector: Vector = {}
    for labels, samples in store.select(node).items():
        known = [value for time_s, value in samples if at_s - LOOKBACK_S < time_s <= at_s]
        if known:
            vector[labels] = known[-1]
    return vector


def _call(node: Any, store: Store, at_s: float) -> Vector:  # noqa: ANN401
    name, args = node.func.name, list(node.args)
    if name in ("rate", "increase"):
        return _grown(args[0], store, at_s, per_second=name == "rate")
    if name == "histogram_quantile":
        share = evaluate(args[0], store, at_s)
        buckets = evaluate(args[1], store, at_s)
        assert isinstance(share, float)
        assert isinstance(buckets, dict)
        return _quantiles(share, buckets)
    values = evaluate(args[0], store, at_s)
    assert isinstance(values, dict)
    if name == "abs":
        return {labels: abs(value) for labels, value in values.items()}
    if name == "absent" and type(args[0]).__name__ == "VectorSelector":
        equal = [m for m in args[0].matchers.matchers if m.op == MatchOp.Equal]
        return {} if values else {frozenset((m.name, m.value) for m in equal): 1.0}
    raise UnknownError(f"function {name}")


def _grown(matrix: Any, store: Store, at_s: float, *, per_second: bool) -> Vector:  # noqa: ANN401
    """Return counters' growth over a range, extrapolated to its ends as Prometheus does it (extrapolatedRate)."""
    range_s = matrix.range.total_seconds()
    end_s = at_s - _offset_s(matrix.vector_selector)
    start_s = end_s - range_s
    vector: Vector = {}
    for labels, samples in store.select(matrix.vector_selector).items():
        inside = [(t, v) for t, v in samples if start_s < t <= end_s]
        if len(inside) < 2:
            continue
        grown = inside[-1][1] - inside[0][1]
        for (_, before), (_, after) in pairwise(inside):
            grown += before if after < before else 0.0  # a counter that began again
        sampled_s = inside[-1][0] - inside[0][0]
        between_s = sampled_s / (len(inside) - 1)
        to_start_s, to_end_s = inside[0][0] - start_s, end_s - inside[-1][0]
        if to_start_s >= between_s * 1.1:
            to_start_s = between_s / 2
        if grown > 0 and inside[0][1] >= 0:
            to_start_s = min(to_start_s, sampled_s * (inside[0][1] / grown))  # it was never below 0
        if to_end_s >= between_s * 1.1:
            to_end_s = between_s / 2
        grown *= (sampled_s + to_start_s + to_end_s) / sampled_s
        vector[labels] = grown / range_s if per_second else grown
    return vector


def _quantiles(share: float, buckets: Vector) -> Vector:
    grouped: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, value in buckets.items():
        bound = dict(labels)["le"]
        rest = frozenset(pair for pair in labels if pair[0] != "le")
        grouped[rest].append((math.inf if bound == "+Inf" else float(bound), value))
    return {labels: _quantile(share, sorted(found)) for labels, found in grouped.items()}


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    total = buckets[-1][1]
    if len(buckets) < 2 or math.isnan(total) or total == 0:
        return math.nan
    rank = share * total
    index = next(i for i, (_, count) in enumerate(buckets) if count >= rank)
    if index == len(buckets) - 1:
        return buckets[-2][0]
    below, count_below = buckets[index - 1] if index else (0.0, 0.0)
    upper, count = buckets[index]
    if index == 0 and upper <= 0:
        return upper
    return below + (upper - below) * (rank - count_below) / (count - count_below)


_AGGREGATES = {"sum": sum, "max": max, "min": min, "count": len}


def _aggregate(node: Any, store: Store, at_s: float) -> Vector:  # noqa: ANN401
    name = str(node.op)
    by = node.modifier
    if name not in _AGGREGATES or node.param is not None:
        raise UnknownError(f"aggregate {name}")
    if by is not None and "By" not in str(by.type):
        raise UnknownError(f"aggregate {name} without")
    values = evaluate(node.expr, store, at_s)
    assert isinstance(values, dict)
    kept = set() if by is None else set(by.labels)
    groups: dict[Labels, list[float]] = defaultdict(list)
    for labels, value in values.items():
        groups[frozenset(pair for pair in labels if pair[0] in kept)].append(value)
    return {labels: float(_AGGREGATES[name](found)) for labels, found in groups.items()}


def _binary(node: Any, store: Store, at_s: float) -> Vector | float:  # noqa: ANN401
    if node.modifier is not None and (node.modifier.matching or node.modifier.return_bool):
        raise UnknownError(f"modifier {node.modifier}")
    name = str(node.op)
    left, right = evaluate(node.lhs, store, at_s), evaluate(node.rhs, store, at_s)
    if name in ("and", "or", "unless"):
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        if name == "or":
            return {**right, **left}
        return {k: v for k, v in left.items() if (k in right) == (name == "and")}
    if isinstance(left, float) and isinstance(right, float):
        return _arithmetic(name, left, right)
    if isinstance(left, float):
        raise UnknownError(f"a number on the left of {name}")
    if isinstance(right, float):
        pairs = {labels: (value, right) for labels, value in left.items()}
    else:
        pairs = {labels: (left[labels], right[labels]) for labels in left.keys() & right.keys()}
    if name in _COMPARISONS:
        return {labels: a for labels, (a, b) in pairs.items() if _COMPARISONS[name](a, b)}
    return {labels: _arithmetic(name, a, b) for labels, (a, b) in pairs.items()}


_COMPARISONS = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def _arithmetic(name: str, a: float, b: float) -> float:
    if name == "+":
        return a + b
    if name == "-":
        return a - b
    if name == "*":
        return a * b
    if name == "/":
        if b == 0:
            return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)
        return a / b
    raise UnknownError(f"operator {name}")


def seconds(text: str) -> float:
    """Return a duration such as ``45m`` in s."""
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    return float(sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([smhd])", text)))


def firing(rule: dict[str, Any], store: Store, until_s: float, every_s: float = 60) -> set[Labels]:
    """Return the label sets for which an alert fires at a time, having evaluated it all the way there."""
    expression, wait_s = promql_parser.parse(rule["expr"]), seconds(rule.get("for", "0s"))
    since: dict[Labels, float] = {}
    at_s = 0.0
    while at_s <= until_s:
        active = evaluate(expression, store, at_s)
        assert isinstance(active, dict), "an alert is made of series"
        since = {labels: since.get(labels, at_s) for labels in active}
        at_s += every_s
    return {labels for labels, begun_s in since.items() if at_s - every_s - begun_s >= wait_s}
