"""Every metric, with a line of meaning each. Labels take values from bounded sets only."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from stream_guard.core.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_guard.core.kafka_types import Partition

SECONDS_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)
STAGES: Final = ("wait", "judge", "publish")
TRACED: Final = ("parent", "ratio", "undetermined", "severe", "dead_letter", "slow", "refused")
_RECORDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)


class _Counts:
    """What one series of a histogram has seen."""

    __slots__ = ("_bounds", "by_bucket", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.by_bucket = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        self.by_bucket[bisect_left(self._bounds, value)] += count
        self.total += value * count


class BulkHistogram(Collector):
    """A histogram that takes a value with a count: prometheus_client's own takes one at a time, at 2 us each.

    Args:
        name, documentation: as in the exposition format.
        bounds: upper bounds of the buckets, ascending, without infinity.
        label: the one label, and its values, which are all there from the start; None for none.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        label: tuple[str, Sequence[str]] | None = None,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self.label_names = () if label is None else (label[0],)
        values = ("",) if label is None else label[1]
        self._series = {value: _Counts(self._bounds) for value in values}

    def observe(self, value: float, count: int = 1, label: str = "") -> None:
        """Add a value that was seen ``count`` times."""
        self._series[label].observe(value, count)

    def observe_all(self, values: Iterable[float], count: int = 1, label: str = "") -> None:
        """Add values, each seen ``count`` times."""
        observe = self._series[label].observe
        for value in values:
            observe(value, count)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the family, with cumulative buckets."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self.label_names)
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for value, counts in self._series.items():
            buckets = list(zip(bounds, accumulate(counts.by_bucket), strict=True))
            labels = (value,) if self.label_names else ()
            family.add_metric(labels, buckets=buckets, sum_value=counts.total)
        yield family


def reasons() -> tuple[str, ...]:
    """Return every reason of a dead letter."""
    todo, found = [RecordError], []
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind is not RecordError and kind.__module__ == RecordError.__module__:
            found.append(kind.reason)
    return tuple(sorted(found))


class Metrics:
    """The metrics of one consumer, in one registry (by default the one that vLLM uses too)."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        # Records read from input topics.
        self.records = Counter(
            "stream_guard_records", "Records read.", ["topic"], registry=registry
        )
        # Verdicts acknowledged by the broker; mode is live, canary, or shadow (never acted on).
        self.verdicts = Counter(
            "stream_guard_verdicts",
            "Verdicts acknowledged by the broker.",
            ["policy", "decision", "tier", "mode"],
            registry=registry,
        )
        # Dead letters acknowledged by the broker.
        self.dead_letters = Counter(
            "stream_guard_dead_letters",
            "Dead letters acknowledged by the broker.",
            ["reason"],
            registry=registry,
        )
        # Chains of thought acknowledged by the broker, where kafka.reasoning_topic is set; each goes with a verdict.
        self.reasoning = Counter(
            "stream_guard_reasoning_records",
            "Chains of thought acknowledged by the broker.",
            registry=registry,
        )
        # What dead_letters.share_max and .consecutive_max are compared with, by stage: parse, judge.
        self.dead_letter_share = Gauge(
            "stream_guard_dead_letter_share",
            "Share of failures in the window that dead_letters.share_max looks at.",
            ["stage"],
            registry=registry,
        )
        self.dead_letter_consecutive = Gauge(
            "stream_guard_dead_letter_consecutive",
            "Failures in a row, which dead_letters.consecutive_max bounds.",
            ["stage"],
            registry=registry,
        )
        # Limits that were passed; each ends the process with exit code 5, after a drain.
        self.dead_letter_stops = Counter(
            "stream_guard_dead_letter_limit_stops",
            "Limits on dead letters that were passed.",
            ["stage", "setting"],
            registry=registry,
        )
        # Work abandoned at a drain's deadline; another member, or this one after a restart, reads it again.
        self.abandoned = Counter(
            "stream_guard_abandoned_records",
            "Records given up at a rebalance or stop; they are read again.",
            registry=registry,
        )
        # Tokens, by direction: prompt, cached (part of prompt), output.
        self.tokens = Counter(
            "stream_guard_tokens", "Tokens of the engine.", ["kind"], registry=registry
        )
        # What each tier did with posts; settled: a verdict came of it, skipped: left out under pressure or refused.
        self.tiers = Counter(
            "stream_guard_tier_posts",
            "Posts that a tier settled, escalated or skipped; of the model, once a rung.",
            ["tier", "outcome"],
            registry=registry,
        )
        # How much is left out because the judge cannot keep up: 0 nothing, 1 effort, 2 all but severe, 3 the model.
        self.pressure_level = Gauge(
            "stream_guard_pressure_level", "What is left out under pressure.", registry=registry
        )
        # Changes of that level, by the one that it changed to.
        self.pressure_changes = Counter(
            "stream_guard_pressure_changes",
            "Changes of the level of pressure.",
            ["level"],
            registry=registry,
        )
        # Edits of the policies' folder, by outcome: switched, refused, restored (what was refused was taken back).
        self.policy_reloads = Counter(
            "stream_guard_policy_reloads",
            "Edits of the policies, by what came of them.",
            ["outcome"],
            registry=registry,
        )
        # Positions committed, by outcome: ok, failed.
        self.commits = Counter("stream_guard_commits", "Commits.", ["outcome"], registry=registry)
        # Assignments that the group gave us.
        self.rebalances = Counter(
            "stream_guard_rebalances", "Assignments received.", registry=registry
        )
        # Times that the producer was thrown away and made again.
        self.producer_rebuilds = Counter(
            "stream_guard_producer_rebuilds", "Producers rebuilt after an error.", registry=registry
        )
        # Engines thrown away and made again; cause is died, hung, or start (the rebuilt one did not get ready).
        self.engine_rebuilds = Counter(
            "stream_guard_engine_rebuilds", "Engines rebuilt.", ["cause"], registry=registry
        )
        # Transactions, by outcome: committed, fenced, timeout, error (the last three: rewound, and read again).
        self.transactions = Counter(
            "stream_guard_transactions", "Transactions.", ["outcome"], registry=registry
        )
        # What was done again, by cause: rebalance, rewind, reset (records that this process reads again); rebuild
        # (verdicts and dead letters sent again, since nobody knows whether they were written).
        self.repeats = Counter(
            "stream_guard_repeats",
            "Records read again, and verdicts sent again, by cause.",
            ["cause"],
            registry=registry,
        )
        # Records read and not finished.
        self.in_flight = Gauge(
            "stream_guard_in_flight_records", "Records in flight.", registry=registry
        )
        # Age of the oldest unfinished record at a partition's head; 0 where all is finished.
        self.head_of_line_age = Gauge(
            "stream_guard_head_of_line_age_seconds",
            "Age of the oldest record in flight, over all partitions.",
            registry=registry,
        )
        # Partitions assigned to this member.
        self.partitions = Gauge(
            "stream_guard_assigned_partitions", "Partitions assigned.", registry=registry
        )
        # Posts handed to the judge together.
        self.batch_records = Histogram(
            "stream_guard_batch_posts",
            "Posts of one micro-batch.",
            buckets=_RECORDS,
            registry=registry,
        )
        # From reading a record to handing its verdict to the producer.
        self.seconds = BulkHistogram(
            "stream_guard_process_seconds",
            "Seconds from reading a record to its verdict.",
            SECONDS_BUCKETS,
        )
        registry.register(self.seconds)
        # By stage: wait (from reading a record to handing its post to the judge), judge (inside the judge, all tiers
        # and rungs), publish (from handing a verdict or dead letter to the producer to the broker's acknowledgement).
        self.stage_seconds = BulkHistogram(
            "stream_guard_stage_seconds",
            "Seconds of each stage.",
            SECONDS_BUCKETS,
            ("stage", STAGES),
        )
        registry.register(self.stage_seconds)
        # How late the event loop comes to what is due, looked at once a second: all of the process waits so long.
        self.loop_lag = BulkHistogram(
            "stream_guard_event_loop_lag_seconds", "How late the event loop is.", SECONDS_BUCKETS
        )
        registry.register(self.loop_lag)
        # From the first record of a partition that is not finished to the newest that is known of.
        self.lag = Gauge(
            "stream_guard_lag_records",
            "Records of a partition that are not finished, read or not.",
            ["topic", "partition"],
            registry=registry,
        )
        # By the timestamp of the oldest record that was read and is not finished; where none is, the time since which
        # there has been one to read.
        self.oldest_age = Gauge(
            "stream_guard_oldest_unjudged_age_seconds",
            "Age of a partition's oldest record without its verdicts.",
            ["topic", "partition"],
            registry=registry,
        )
        # Verdicts that were made with less than their policy asks for, by what was left out: effort_lowered,
        # ladder_cut, safeguard_skipped; one with two of them counts twice.
        self.degraded = Counter(
            "stream_guard_degraded_verdicts",
            "Verdicts for which something was left out under pressure.",
            ["what"],
            registry=registry,
        )
        # Records traced, by why: parent (its sender's flag), ratio; undetermined, severe, dead_letter, slow (kept
        # all the same); refused (would have been kept, but telemetry.trace_kept_per_s_max was reached).
        self.traces = Counter(
            "stream_guard_traces", "Records traced, by why.", ["why"], registry=registry
        )
        # Always 1: the labels say what runs.
        self.build = Gauge(
            "stream_guard_build_info",
            "What runs.",
            ["version", "model", "engine"],
            registry=registry,
        )

        self._show_zeros()

    def _show_zeros(self) -> None:
        """Show series of fixed labels from the start: of one that begins at 1, no rate can tell."""
        for metric, values in (
            (self.commits, ("ok", "failed")),
            (self.tokens, ("prompt", "cached", "output")),
            (self.policy_reloads, ("switched", "refused", "restored")),
            (self.engine_rebuilds, ("died", "hung", "start")),
            (self.transactions, ("committed", "fenced", "timeout", "error")),
            (self.repeats, ("rebalance", "rewind", "reset", "rebuild")),
            (self.degraded, ("effort_lowered", "ladder_cut", "safeguard_skipped")),
            (self.pressure_changes, ("normal", "effort", "severe_only", "undetermined")),
            (self.dead_letter_share, ("parse", "judge")),
            (self.dead_letter_consecutive, ("parse", "judge")),
            (self.traces, TRACED),
            (self.dead_letters, reasons()),
        ):
            for value in values:
                metric.labels(value)

    def observe_stage(self, stage: str, durations_ns: Sequence[int], count: int = 1) -> None:
        """Add durations of a stage, in ns, each seen ``count`` times."""
        self.stage_seconds.observe_all(
            [duration_ns / 1e9 for duration_ns in durations_ns], count, stage
        )

    def count_tokens(self, prompt: int, cached: int, output: int) -> None:
        """Add tokens by kind."""
        for kind, count in (("prompt", prompt), ("cached", cached), ("output", output)):
            self.tokens.labels(kind).inc(count)

    def count_degraded(self, counts: Mapping[str, int]) -> None:
        """Add verdicts by what was left out."""
        for what, count in counts.items():
            self.degraded.labels(what).inc(count)

    def show_lag(self, behind: Mapping[Partition, int], ages_s: Mapping[Partition, float]) -> None:
        """Show how far behind the partitions are that are ours now, and no other."""
        for gauge, values in ((self.lag, behind), (self.oldest_age, ages_s)):
            gauge.clear()
            for partition, value in values.items():
                gauge.labels(partition.topic, str(partition.partition)).set(value)

    def count_verdicts(self, counts: Mapping[tuple[str, str, str, str], int]) -> None:
        """Add counts by (policy, decision, tier, mode): a list at a time, since a label look-up costs a microsecond."""
        for labels, count in counts.items():
            self.verdicts.labels(*labels).inc(count)

    def count_tier(
        self, tier: str, *, settled: int = 0, escalated: int = 0, skipped: int = 0
    ) -> None:
        """Add what a tier did with a list of posts."""
        if settled:
            self.tiers.labels(tier, "settled").inc(settled)
        if escalated:
            self.tiers.labels(tier, "escalated").inc(escalated)
        if skipped:
            self.tiers.labels(tier, "skipped").inc(skipped)
