"""Quotas in the cascade: what waits, what is asked for less, what is not asked, and what the verdict says."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.policies.lanes import Lane, Quota, TenantShare
from stream_guard.policies.policy import make_policy
from tests.unit.judging.cascade_doubles import POLICY, SAFE, Rig, asks

if TYPE_CHECKING:
    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.policies.lanes import Past
    from stream_guard.policies.policy import Policy

HIGH = make_policy(
    "careful", b"S1: Advertising\nAnswer `VIOLATES` or `SAFE`.", metadata=b"effort: high\n"
)
EACH = 128 + 25 + 32
"""Estimated tokens of a request below: a quarter of the budget of 512, 100 bytes of text, and what each one costs."""


def lane(past: Past = "delay", *, posts: int = 2, **more: Any) -> Lane:  # noqa: ANN401
    quota = Quota(tokens_per_s=EACH, burst_tokens=posts * EACH, past=past)
    return Lane("all", quota=quota, tenants={"free": TenantShare()}, **more)


class Tenants(Rig):
    """A rig without cheap tiers, whose posts are in a lane."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(tiers=("safeguard",), **settings)
        self.made = 0

    def send(
        self, count: int, where: Lane | None, tenant: str | None = "acme", policy: Policy = POLICY
    ) -> list[JudgeRequest]:
        texts = [f"{self.made + number:0100d}" for number in range(count)]
        self.made += count
        requests = asks(*texts, policy=policy, tenant=tenant)
        for request in requests:
            request.lane = where
        self.cascade.submit(requests, self.deliver)
        return requests

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.cascade._safeguard._tenancy.release_due()

    def degraded(self) -> list[tuple[str, ...]]:
        return [one.provenance.degraded for one in self.got if one.provenance is not None]

    def past(self, what: str) -> float:
        labels = {"lane": "all", "past": what}
        return self.metrics.registry.get_sample_value("stream_guard_quota_posts_total", labels) or 0


async def test_without_a_lane_nothing_is_estimated_or_delayed() -> None:
    rig = Tenants()
    rig.send(5, None)
    assert [request.tokens for request in rig.inner.waiting] == [0] * 5


async def test_within_the_quota_posts_are_asked_at_once_and_carry_their_estimate() -> None:
    rig = Tenants()
    rig.send(2, lane())
    assert [request.tokens for request in rig.inner.waiting] == [EACH] * 2
    rig.inner.say(SAFE)
    assert rig.degraded() == [(), ()]


async def test_past_the_quota_posts_wait_and_the_verdict_says_so() -> None:
    rig = Tenants()
    rig.send(4, lane())
    assert len(rig.inner.waiting) == 2
    rig.pass_time(0.9)
    assert len(rig.inner.waiting) == 2
    rig.pass_time(0.2)
    assert len(rig.inner.waiting) == 3
    rig.pass_time(1)
    rig.inner.say(SAFE)
    assert rig.degraded() == [(), (), ("quota_delayed",), ("quota_delayed",)]
    assert rig.past("delay") == 2


async def test_a_delay_ends_by_itself() -> None:
    rig = Tenants()
    fast = Lane("all", quota=Quota(tokens_per_s=EACH * 1_000, burst_tokens=EACH))
    rig.send(2, fast)
    assert len(rig.inner.waiting) == 1
    rig.clock.advance(0.001)  # the event loop's own clock brings it back
    await rig.until(waiting=2)


async def test_other_tenants_do_not_wait() -> None:
    rig = Tenants()
    where = lane()
    rig.send(10, where, "acme")
    rig.send(1, where, "other")
    rig.send(1, where, None)
    rig.send(20, where, "free")
    assert len(rig.inner.waiting) == 2 + 1 + 1 + 20


async def test_past_the_quota_posts_are_asked_once_at_low_effort() -> None:
    rig = Tenants()
    first, second, third = rig.send(3, lane("low_effort"), policy=HIGH)
    assert [one.effort for one in (first, second, third)] == [None, None, "low"]
    rig.inner.say(SAFE, 1.0)
    assert rig.degraded() == [(), (), ("quota_low_effort", "effort_lowered")]
    assert rig.past("low_effort") == 1


async def test_at_low_effort_the_ladder_is_cut() -> None:
    rig = Tenants()
    rig.send(1, lane("low_effort", posts=1))
    rig.inner.say(SAFE, 1.0)
    rig.send(1, lane("low_effort", posts=1))
    rig.inner.say(SAFE, 0.5)
    assert not rig.inner.waiting
    assert rig.degraded() == [(), ("quota_low_effort", "ladder_cut")]


async def test_past_the_quota_the_model_is_not_asked() -> None:
    rig = Tenants()
    requests = rig.send(3, lane("undetermined"))
    assert len(rig.inner.waiting) == 2
    assert rig.degraded() == [("quota_undetermined",)]
    assert rig.trail(requests[2]) == [("safeguard", "skipped", "quota:undetermined")]
    answer = rig.of(requests[2]).answer
    assert answer is not None
    assert answer.decision == "undetermined"
    rig.pass_time(1)
    rig.send(1, lane("undetermined"))
    assert len(rig.inner.waiting) == 3


async def test_a_higher_rung_is_paid_for_and_never_waits() -> None:
    rig = Tenants()
    rig.send(1, lane(posts=3))
    rig.inner.say(SAFE, 0.5)
    assert [request.effort for request in rig.inner.waiting] == ["medium"]
    assert rig.inner.waiting[0].tokens > EACH
    rig.send(1, lane(posts=3))
    assert len(rig.inner.waiting) == 1, "the rung has used the burst up"


async def test_a_delayed_post_keeps_its_mark_on_a_higher_rung() -> None:
    rig = Tenants()
    rig.send(2, lane(posts=1))
    rig.pass_time(2)
    rig.inner.say(SAFE, 0.5, requests=rig.inner.waiting[1:])
    rig.inner.say(SAFE, 1.0)
    assert sorted(rig.degraded()) == [(), ("quota_delayed",)]


async def test_under_pressure_a_delayed_post_says_both() -> None:
    rig = Tenants(pressure_effort_age_s_max=60)
    rig.send(2, lane(posts=1), policy=HIGH)
    rig.cascade.observe(None)
    rig.clock.advance(61)
    rig.cascade.observe(None)
    assert rig.cascade.level == 1
    rig.pass_time(0)
    rig.inner.say(SAFE)
    assert sorted(rig.degraded()) == [(), ("quota_delayed", "effort_lowered")]


async def test_what_waits_on_purpose_does_not_press() -> None:
    rig = Tenants(pressure_effort_age_s_max=60)
    rig.send(1, Lane("history", backfill=True))
    rig.send(3, lane(posts=1), "acme")
    rig.inner.say(SAFE, requests=rig.inner.waiting[1:])
    rig.clock.advance(1_000)
    assert rig.cascade.oldest_s() == 0
    rig.send(1, None)
    rig.clock.advance(5)
    assert rig.cascade.oldest_s() == 5


async def test_a_delay_that_is_over_does_not_press() -> None:
    rig = Tenants(pressure_effort_age_s_max=60)
    first = rig.send(2, lane(posts=1), "acme")[:1]
    rig.inner.say(SAFE, requests=first)
    rig.pass_time(50)
    assert len(rig.inner.waiting) == 1
    rig.clock.advance(3)
    assert rig.cascade.oldest_s() == 3
    rig.send(1, None)
    rig.clock.advance(7)
    assert rig.cascade.oldest_s() == 10
    rig.inner.say(SAFE, requests=rig.inner.waiting[:1])
    assert rig.cascade.oldest_s() == 7


async def test_a_post_that_waits_for_a_delayed_one_does_not_press() -> None:
    rig = Rig(pressure_effort_age_s_max=60)
    where = Lane("all", quota=Quota(tokens_per_s=4, burst_tokens=EACH))
    requests = asks(f"{0:0100d}", "one twice", "one twice", tenant="acme")
    for request in requests:
        request.lane = where
    rig.cascade.submit(requests, rig.deliver)
    rig.inner.say(SAFE)
    assert len(rig.got) == 1
    rig.clock.advance(30)
    assert rig.cascade.oldest_s() == 0


async def test_what_is_cancelled_gives_its_tokens_back_and_never_comes() -> None:
    rig = Tenants()
    requests = rig.send(12, lane())
    rig.cascade.cancel(requests[2:])
    rig.pass_time(1)
    assert len(rig.inner.waiting) == 2
    rig.send(1, lane())
    assert len(rig.inner.waiting) == 3, "ten posts that never came have cost nothing"
    rig.pass_time(100)
    assert len(rig.inner.waiting) == 3


async def test_what_was_cancelled_takes_no_memory() -> None:
    rig = Tenants()
    for _ in range(100):
        rig.cascade.cancel(rig.send(100, lane()))
    assert len(rig.cascade._safeguard._tenancy._held) <= 1_100


async def test_the_estimate_follows_the_answers() -> None:
    rig = Tenants()
    free = Lane("all")
    for _ in range(200):
        rig.send(1, free)
        rig.inner.say(SAFE)
    rig.send(1, free)
    assert rig.inner.waiting[0].tokens == pytest.approx(25 + 32 + 10, abs=1)


async def test_the_largest_tenants_are_shown() -> None:
    rig = Tenants()
    rig.metrics.tenant_tokens.show(1)
    rig.send(30, Lane("all"), "acme")
    rig.send(3, Lane("all"), "other")
    family = next(iter(rig.metrics.tenant_tokens.collect()))
    assert [sample.labels for sample in family.samples] == [{"lane": "all", "tenant": "acme"}]
    assert (
        rig.metrics.registry.get_sample_value("stream_guard_lane_tokens_total", {"lane": "all"})
        == 33 * EACH
    )


async def test_closing_forgets_what_waits() -> None:
    rig = Tenants()
    await rig.cascade.start(None)  # type: ignore[arg-type] # no tier looks at it
    rig.send(5, lane())
    await rig.cascade.close()
    rig.pass_time(100)
    assert len(rig.inner.waiting) <= 2


async def test_instead_of_a_delay_that_is_too_long_posts_are_asked_at_low_effort() -> None:
    rig = Tenants()
    rig.send(2 + 60 + 5, lane())
    rig.pass_time(0)
    # Two at once; five would wait for longer than a minute.
    assert len(rig.inner.waiting) == 2 + 5
    rig.inner.say(SAFE, 1.0)
    assert rig.degraded().count(("quota_low_effort",)) == 5
    rig.pass_time(61)
    assert len(rig.inner.waiting) == 60
    assert (rig.past("delay"), rig.past("low_effort")) == (60, 5)


async def test_a_tenant_with_a_name_of_any_length_has_its_own_quota_and_is_remembered_in_few_bytes() -> (
    None
):
    rig = Tenants()
    where = lane()
    long = "x" * 1_000_000
    for end in ("a", "b"):
        rig.send(3, where, long + end)
    assert len(rig.inner.waiting) == 2 + 2
    tracemalloc.start()
    for number in range(50):
        rig.send(1, where, f"{long}{number}")
        rig.inner.say(SAFE)
    rig.got.clear()
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < len(long)
