"""The gate: verdicts wait for their actions, become reviews past a limit, and pass untouched where there is none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import BrokerError, PolicyError
from stream_guard.judging.contract import Answer, JudgeRequest, Provenance
from stream_guard.judging.verdict import build_verdict
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post
from stream_guard.service.decisions import close_breakers
from stream_guard.settings import ActionLimit, ActionsSettings
from stream_guard.stream.breaker.gate import ActionGate
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBreakerLog,
    MemoryBroker,
    MemoryRecord,
)
from tests.decisions import make_decision
from tests.hang import HANG_S
from tests.in_flight import in_flight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import Judgement

TOPIC = "stream-guard.breaker"
PLAIN = make_policy("plain", b"# a\nS1: a rule\n", metadata=b"action: remove\n")
OWN = make_policy(
    "own", b"# a\nS1: a rule\n", metadata=b"action: remove\nlimits: [{actions_max: 2}]\n"
)
VIOLATES = Answer("violates", "S1")


class Silent(MemoryBreakerLog):
    """A topic whose brokers never acknowledge."""

    async def append(self, pairs: Sequence[tuple[bytes, bytes | None]]) -> None:
        del pairs
        await asyncio.Event().wait()


class Replica:
    """A gate around a judge whose answers the test gives, on a topic in memory."""

    def __init__(
        self, broker: MemoryBroker, *limits: ActionLimit, log: type[MemoryBreakerLog] | None = None
    ) -> None:
        self.clock = ManualClock()
        self.judge = ManualJudge(self.clock)
        self.metrics = Metrics(CollectorRegistry())
        self.logs = 0
        self.shown: dict[str, Any] = {}
        self.delivered: list[Judgement] = []
        self._arrived = asyncio.Event()
        self._kind = log or MemoryBreakerLog
        self._broker = broker
        self.gate = ActionGate(
            self.judge,
            ActionsSettings(limits=limits, wait_timeout_s=1),
            make_log=self._make_log,
            clock=self.clock,
            metrics=self.metrics,
            show=self.shown.update,
        )

    def _make_log(self) -> MemoryBreakerLog:
        self.logs += 1
        return self._kind(self._broker, TOPIC)

    def judged(self, offsets: Sequence[int], policy: Any = PLAIN, **post: Any) -> None:  # noqa: ANN401
        """Submit posts and answer that all of them violate."""
        made = Post(id="p", text="t", sha256="0" * 64, text_bytes=1, **post)
        self.gate.submit(
            [
                JudgeRequest(str(n), made, policy, in_flight(MemoryRecord("posts", 0, n)))
                for n in offsets
            ],
            self._deliver,
        )
        self.judge.answer(answer=VIOLATES)

    def _deliver(self, judgements: Sequence[Judgement]) -> None:
        self.delivered.extend(judgements)
        self._arrived.set()

    async def verdicts(self, count: int) -> list[dict[str, Any]]:
        """Return the verdicts once this many are there."""
        async with asyncio.timeout(HANG_S):
            while len(self.delivered) < count:
                self._arrived.clear()
                await self._arrived.wait()
        assert len(self.delivered) == count
        return [
            build_verdict(one.request.context.record, one, consumed_ms=0, published_ms=0)
            for one in self.delivered
        ]

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"stream_guard_{name}", labels)


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    made.create_topics(TOPIC)
    return made


def policies(*made: Any) -> PolicySet:  # noqa: ANN401
    return PolicySet({one.id: one for one in made})


def removed(verdicts: Sequence[dict[str, Any]]) -> int:
    return sum(verdict["action"] == "remove" for verdict in verdicts)


async def test_without_limits_nothing_is_opened_and_nothing_waits() -> None:
    replica = Replica(MemoryBroker())  # without the topic
    await replica.gate.start(policies(PLAIN))
    replica.judged(range(50))
    assert removed(await replica.verdicts(50)) == 50
    assert replica.logs == 0
    assert replica.shown == {}
    await replica.gate.close()


async def test_past_the_limit_actions_become_reviews_with_a_reason(broker: MemoryBroker) -> None:
    replica = Replica(broker, ActionLimit(action="remove", actions_max=10))
    await replica.gate.start(policies(PLAIN))
    replica.judged(range(50))
    verdicts = await replica.verdicts(50)
    assert removed(verdicts) == 10
    limited = [verdict for verdict in verdicts if verdict["action"] != "remove"]
    for verdict in limited:
        assert verdict["action"] == "review"
        assert verdict["needs_review"] is True
        assert "action_limited" in verdict["review_reasons"]
        assert verdict["provenance"]["degraded"] == ("action_limited",)
        assert verdict["decision"] == "violates"
    names = {"policy": "plain", "action": "remove", "cause": "limit"}
    assert replica.counted("limited_actions_total", **names) == 40
    scope = {"policy": "", "action": "remove", "window": "hour"}
    assert replica.counted("breaker_open", **scope) == 1
    assert replica.counted("breaker_trips_total", **scope, cause="actions_max") == 1
    (shown,) = replica.shown["open"]
    assert (shown["action"], shown["allowed"]) == ("remove", 10)
    await replica.gate.close()


async def test_replicas_share_a_limit_and_a_restart_keeps_it(broker: MemoryBroker) -> None:
    limit = ActionLimit(policy="*", actions_max=20)
    replicas = [Replica(broker, limit) for _ in range(3)]
    for replica in replicas:
        await replica.gate.start(policies(PLAIN))
    for number, replica in enumerate(replicas):
        replica.judged(range(number * 100, number * 100 + 30))
    total = sum([removed(await replica.verdicts(30)) for replica in replicas])
    assert 0 < total <= 20
    restarted = Replica(broker, limit)
    await restarted.gate.start(policies(PLAIN))
    restarted.judged(range(500, 530))
    assert total + removed(await restarted.verdicts(30)) <= 20
    for replica in (*replicas, restarted):
        await replica.gate.close()


async def test_a_person_closes_it_for_all_replicas(broker: MemoryBroker) -> None:
    limit = ActionLimit(action="remove", actions_max=5)
    one, other = Replica(broker, limit), Replica(broker, limit)
    for replica in (one, other):
        await replica.gate.start(policies(PLAIN))
    one.judged(range(10))
    assert removed(await one.verdicts(10)) == 5
    now_ms = one.clock.wall_ns() // 1_000_000
    one.gate.reset(now_ms + 1, action="remove")
    async with asyncio.timeout(HANG_S):
        while one.shown["open"] or other.shown["open"]:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0)
    other.judged(range(100, 103))
    assert removed(await other.verdicts(3)) == 3
    for replica in (one, other):
        await replica.gate.close()


async def test_a_decision_closes_breakers_of_its_names(broker: MemoryBroker) -> None:
    replica = Replica(broker, ActionLimit(action="remove", actions_max=1))
    await replica.gate.start(policies(PLAIN))
    replica.judged(range(3))
    assert removed(await replica.verdicts(3)) == 1
    decided_at = replica.clock.wall_ns() // 1_000_000 + 1
    other = {"action": "warn", "policy": None, "tenant": None}
    close_breakers(
        replica.gate, make_decision("breaker_reset", decided_at=decided_at, breaker=other)
    )
    replica.judged(range(10, 12))
    assert removed(await replica.verdicts(5)) == 1
    close_breakers(replica.gate, make_decision("breaker_reset", decided_at=decided_at))
    async with asyncio.timeout(HANG_S):
        while replica.shown["open"]:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0)
    replica.judged([20])
    assert removed(await replica.verdicts(6)) == 2
    await replica.gate.close()


async def test_a_reset_that_is_read_before_the_breakers_counts(broker: MemoryBroker) -> None:
    limit = ActionLimit(action="remove", actions_max=2)
    one, again = Replica(broker, limit), Replica(broker, limit)
    await one.gate.start(policies(PLAIN))
    one.judged(range(5))
    assert removed(await one.verdicts(5)) == 2
    await one.gate.close()
    again.gate.reset(one.clock.wall_ns() // 1_000_000 + 1)
    await again.gate.start(policies(PLAIN))
    async with asyncio.timeout(HANG_S):
        while again.shown["open"]:  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(0)
    again.judged(range(10, 12))
    assert removed(await again.verdicts(2)) == 2
    await again.gate.close()


async def test_a_person_who_decided_is_not_limited(broker: MemoryBroker) -> None:
    replica = Replica(broker, ActionLimit(actions_max=0))
    await replica.gate.start(policies(PLAIN))
    post = Post(id="p", text="t", sha256="0" * 64, text_bytes=1)
    replica.gate.submit([JudgeRequest("1", post, PLAIN, in_flight())], replica._deliver)
    replica.judge.answer(answer=VIOLATES, provenance=Provenance(tier="human", model="person"))
    assert removed(await replica.verdicts(1)) == 1
    await replica.gate.close()


async def test_a_record_that_is_read_again_takes_no_second_action(broker: MemoryBroker) -> None:
    replica = Replica(broker, ActionLimit(action="remove", actions_max=6))
    await replica.gate.start(policies(PLAIN))
    for _ in range(5):
        replica.judged(range(3))
    assert removed(await replica.verdicts(15)) == 15
    await replica.gate.close()


async def test_a_policy_may_limit_its_own_actions_from_an_edit_on(broker: MemoryBroker) -> None:
    replica = Replica(broker)
    await replica.gate.start(policies(PLAIN))
    await replica.gate.prepare(policies(PLAIN, OWN))
    replica.judged(range(9), OWN)
    replica.judged(range(9), PLAIN)
    verdicts = await replica.verdicts(18)
    assert removed([v for v in verdicts if v["policy"]["id"] == "own"]) == 2
    assert removed([v for v in verdicts if v["policy"]["id"] == "plain"]) == 9
    await replica.gate.close()


async def test_an_edit_whose_limits_cannot_be_counted_is_refused() -> None:
    replica = Replica(MemoryBroker())
    await replica.gate.start(policies(PLAIN))
    with pytest.raises(PolicyError, match=r"declare limits.*there is no topic"):
        await replica.gate.prepare(policies(OWN))
    await replica.gate.close()


async def test_a_start_without_the_topic_fails() -> None:
    replica = Replica(MemoryBroker(), ActionLimit(actions_max=1))
    with pytest.raises(BrokerError, match="there is no topic"):
        await replica.gate.start(policies(PLAIN))


async def test_brokers_that_do_not_answer_make_reviews(broker: MemoryBroker) -> None:
    replica = Replica(broker, ActionLimit(actions_max=100), log=Silent)
    await replica.gate.start(policies(PLAIN))
    replica.judged(range(4))
    assert replica.gate.in_flight() == 4
    await asyncio.sleep(0)
    assert replica.delivered == []
    replica.clock.advance(1)
    verdicts = await replica.verdicts(4)
    assert removed(verdicts) == 0
    names = {"policy": "plain", "action": "remove", "cause": "unanswered"}
    assert replica.counted("limited_actions_total", **names) == 4


async def test_shadows_and_safe_posts_use_no_action(broker: MemoryBroker) -> None:
    replica = Replica(broker, ActionLimit(actions_max=1))
    await replica.gate.start(policies(PLAIN))
    post = Post(id="p", text="t", sha256="0" * 64, text_bytes=1)
    shadow = in_flight(MemoryRecord("posts", 0, 1))
    shadow.modes = {"plain": "shadow"}
    replica.gate.submit([JudgeRequest("1", post, PLAIN, shadow)], replica._deliver)
    replica.judge.answer(answer=VIOLATES)
    replica.gate.submit([JudgeRequest("2", post, PLAIN, in_flight())], replica._deliver)
    replica.judge.answer()
    assert len(replica.delivered) == 2
    replica.judged([7])
    assert removed((await replica.verdicts(3))[2:]) == 1
    await replica.gate.close()


async def test_a_cancelled_request_is_not_delivered(broker: MemoryBroker) -> None:
    replica = Replica(broker, ActionLimit(actions_max=100), log=Silent)
    await replica.gate.start(policies(PLAIN))
    request = JudgeRequest(
        "1", Post(id="p", text="t", sha256="0" * 64, text_bytes=1), PLAIN, in_flight()
    )
    replica.gate.submit([request], replica._deliver)
    replica.judge.answer(answer=VIOLATES)
    replica.gate.cancel([request])
    assert replica.gate.in_flight() == 0
    replica.judged([5])
    replica.clock.advance(2)
    (verdict,) = await replica.verdicts(1)
    assert verdict["source"]["offset"] == 5
