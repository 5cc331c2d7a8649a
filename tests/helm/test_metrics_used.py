"""Alerts and dashboard ask only for metrics and labels that there are, in Prometheus' own language."""

from __future__ import annotations

import json
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from stream_guard.offline.review.server import metrics_of
from stream_guard.telemetry.metrics import Metrics
from tests.helm.chart import CHART

RULES = [CHART / "rules" / name for name in ("stream-guard.yaml", "review.yaml")]
DASHBOARD = CHART / "dashboards" / "stream-guard.json"
# What a scrape in Kubernetes adds, and a histogram's own.
SCRAPED = {"namespace", "job", "pod", "le"}


def alerts() -> list[dict[str, Any]]:
    groups = [
        group for file in RULES for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
    ]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def expressions() -> list[tuple[str, str]]:
    found = [(rule["alert"], rule["expr"]) for rule in alerts()]
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "5m")
            found.append((panel["title"], text))
    return found


def published() -> dict[str, set[str]]:
    """Return the labels of every series that the program publishes, by the series' name."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    series: dict[str, set[str]] = {}
    for value in vars(metrics).values():
        labels = set(getattr(value, "_labelnames", getattr(value, "label_names", ())))
        if not hasattr(value, "collect") or isinstance(value, CollectorRegistry):
            continue
        for family in value.collect():
            if family.type == "counter":
                series[f"{family.name}_total"] = labels
            elif family.type == "histogram":
                for suffix in ("bucket", "sum", "count"):
                    series[f"{family.name}_{suffix}"] = labels
            else:
                series[family.name] = labels
    return series


def known() -> dict[str, set[str]]:
    """Return what the program and the review server publish."""
    estimate = {"value": 0.9, "low": 0.8, "high": 1.0}
    quality = {"policy": "a", "category": None, "precision": estimate, "recall": estimate}
    agreement = {"policies": {"a": {"kappa": 0.7}}}
    figures = {"items": {"open": 1}, "quality": [quality], "agreement": agreement}
    reviewed = {
        family.name: set(family.samples[0].labels) for family in metrics_of(figures).collect()
    }
    return published() | reviewed


def selectors(expression: str) -> list[Any]:
    """Return every selector of an expression; raises where it is not PromQL."""
    found: list[Any] = []
    todo: list[Any] = [promql_parser.parse(expression)]
    while todo:
        node = todo.pop()
        if isinstance(node, promql_parser.MatrixSelector):
            todo.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        else:
            for name in ("expr", "lhs", "rhs", "param"):
                child = getattr(node, name, None)
                if child is not None:
                    todo.append(child)
            todo += list(getattr(node, "args", None) or [])
    return found


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_an_expression_asks_for_what_there_is(name: str, expression: str) -> None:
    series = known()
    found = selectors(expression)
    assert found, name
    for selector in found:
        assert selector.name in series, f"{name}: no metric {selector.name}"
        for matcher in selector.matchers.matchers:
            assert matcher.name in series[selector.name] | SCRAPED, (
                f"{name}: no label {matcher.name}"
            )


def test_what_groups_is_a_label_of_what_is_grouped() -> None:
    series = known()
    for name, expression in expressions():
        for labels, inner in _groups(promql_parser.parse(expression)):
            for selector in selectors(str(inner)):
                missing = set(labels) - series[selector.name] - SCRAPED
                assert not missing, f"{name}: {selector.name} has no {missing}"


def _groups(node: Any) -> list[tuple[list[str], Any]]:  # noqa: ANN401 - the parser has no common class
    found = []
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
        found.append((list(node.modifier.labels), node.expr))
    for name in ("expr", "lhs", "rhs"):
        child = getattr(node, name, None)
        if child is not None:
            found += _groups(child)
    for child in getattr(node, "args", None) or []:
        found += _groups(child)
    return found


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        s.name
        for panel in panels()
        for t in panel["targets"]
        for s in selectors(t["expr"].replace("$__rate_interval", "5m"))
    }
    families = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in known()
    }
    missing = {name for name in families if not any(s.startswith(name) for s in shown)}
    assert not missing


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("StreamGuard")
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert len(rule["annotations"]["description"]) > 40
    assert rule["for"]


def test_every_selector_of_an_alert_can_be_narrowed_to_a_release() -> None:
    for rule in alerts():
        assert rule["expr"].count('job=~".+"') == len(selectors(rule["expr"])), rule["alert"]


def test_names_of_alerts_and_places_of_panels_are_unique() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels()]
    assert len(places) == len(set(places))
    assert all(p["description"] for p in panels())
