"""Each row of the table becomes a registered metric, and known series exist before they count."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from stream_guard.core.errors import dead_letter_reasons
from stream_guard.telemetry.metrics import Metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_every_attribute_is_a_metric_of_the_registry() -> None:
    metrics = Metrics(CollectorRegistry())
    made = {name: value for name, value in vars(metrics).items() if name != "registry"}
    collected = {family.name for family in metrics.registry.collect()}
    assert {family.name for value in made.values() for family in value.collect()} == collected
    assert all(name.startswith("stream_guard_") for name in collected)


def test_a_metric_is_read_as_a_plain_attribute() -> None:
    metrics = Metrics(CollectorRegistry())
    assert isinstance(metrics.records, Counter)
    assert metrics.records is vars(metrics)["records"]


def test_two_consumers_do_not_share_a_metric() -> None:
    first, second = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    first.rebalances.inc()
    assert sample(first, "stream_guard_rebalances_total") == 1
    assert sample(second, "stream_guard_rebalances_total") == 0


def test_known_series_exist_at_zero_from_the_start() -> None:
    metrics = Metrics(CollectorRegistry())
    for reason in dead_letter_reasons():
        assert sample(metrics, "stream_guard_dead_letters_total", reason=reason) == 0
    assert sample(metrics, "stream_guard_commits_total", outcome="failed") == 0
    assert sample(metrics, "stream_guard_stage_seconds_count", stage="publish") == 0


def test_a_histogram_counts_equal_values_in_one_call() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.observe_stage("judge", [3_000_000, 70_000_000_000], count=5)
    assert sample(metrics, "stream_guard_stage_seconds_count", stage="judge") == 10
    assert sample(metrics, "stream_guard_stage_seconds_bucket", stage="judge", le="0.005") == 5
    assert sample(metrics, "stream_guard_stage_seconds_sum", stage="judge") == 5 * 70.003
