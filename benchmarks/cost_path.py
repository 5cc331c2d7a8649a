"""Takes records through the pipeline in memory, so that their cost can be counted.

The judge answers at once, and the publisher acknowledges on request. A run in which a record does not come out is an
error.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, get_args

import orjson
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from benchmarks.queued_judge import QueuedJudge
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.assembly import make_cascade
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.policies.lanes import Lane, Lanes, Quota
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.routing import Condition, RouteRule, Routing
from stream_guard.records.post import PostParser
from stream_guard.settings import Settings
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualClock, MemoryRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.stream.in_flight import Outgoing

POLL_RECORDS: Final = 500
VIOLATES_EVERY: Final = 10
"""One post of so many violates its policy, so that both kinds of verdict are counted."""
_PLACE: Final = Partition("posts", 0)
_LANES: Final = Lanes(
    [
        *(
            Lane(str(number), (Condition("tenant", (f"author-{number}*",)),), weight=number)
            for number in (1, 2, 3)
        ),
        Lane("others", quota=Quota(1e6, 1_000_000)),
    ]
)
_POLICY: Final = b"Answer `VIOLATES` or `SAFE`. Judge by the letter."
Variant: TypeAlias = Literal["plain", "structured", "traced", "routed", "cascade", "lanes"]
VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)
"""``plain`` is a topic with its own route, binary CloudEvents and no endpoint for traces. Each other
variant differs in one thing: structured CloudEvents; an endpoint with a ratio of 0; routes by the
post; the default tiers; four lanes with a quota, where each record's author is its tenant, and the engine's queue."""


class _Publisher:
    """Keeps records until it is told to acknowledge them."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self._held: list[tuple[Sequence[Outgoing], Callable[[Sequence[Outgoing]], None]]] = []

    def publish(
        self, outgoing: Sequence[Outgoing], acknowledged: Callable[[Sequence[Outgoing]], None]
    ) -> None:
        self._held.append((outgoing, acknowledged))

    def acknowledge(self) -> None:
        held, self._held = self._held, []
        for outgoing, acknowledged in held:
            self.acknowledged += len(outgoing)
            acknowledged(outgoing)


class _Discard(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - it throws them away
        return SpanExportResult.SUCCESS


class HotPath:
    """A record's way from its bytes to its finished offset, in memory. Enter it; it needs an event loop.

    Args:
        variant: the variant of the path.

    Attributes:
        pipeline, parser, publisher: the parts, for a test to make dearer.
    """

    def __init__(self, variant: Variant = "plain") -> None:
        mode = "structured" if variant == "structured" else "binary"
        self._settings = Settings(
            kafka={"topics": [_PLACE.topic], "cloudevents_mode": mode},
            telemetry={"trace_ratio": 0.0},
            cascade={"duplicates_entries_max": 100}  # full after the warm-up
            if variant != "lanes"
            else {"tiers": ["safeguard"], "ladder": []},
            post={"tenant": "/author"} if variant == "lanes" else {},
        )
        metrics = Metrics(CollectorRegistry())
        self._clock = ManualClock()
        self._policies = PolicySet.of({"one": make_policy("one", _POLICY)}, _routing(variant))
        self._tracing = Tracing(
            self._settings.telemetry,
            group="cost",
            exporter=_Discard() if variant == "traced" else None,
            metrics=metrics,
        )
        judge: Any = QueuedJudge() if variant == "lanes" else ScriptedJudge()
        if variant in ("cascade", "lanes"):
            judge = make_cascade(self._settings, self._clock, metrics, judge)
        self._judge = judge
        self.publisher = _Publisher()
        self.parser = PostParser(self._settings.post)
        self.pipeline = Pipeline(
            self._settings,
            self._policies,
            parser=self.parser,
            judge=judge,
            publisher=self.publisher,  # type: ignore[arg-type] # the slice of it that is used
            clock=self._clock,
            metrics=metrics,
            tracing=self._tracing,
        )
        self._offsets = PartitionOffsets(_PLACE, 1)
        self._next = 0

    async def __aenter__(self) -> Self:
        await self._judge.start(self._policies)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._judge.close()
        self._tracing.close()

    def make(self, count: int) -> list[MemoryRecord]:
        """Return the next records: posts of about 270 bytes, no two alike."""
        first, self._next = self._next, self._next + count
        return [_record(number) for number in range(first, first + count)]

    async def take(self, records: Sequence[MemoryRecord], *, acknowledge: bool = True) -> None:
        """Take records in polls, and see to it that all came out; or stop short of the acknowledgements."""
        for at in range(0, len(records), POLL_RECORDS):
            self._clock.advance(0.01)
            self.pipeline.accept(self._offsets, records[at : at + POLL_RECORDS])
            self.pipeline.dispatch(flush=True)
            while self._judge.in_flight():  # noqa: ASYNC110 - the loop's next turn, not a wait
                await asyncio.sleep(0)
            if acknowledge:
                self.publisher.acknowledge()
        if acknowledge:
            self.check()

    def check(self) -> None:
        """See to it that each record made was finished, with one verdict.

        Raises:
            RuntimeError: not every record came out, so the counts do not describe the path.
        """
        out = self.publisher.acknowledged
        if not self._next == out == self.pipeline.finished == self._offsets.position():
            raise RuntimeError(f"{self._next} records in and {out} verdicts out")


def _routing(variant: Variant) -> Routing:
    if variant == "lanes":
        return Routing(default=("one",), lanes=_LANES)
    if variant != "routed":
        return Routing(default=("one",))
    return Routing(
        rules=(
            RouteRule("other", (Condition("header", ("listing",), "surface"),), ("one",)),
            RouteRule("english", (Condition("field", ("en",), "/language"),), ("one",)),
        ),
        default=("one",),
    )


def _record(number: int) -> MemoryRecord:
    mark = "[violates]" if number % VIOLATES_EVERY == 0 else "and about nothing"
    value = {
        "id": f"post-{number:08d}",
        "text": f"Post number {number:08d}: {'as long as posts tend to be ' * 6}{mark}",
        "author": f"author-{number % 1_000}",
        "language": "en",
    }
    key = b"author-%d" % (number % 1_000)
    return MemoryRecord(*_PLACE, number, 1_700_000_000_000, key, orjson.dumps(value))
