"""What the tests of the cascade share: posts, policies, tiers that do as they are told, and a rig round them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance
from stream_guard.judging.tiers.cascade import Cascade
from stream_guard.judging.tiers.tier import Escalated, Settled
from stream_guard.policies.policy import Policy, PolicySet, make_policy
from stream_guard.records.post import Post
from stream_guard.settings import CascadeSettings
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualClock, ManualJudge
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.core.errors import RecordError
    from stream_guard.judging.contract import Sampled
    from stream_guard.judging.tiers.tier import CheapTier, Outcome

POLICY = make_policy(
    "spam",
    b"S1: Advertising\nS2: Fraud\nAnswer `VIOLATES` or `SAFE`.",
    metadata=b"categories:\n  S2: {violates: true, severity: high}\naction: hide\n",
)
SAFE = Answer("safe")
VIOLATES = Answer("violates", "S1")
SEVERE = Answer("violates", "S2")
_numbers = itertools.count()


def post(text: str, **more: Any) -> Post:  # noqa: ANN401
    return Post(f"post-{next(_numbers)}", text, "0" * 64, len(text.encode()), **more)


def asks(*texts: str, policy: Policy = POLICY, **more: Any) -> list[JudgeRequest]:  # noqa: ANN401
    return [JudgeRequest(f"r{next(_numbers)}", post(text, **more), policy) for text in texts]


class Reasoner(ManualJudge):
    """A ManualJudge whose answers have a confidence, and cost tokens."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.asked: list[tuple[str, str | None, int | None]] = []
        self.cancelled: list[str] = []
        self.changed = asyncio.Event()

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        self.asked.extend((r.post.text, r.effort, r.reasoning_tokens_max) for r in requests)
        super().submit(requests, deliver)
        self.changed.set()

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        self.cancelled.extend(request.id for request in requests)
        super().cancel(requests)

    def say(
        self,
        answer: Answer = SAFE,
        confidence: float | None = None,
        *,
        cut: bool = False,
        sampling: Sampled | None = None,
        error: RecordError | None = None,
        requests: Sequence[JudgeRequest] | None = None,
    ) -> None:
        """Answer all that waits, or these; each answer costs 100 tokens of prompt and 10 of output."""
        wanted = list(self.waiting) if requests is None else list(requests)
        groups: dict[Any, list[Judgement]] = {}
        now_ns = self.clock.wall_ns()
        for request in wanted:
            provenance = Provenance(
                "safeguard",
                "manual",
                effort=request.effort or request.policy.effort,
                prompt_tokens=100,
                cached_tokens=90,
                output_tokens=10,
                finish_reason="stop",
                reasoning_cut=cut,
                sampling=sampling,
            )
            judgement = Judgement(
                request,
                None if error else answer,
                error,
                provenance,
                confidence,
                None if confidence is None else "test",
                now_ns - 5_000_000,
                now_ns,
            )
            groups.setdefault(self._deliver.pop(request.id), []).append(judgement)
            self.waiting.remove(request)
        for deliver, judgements in groups.items():
            deliver(judgements)


class WordTier:
    """Settles posts that have a word in them; notes which posts it saw, and in which thread."""

    def __init__(self, name: str, word: str, *, blocking: bool = False) -> None:
        self.name = name
        self.word = word
        self.blocking = blocking
        self.looks: list[list[str]] = []
        self.threads: set[int] = set()
        self.prepared: list[PolicySet] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.wanted = True

    def prepare(self, policies: PolicySet) -> None:
        self.prepared.append(policies)

    def wants(self, policy: Policy) -> bool:  # noqa: ARG002
        return self.wanted

    def screen(self, posts: Sequence[Post], policy: Policy) -> Sequence[Outcome]:  # noqa: ARG002
        self.looks.append([post.text for post in posts])
        self.threads.add(threading.get_ident())
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return [
            Settled(VIOLATES, f"word:{self.word}", "words-1", 1.0, "exact")
            if self.word in post.text
            else Escalated("no_word")
            for post in posts
        ]


class Rig:
    """A cascade of doubles, and what it delivered."""

    def __init__(self, *tiers: CheapTier, **settings: Any) -> None:  # noqa: ANN401
        self.clock = ManualClock()
        self.inner = Reasoner(self.clock)
        self.metrics = Metrics(CollectorRegistry())
        self.settings = CascadeSettings(**settings)
        self.cascade = Cascade(
            self.inner, tiers, self.settings, clock=self.clock, metrics=self.metrics
        )
        self.got: list[Judgement] = []
        self.lists: list[int] = []

    def deliver(self, judgements: Sequence[Judgement]) -> None:
        self.lists.append(len(judgements))
        self.got.extend(judgements)
        self.inner.changed.set()

    async def until(self, *, got: int = 0, waiting: int = 0) -> None:
        """Wait until so many judgements have come, and so many posts wait for the model."""
        async with asyncio.timeout(HANG_S):
            while len(self.got) < got or len(self.inner.waiting) < waiting:
                self.inner.changed.clear()
                await self.inner.changed.wait()

    def ask(self, *texts: str, policy: Policy = POLICY, **more: Any) -> list[JudgeRequest]:  # noqa: ANN401
        """Submit posts with these texts."""
        requests = asks(*texts, policy=policy, **more)
        self.cascade.submit(requests, self.deliver)
        return requests

    def judged(self, text: str, answer: Answer = SAFE, confidence: float | None = None) -> None:
        """Submit a post and have the model answer it."""
        self.ask(text)
        self.inner.say(answer, confidence)

    def of(self, request: JudgeRequest) -> Judgement:
        (found,) = [judgement for judgement in self.got if judgement.request is request]
        return found

    def trail(self, request: JudgeRequest) -> list[tuple[str, str, str]]:
        provenance = self.of(request).provenance
        assert provenance is not None
        return [(step.tier, step.outcome, step.reason) for step in provenance.trail]

    def counts(self) -> Counter[tuple[str, str]]:
        return Counter(
            {
                (sample.labels["tier"], sample.labels["outcome"]): int(sample.value)
                for family in self.metrics.tiers.collect()
                for sample in family.samples
                if sample.name.endswith("_total")
            }
        )

    @property
    def waiting(self) -> list[str]:
        return [request.post.text for request in self.inner.waiting]


def with_tiers(*tiers: str, policy: Policy = POLICY, **changes: Any) -> Policy:  # noqa: ANN401
    """Return a policy with these tiers, and a digest of its own."""
    sha256 = f"{next(_numbers):064x}"
    return replace(policy, tiers=tiers, sha256=sha256, **changes)
