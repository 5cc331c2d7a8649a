"""Each alert fires over the samples that it is for, and over quiet ones none does; one fires over a real run's."""

from __future__ import annotations

import gzip
import math
import re
from pathlib import Path
from typing import Any

import orjson
import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.helm.promql import Store, UnknownError, evaluate, firing, seconds
from tests.helm.test_metrics_used import alerts

RECORDED = Path(__file__).parent.parent / "data" / "scrapes" / "dead-letters.json.gz"
SCRAPED = {"namespace": "moderation", "job": "guard", "pod": "guard-0"}
MINUTE = 60.0


def store_of(series: dict[str, str]) -> Store:
    """Return samples a minute apart, written as in Prometheus' own unit tests: ``0+10x60`` is 0, 10 ... 600."""
    store = Store()
    for name, values in series.items():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})?", name)
        assert found is not None, name
        labels = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
        for minute, value in enumerate(expand(values)):
            if value is not None:
                store.add(found[1], SCRAPED | labels, minute * MINUTE, value)
    return store


def expand(values: str) -> list[float | None]:
    samples: list[float | None] = []
    for part in values.split():
        if part.startswith("_"):
            samples += [None] * int(part.removeprefix("_x"))
            continue
        begin, step, count = re.fullmatch(r"(-?[\d.]+)\+(-?[\d.]+)x(\d+)", part).groups()  # type: ignore[union-attr]
        samples += [float(begin) + float(step) * n for n in range(int(count) + 1)]
    return samples


VERDICTS = "stream_guard_verdicts_total"
WEEK = 7 * 24 * 60
"""In minutes."""


def drift(figure: str, *, high: float = 0.85) -> tuple[int, dict[str, str]]:
    """Return a figure whose interval began at 0.9, and ends at ``high`` a week later."""
    name = f"stream_guard_review_{figure}"
    labels = 'policy="a",category="S1"'
    return WEEK + 65, {
        f'{name}{{{labels},bound="low"}}': f"0.9+0x90 _x{WEEK - 91} 0.7+0x90",
        f'{name}{{{labels},bound="high"}}': f"0.98+0x90 _x{WEEK - 91} {high}+0x90",
    }


# Of each alert: after how many minutes it fires, over these series.
FIRES: dict[str, tuple[int, dict[str, str]]] = {
    "StreamGuardDown": (50, {"stream_guard_records_total": "0+1x60"}),
    "StreamGuardNotCommitting": (
        30,
        {
            "stream_guard_in_flight_records": "5+0x60",
            'stream_guard_commits_total{outcome="ok"}': "7+0x60",
            'stream_guard_transactions_total{outcome="committed"}': "0+0x60",
        },
    ),
    "StreamGuardNoProgress": (
        30,
        {
            'stream_guard_lag_records{topic="posts",partition="0"}': "10+5x60",
            f'{VERDICTS}{{policy="a"}}': "0+9x5 45+0x55",
            'stream_guard_dead_letters_total{reason="json"}': "0+0x60",
        },
    ),
    "StreamGuardFallsBehind": (
        40,
        {'stream_guard_oldest_unjudged_age_seconds{topic="posts",partition="1"}': "0+60x60"},
    ),
    "StreamGuardCommitsFail": (25, {'stream_guard_commits_total{outcome="failed"}': "0+1x60"}),
    "StreamGuardDecisionsNotRead": (15, {"stream_guard_decisions_behind": "3+0x60"}),
    "StreamGuardManyDeadLetters": (
        35,
        {
            'stream_guard_dead_letters_total{reason="json"}': "0+6x60",
            'stream_guard_records_total{topic="posts"}': "0+100x60",
        },
    ),
    "StreamGuardManyUndetermined": (
        70,
        {
            f'{VERDICTS}{{policy="a",decision="undetermined",mode="live"}}': "0+20x90",
            f'{VERDICTS}{{policy="a",decision="safe",mode="live"}}': "0+80x90",
        },
    ),
    "StreamGuardViolationsFlip": (
        11 * 60,
        {
            f'{VERDICTS}{{policy="a",decision="violates",mode="live"}}': "0+5x600 3050+60x120",
            f'{VERDICTS}{{policy="a",decision="safe",mode="live"}}': "0+95x600 57040+40x120",
        },
    ),
    "StreamGuardPoliciesRefused": (
        20,
        {
            'stream_guard_policy_reloads_total{outcome="refused"}': "0+0x5 1+0x60",
            'stream_guard_policy_reloads_total{outcome="switched"}': "0+0x66",
        },
    ),
    "StreamGuardSlow": (
        60,
        {
            'stream_guard_process_seconds_bucket{le="60.0"}': "0+10x90",
            'stream_guard_process_seconds_bucket{le="300.0"}': "0+90x90",
            'stream_guard_process_seconds_bucket{le="+Inf"}': "0+90x90",
        },
    ),
    "StreamGuardEscalationsWait": (
        30,
        {"stream_guard_escalation_wait_seconds": "0+60x60"},
    ),
    "StreamGuardRebalancesOften": (80, {"stream_guard_rebalances_total": "0+0.5x90"}),
    "StreamGuardAbandonsRecords": (70, {"stream_guard_abandoned_records_total": "0+100x90"}),
    "StreamGuardProducerRebuilds": (70, {"stream_guard_producer_rebuilds_total": "0+0.2x90"}),
    "StreamGuardIdle": (35, {"stream_guard_assigned_partitions": "0+0x60"}),
    "StreamGuardPressure": (20, {"stream_guard_pressure_level": "2+0x60"}),
    "StreamGuardLaneLate": (
        45,
        {
            'stream_guard_lane_late_records_total{lane="chat"}': "0+6x60",
            'stream_guard_lane_records_total{lane="chat"}': "0+100x60",
        },
    ),
    "StreamGuardDegraded": (
        40,
        {
            'stream_guard_degraded_verdicts_total{what="ladder_cut"}': "0+15x60",
            f'{VERDICTS}{{policy="a"}}': "0+100x60",
        },
    ),
    "StreamGuardBreakerOpen": (
        10,
        {
            'stream_guard_breaker_open{policy="spam",action="remove",window="hour"}': "0+0x5 1+0x60",
        },
    ),
    "StreamGuardActionsUncounted": (
        20,
        {
            'stream_guard_limited_actions_total{policy="spam",action="remove",cause="unanswered"}': (
                "0+1x60"
            ),
        },
    ),
    "StreamGuardEngineRebuilds": (
        30,
        {'stream_guard_engine_rebuilds_total{cause="died"}': "0+0x5 1+0x10 2+0x60"},
    ),
    "StreamGuardHeadOfLine": (20, {"stream_guard_head_of_line_age_seconds": "0+60x60"}),
    "StreamGuardNearDeadLetterLimit": (
        5,
        {'stream_guard_dead_letter_consecutive{stage="parse"}': "450+0x60"},
    ),
    "StreamGuardRecordsExpired": (
        20,
        {
            'stream_guard_records_expired_total{topic="posts",cause="retention"}': "0+0x10 900+0x60",
            'stream_guard_records_expired_total{topic="posts",cause="past_end"}': "0+0x70",
        },
    ),
    "StreamGuardPrecisionDrifts": drift("precision"),
    "StreamGuardRecallDrifts": drift("recall"),
    "StreamGuardReviewersDisagree": (65, {'stream_guard_review_kappa{policy="a"}': "0.3+0x90"}),
    "StreamGuardRegistryAway": (5, {"stream_guard_registry_waiting_partitions": "2+0x60"}),
    "StreamGuardTransactionsFail": (
        40,
        {
            'stream_guard_transactions_total{outcome="timeout"}': "0+2x60",
            'stream_guard_transactions_total{outcome="committed"}': "0+10x60",
        },
    ),
}
# A service that does well: of everything that counts towards an alert there is some.
QUIET = {
    "stream_guard_build_info": "1+0x900",
    "stream_guard_in_flight_records": "500+0x900",
    'stream_guard_commits_total{outcome="ok"}': "0+60x900",
    'stream_guard_commits_total{outcome="failed"}': "0+0.01x900",
    'stream_guard_lag_records{topic="posts",partition="0"}': "500+0x900",
    'stream_guard_oldest_unjudged_age_seconds{topic="posts",partition="0"}': "20+0x900",
    'stream_guard_records_total{topic="posts"}': "0+1000x900",
    'stream_guard_dead_letters_total{reason="json"}': "0+5x900",
    f'{VERDICTS}{{policy="a",decision="violates",mode="live"}}': "0+100x900",
    f'{VERDICTS}{{policy="a",decision="safe",mode="live"}}': "0+880x900",
    f'{VERDICTS}{{policy="a",decision="undetermined",mode="live"}}': "0+15x900",
    'stream_guard_policy_reloads_total{outcome="refused"}': "0+0.02x900",
    'stream_guard_policy_reloads_total{outcome="switched"}': "0+0.05x900",
    'stream_guard_process_seconds_bucket{le="60.0"}': "0+990x900",
    'stream_guard_process_seconds_bucket{le="300.0"}': "0+995x900",
    'stream_guard_process_seconds_bucket{le="+Inf"}': "0+995x900",
    "stream_guard_rebalances_total": "0+0.02x900",
    "stream_guard_abandoned_records_total": "0+1x900",
    "stream_guard_producer_rebuilds_total": "0+0.01x900",
    "stream_guard_assigned_partitions": "4+0x900",
    "stream_guard_pressure_level": "1+0x900",
    'stream_guard_degraded_verdicts_total{what="effort_lowered"}': "0+10x900",
    'stream_guard_engine_rebuilds_total{cause="died"}': "0+0.001x900",
    "stream_guard_head_of_line_age_seconds": "20+0x900",
    'stream_guard_dead_letter_share{stage="parse"}': "0.01+0x900",
    'stream_guard_dead_letter_consecutive{stage="parse"}': "3+0x900",
    'stream_guard_records_expired_total{topic="posts",cause="retention"}': "0+0x900",
    'stream_guard_review_precision{policy="a",category="",bound="high"}': "0.95+0x900",
    'stream_guard_review_precision{policy="a",category="",bound="low"}': "0.85+0x900",
    'stream_guard_review_kappa{policy="a"}': "0.7+0x900",
    'stream_guard_transactions_total{outcome="committed"}': "0+60x900",
    'stream_guard_transactions_total{outcome="fenced"}': "0+0.5x900",
}


def rule_of(name: str) -> dict[str, Any]:
    return next(rule for rule in alerts() if rule["alert"] == name)


def test_every_alert_is_seen_to_fire() -> None:
    assert FIRES.keys() == {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("name", FIRES)
def test_an_alert_fires_over_what_it_is_for(name: str) -> None:
    minutes, series = FIRES[name]
    assert firing(rule_of(name), store_of(series), minutes * MINUTE)


@pytest.mark.parametrize("name", FIRES)
def test_an_alert_waits_for_its_time(name: str) -> None:
    """Before ``for`` has passed since the first sample, nothing fires."""
    _, series = FIRES[name]
    rule = rule_of(name)
    too_soon_s = max(0.0, seconds(rule["for"]) - MINUTE)
    assert not firing(rule, store_of(series), too_soon_s)


@pytest.mark.parametrize("name", FIRES)
def test_an_alert_is_silent_where_all_is_well(name: str) -> None:
    assert not firing(rule_of(name), store_of(QUIET), 14 * 60 * MINUTE, every_s=300)


@pytest.mark.parametrize("figure", ["precision", "recall"])
def test_a_figure_whose_intervals_overlap_has_not_drifted(figure: str) -> None:
    minutes, series = drift(figure, high=0.91)
    rule = rule_of(f"StreamGuard{figure.title()}Drifts")
    assert not firing(rule, store_of(series), minutes * MINUTE)


def test_commits_in_transactions_are_commits() -> None:
    series = {
        "stream_guard_in_flight_records": "5+0x60",
        'stream_guard_commits_total{outcome="ok"}': "0+0x60",
        'stream_guard_transactions_total{outcome="committed"}': "0+60x60",
    }
    assert not firing(rule_of("StreamGuardNotCommitting"), store_of(series), 40 * MINUTE)


def recorded() -> Store:
    """Return what a real run published over half an hour, scraped once a minute; see ``record_scrapes``."""
    store = Store()
    for scrape in orjson.loads(gzip.decompress(RECORDED.read_bytes())):
        for family in text_string_to_metric_families("\n".join(scrape["lines"]) + "\n"):
            for sample in family.samples:
                labels = SCRAPED | sample.labels
                store.add(sample.name, labels, scrape["minute"] * MINUTE, sample.value)
    return store


def test_one_alert_fires_over_a_real_run_with_a_tenth_malformed() -> None:
    store = recorded()
    fired = {rule["alert"]: firing(rule, store, 30 * MINUTE) for rule in alerts()}
    names = {name for name, found in fired.items() if found}
    assert names == {"StreamGuardManyDeadLetters"}
    (labels,) = fired["StreamGuardManyDeadLetters"]
    assert dict(labels) == {"namespace": "moderation", "job": "guard"}


def test_the_recorded_share_is_what_was_sent() -> None:
    share = evaluate(
        promql_parser.parse(
            "sum by (job) (rate(stream_guard_dead_letters_total[15m]))"
            " / sum by (job) (rate(stream_guard_records_total[15m]))"
        ),
        recorded(),
        30 * MINUTE,
    )
    assert isinstance(share, dict)
    assert list(share.values()) == [pytest.approx(0.1, rel=0.01)]


@pytest.mark.parametrize(
    "expression",
    ["x @ 3", "topk(2, x)", "sum without (a) (x)", "x * on (a) y", "deriv(x[5m])", "2 - x", "-x"],
)
def test_what_is_not_known_is_refused(expression: str) -> None:
    with pytest.raises(UnknownError):
        evaluate(promql_parser.parse(expression), store_of({"x": "0+1x9", "y": "0+1x9"}), 300)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("x", 5),
        ("rate(x[4m])", 1 / 60),  # extrapolated to both ends of the range
        ("increase(x[4m])", 4),
        ("increase(x[4m] offset 1m)", 4),
        ("x > 4", 5),
        ("x - 7", -2),
        ("abs(x - 7)", 2),
        ("x / 0", math.inf),
    ],
)
def test_values_are_those_of_prometheus(expression: str, expected: float) -> None:
    store = store_of({"x": "0+1x5"})
    found = evaluate(promql_parser.parse(expression), store, 300)
    assert isinstance(found, dict)
    assert list(found.values()) == [pytest.approx(expected)]


def test_a_counter_that_begins_again_goes_on_growing() -> None:
    expression = promql_parser.parse("increase(r[10m])")
    assert evaluate(expression, store_of({"r": "0+1x2 0+1x2"}), 300) == {
        frozenset(SCRAPED.items()): pytest.approx(4)
    }


def test_a_quantile_lies_between_its_buckets_bounds() -> None:
    series = {'b{le="1.0"}': "0+1x9", 'b{le="2.0"}': "0+3x9", 'b{le="+Inf"}': "0+4x9"}
    for share, expected in ((0.25, 1.0), (0.5, 1.5), (0.99, 2.0)):
        expression = promql_parser.parse(f"histogram_quantile({share}, sum by (le) (rate(b[5m])))")
        assert evaluate(expression, store_of(series), 540) == {frozenset(): pytest.approx(expected)}
