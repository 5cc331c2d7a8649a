"""Quotas: rate and burst, who waits how long, and bounded memory."""

from __future__ import annotations

import pytest

from stream_guard.judging.lanes.quotas import Quotas
from stream_guard.policies.lanes import Quota

DELAY = Quota(tokens_per_s=100, burst_tokens=1_000)
LOWER = Quota(tokens_per_s=100, burst_tokens=1_000, past="low_effort")


def test_a_burst_passes_and_what_follows_waits_for_the_rate() -> None:
    quotas = Quotas()
    assert [quotas.take("a", DELAY, 250, 0.0) for _ in range(4)] == [0, 0, 0, 0]
    assert quotas.take("a", DELAY, 250, 0.0) == pytest.approx(2.5)
    assert quotas.take("a", DELAY, 250, 0.0) == pytest.approx(5.0)


def test_in_the_long_run_the_rate_holds() -> None:
    quotas = Quotas()
    passed = sum(
        quotas.take("a", LOWER, 10, moment / 10) == 0 for moment in range(10_000)
    )  # 1,000 s of 100 tokens/s are wanted at 100 tokens/s
    assert passed == 10_000
    passed = sum(quotas.take("b", LOWER, 50, moment / 10) == 0 for moment in range(10_000))
    assert passed == pytest.approx((1_000 + 100 * 1_000) / 50, rel=0.01)


def test_what_is_not_delayed_takes_nothing_past_the_quota() -> None:
    quotas = Quotas()
    assert quotas.take("a", LOWER, 1_000, 0.0) == 0
    for _ in range(50):
        assert quotas.take("a", LOWER, 500, 0.0) == pytest.approx(5.0)
    assert quotas.take("a", LOWER, 500, 5.0) == 0


def test_tenants_do_not_take_from_each_other() -> None:
    quotas = Quotas()
    assert quotas.take("a", DELAY, 1_000, 0.0) == 0
    assert quotas.take("a", DELAY, 1_000, 0.0) > 0
    assert quotas.take("b", DELAY, 1_000, 0.0) == 0


def test_a_request_above_the_burst_passes_a_full_bucket() -> None:
    quotas = Quotas()
    assert quotas.take("a", LOWER, 5_000, 0.0) == 0
    assert quotas.take("a", LOWER, 10, 1.0) > 0
    assert quotas.take("a", LOWER, 10, 50.0) == 0


def test_a_pause_refills_no_more_than_the_burst() -> None:
    quotas = Quotas()
    quotas.take("a", DELAY, 1_000, 0.0)
    assert quotas.take("a", DELAY, 1_000, 1_000.0) == 0
    assert quotas.take("a", DELAY, 1, 1_000.0) > 0


def test_full_buckets_are_forgotten() -> None:
    quotas = Quotas()
    for number in range(100_000):
        quotas.take(number, DELAY, 100, float(number))  # full again after 1 s
    assert len(quotas) < 2_000


def test_memory_is_bounded_with_a_million_tenants() -> None:
    quotas = Quotas(tenants_max=1_000)
    for number in range(1_000_000):
        quotas.take(number, DELAY, 100, 0.0)
    assert len(quotas) == 1_000
