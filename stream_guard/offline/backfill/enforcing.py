"""Lets a backfill's verdicts pass what live verdicts pass: people's decisions, then the limits of actions.

Verdicts that are only stored need neither. Those that enforcement acts on do, at the moment when they are published.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance
from stream_guard.judging.human.judge import HumanFirst
from stream_guard.judging.human.table import DecisionTable
from stream_guard.judging.verdict import ACTION_LIMITED
from stream_guard.kafka.breaker_topic import KafkaBreakerLog
from stream_guard.kafka.decision_feed import DecisionFeed
from stream_guard.offline.session import SourceLine, judge_all
from stream_guard.policies.policy import PolicySet
from stream_guard.policies.routing import Routing
from stream_guard.records.post import Post
from stream_guard.stream.breaker.gate import ActionGate
from stream_guard.stream.decision_lane import DecisionReader
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_guard.judging.contract import Judge
    from stream_guard.kafka.part_writer import Keyed
    from stream_guard.policies.policy import Policy
    from stream_guard.records.decision import Decision
    from stream_guard.settings import Settings

__all__ = ["Allowed", "Enforcer"]


@dataclass(slots=True, frozen=True)
class _Context:
    """All that the gate reads of a record in flight."""

    record: SourceLine
    abandoned: bool = False
    modes: None = None


@dataclass(slots=True)
class Allowed:
    """Verdicts that may be published.

    Attributes:
        verdicts: them; where a limit was reached, with a review in place of the action.
        limited: how many those are.
        decided: how many are left out, because a person has decided about the post.
    """

    verdicts: list[Keyed]
    limited: int = 0
    decided: int = 0


class Enforcer:
    """An async context manager.

    Args:
        settings: all sections; ``actions``, ``decisions``, ``kafka`` and ``delivery`` are used.
        policies: under which was judged.
        make_log: returns the breaker's topic; by default that of the settings.

    Raises:
        BrokerError: on entering, the topics of the breaker or of decisions cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        policies: Sequence[Policy],
        *,
        make_log: Callable[[], Any] | None = None,
    ) -> None:
        self._policies = {policy.id: policy for policy in policies}
        metrics, clock = Metrics(CollectorRegistry()), SystemClock()
        self._known = _Known()
        gate = ActionGate(
            self._known,
            settings.actions,
            make_log=make_log or partial(KafkaBreakerLog, settings.kafka, settings.delivery),
            clock=clock,
            metrics=metrics,
            show=lambda _: None,
        )
        self._judge: Judge = gate
        self._feed: DecisionFeed | None = None
        self._watching: asyncio.Task[BaseException] | None = None
        if settings.decisions.enabled:
            reader = DecisionReader(settings)
            self._table = DecisionTable(settings.decisions.memory_bytes_max, reader.read_later)
            self._judge = HumanFirst(gate, self._table, clock=clock, metrics=metrics)
            self._feed = DecisionFeed(
                settings,
                reader,
                self._table,
                metrics,
                show=lambda _: None,
                reset=partial(_reset, gate),
            )

    async def __aenter__(self) -> Self:
        if self._feed is not None:
            await self._feed.load()
            self._watching = asyncio.create_task(self._feed.watch(), name="decisions")
        ids = tuple(self._policies)
        await self._judge.start(PolicySet.of(self._policies, Routing(default=ids)))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._judge.close()
        if self._feed is not None:
            await self._feed.close()
            self._table.close()

    async def allow(self, verdicts: Sequence[Keyed]) -> Allowed:
        """Return which verdicts may be published, and how.

        Raises:
            BrokerError: decisions cannot be read any more, or actions cannot be counted.
        """
        if self._watching is not None and self._watching.done():
            raise self._watching.result()
        asked = [
            JudgeRequest(str(n), _post(keyed.verdict), self._policy(keyed), _Context(_line(keyed)))
            for n, keyed in enumerate(verdicts)
        ]
        self._known.answers = {r.id: k.verdict for r, k in zip(asked, verdicts, strict=True)}
        allowed = Allowed([])
        for keyed, judgement in zip(verdicts, await judge_all(self._judge, asked), strict=True):
            if judgement.decided is not None:
                allowed.decided += 1
                continue
            assert judgement.provenance is not None, "every answer has one"
            if ACTION_LIMITED in judgement.provenance.degraded:
                allowed.limited += 1
                _limit(keyed.verdict)
            allowed.verdicts.append(keyed)
        return allowed

    def _policy(self, keyed: Keyed) -> Policy:
        return self._policies[keyed.verdict["policy"]["id"]]


def _reset(gate: ActionGate, decision: Decision) -> None:
    breaker = decision.breaker
    assert breaker is not None, "only a breaker_reset comes here"
    gate.reset(
        decision.decided_at, action=breaker.action, policy=breaker.policy, tenant=breaker.tenant
    )


def _post(verdict: dict[str, Any]) -> Post:
    content = verdict["content"]
    return Post(
        content["id"],
        "",
        content["sha256"],
        0,
        content["author"],
        content["tenant"],
        content["language"],
    )


def _line(keyed: Keyed) -> SourceLine:
    source = keyed.verdict["source"]
    return SourceLine(
        source["topic"], source["offset"], source["timestamp_ms"], source["partition"], keyed.key
    )


def _limit(verdict: dict[str, Any]) -> None:
    """Make the action a review, in place, as :mod:`stream_guard.judging.verdict` does."""
    verdict["action"] = "review"
    verdict["needs_review"] = True
    verdict["review_reasons"] = [*verdict["review_reasons"], ACTION_LIMITED]
    provenance = verdict["provenance"]
    provenance["degraded"] = [*provenance["degraded"], ACTION_LIMITED]


class _Known:
    """A :class:`stream_guard.judging.contract.Judge` that repeats what verdicts say.

    Attributes:
        answers: verdicts by the id of their request.
    """

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}

    async def start(self, policies: PolicySet) -> None:
        """Do nothing."""

    async def prepare(self, policies: PolicySet) -> None:
        """Do nothing."""

    def submit(
        self,
        requests: Sequence[JudgeRequest[Any]],
        deliver: Callable[[Sequence[Judgement[Any]]], None],
    ) -> None:
        """Answer at once."""
        deliver([_judgement(one, self.answers[one.id]) for one in requests])

    def cancel(self, requests: Sequence[JudgeRequest[Any]]) -> None:
        """Do nothing: every request is answered at once."""

    def in_flight(self) -> int:
        """Return 0: every request is answered at once."""
        return 0

    async def wait_failed(self) -> BaseException:
        """Never returns: it cannot fail."""
        await asyncio.Event().wait()
        raise AssertionError("never set")

    def describe(self) -> Mapping[str, str]:
        """Return nothing: no model is asked."""
        return {}

    async def close(self) -> None:
        """Do nothing."""


def _judgement(request: JudgeRequest[Any], verdict: dict[str, Any]) -> Judgement[Any]:
    """Return the judgement behind a verdict, as far as an action depends on it."""
    policy, provenance = verdict["policy"], verdict["provenance"]
    answer = Answer(
        verdict["decision"],
        policy["category"],
        tuple(policy["rule_ids"]),
        policy["rationale"],
        provenance["parse_status"],
        tuple(policy["labels"]),
    )
    made = Provenance(
        provenance["tier"], provenance["model"], degraded=tuple(provenance["degraded"])
    )
    return Judgement(request, answer, provenance=made)
