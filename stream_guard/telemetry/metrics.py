"""Every metric of Stream Guard, in one table: the body of :class:`Metrics`.

Labels take values from bounded sets only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from stream_guard.core.errors import dead_letter_reasons
from stream_guard.core.vocabulary import ESCALATION_OUTCOMES
from stream_guard.telemetry.bulk_histogram import BulkHistogram
from stream_guard.telemetry.lane_metrics import LaneMetrics
from stream_guard.telemetry.metric_row import MetricRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.kafka_types import Partition

# fmt: off
SECONDS_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
)
# fmt: on
STAGES: Final = ("wait", "judge", "publish")
TRACED: Final = ("parent", "ratio", "undetermined", "severe", "dead_letter", "slow", "refused")
_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)


class Metrics(LaneMetrics):
    """The metrics of one consumer, in one registry (by default that of vLLM)."""

    # Reading and committing
    records = MetricRow(Counter, "stream_guard_records", "Records read.", ("topic",))
    skipped = MetricRow(
        Counter, "stream_guard_skipped_records",
        "Records skipped because post.where excludes them, by the condition that they do not meet; tombstone means a "
        "null value.",
        ("reason",),
    )  # fmt: skip
    commits = MetricRow(
        Counter, "stream_guard_commits", "Commits, by outcome.", ("outcome",),
        values=("ok", "failed"),
    )  # fmt: skip
    rebalances = MetricRow(
        Counter, "stream_guard_rebalances", "Assignments of partitions received from the group."
    )
    partitions = MetricRow(
        Gauge, "stream_guard_assigned_partitions", "Partitions assigned to this member."
    )
    topics_without_route = MetricRow(
        Gauge, "stream_guard_topics_without_route",
        "Assigned topics that kafka.topic_pattern catches and no policy judges; they are not read.",
    )  # fmt: skip
    registry_requests = MetricRow(
        Counter, "stream_guard_registry_requests",
        "Schemas requested from the registry: fetched (ok), unknown to it or unusable (unknown), or not answered "
        "(failed), which is retried.",
        ("outcome",), values=("ok", "unknown", "failed"),
    )  # fmt: skip
    registry_waiting = MetricRow(
        Gauge, "stream_guard_registry_waiting_partitions",
        "Partitions that wait for a schema from the registry; none of their records is read until it comes.",
    )  # fmt: skip
    repeats = MetricRow(
        Counter, "stream_guard_repeats",
        "Records read again (rebalance, rewind, reset), and verdicts and dead letters sent again because nobody "
        "knows whether they were written (rebuild).",
        ("cause",), values=("rebalance", "rewind", "reset", "rebuild"),
    )  # fmt: skip
    expired = MetricRow(
        Counter, "stream_guard_records_expired",
        "Offsets that were gone before the group read on from its position: deleted by retention (retention), or past "
        "the end of a log that was cut or made again (past_end).",
        ("topic", "cause"),
    )  # fmt: skip
    abandoned = MetricRow(
        Counter, "stream_guard_abandoned_records",
        "Records in flight abandoned at the deadline of a rebalance or stop; they are read again.",
    )  # fmt: skip
    lag = MetricRow(
        Gauge, "stream_guard_lag_records",
        "Records of a partition that are not finished: read or still to be read.",
        ("topic", "partition"),
    )  # fmt: skip
    oldest_age = MetricRow(
        Gauge, "stream_guard_oldest_unjudged_age_seconds",
        "Age of the oldest record read and not finished, by the record's timestamp; where there is none, the time "
        "since which there has been a record to read.",
        ("topic", "partition"),
    )  # fmt: skip
    in_flight = MetricRow(
        Gauge, "stream_guard_in_flight_records", "Records in flight: read and not finished."
    )
    head_of_line_age = MetricRow(
        Gauge, "stream_guard_head_of_line_age_seconds",
        "Age of the oldest record in flight over all partitions; 0 where none is in flight.",
    )  # fmt: skip

    # Judging
    batch_records = MetricRow(
        Histogram, "stream_guard_batch_posts", "Posts handed to the judge in one micro-batch.",
        buckets=_BATCH_SIZES,
    )  # fmt: skip
    tiers = MetricRow(
        Counter, "stream_guard_tier_posts",
        "Posts that a tier settled (gave a verdict), escalated, or skipped (under pressure, or refused); the model "
        "counts each rung.",
        ("tier", "outcome"),
    )  # fmt: skip
    tokens = MetricRow(
        Counter, "stream_guard_tokens",
        "Tokens of the engine; cached is the part of prompt found in the prefix cache.",
        ("kind",), values=("prompt", "cached", "output"),
    )  # fmt: skip
    pressure_level = MetricRow(
        Gauge, "stream_guard_pressure_level",
        "What is skipped because the judge cannot keep up: 0 nothing, 1 effort is lowered, 2 the model judges severe "
        "policies only, 3 the model is not asked.",
    )  # fmt: skip
    pressure_changes = MetricRow(
        Counter, "stream_guard_pressure_changes",
        "Changes of the level of pressure, by the new level.",
        ("level",), values=("normal", "effort", "severe_only", "undetermined"),
    )  # fmt: skip
    degraded = MetricRow(
        Counter, "stream_guard_degraded_verdicts",
        "Verdicts with skipped work, by kind of skipped work, or past a tenant's quota; a verdict with two kinds "
        "counts twice.",
        ("what",), values=(
            *("effort_lowered", "ladder_cut", "safeguard_skipped", "action_limited"),
            *("quota_delayed", "quota_low_effort", "quota_undetermined"),
        ),
    )  # fmt: skip
    limited_actions = MetricRow(
        Counter, "stream_guard_limited_actions",
        "Verdicts whose action became a review: a limit was reached (limit), or the brokers did not answer in time "
        "whether it was (unanswered).",
        ("policy", "action", "cause"),
    )  # fmt: skip
    breaker_open = MetricRow(
        Gauge, "stream_guard_breaker_open",
        "Open breakers: limits on actions that were reached. An empty policy or action stands for all together.",
        ("policy", "action", "window"),
    )  # fmt: skip
    breaker_trips = MetricRow(
        Counter, "stream_guard_breaker_trips",
        "Breakers that this replica opened, by the term of the limit that was reached.",
        ("policy", "action", "window", "cause"),
    )  # fmt: skip
    reasoning_cuts = MetricRow(
        Counter, "stream_guard_reasoning_cuts",
        "Verdicts whose reasoning used its whole budget and was cut there, by policy.",
        ("policy",),
    )  # fmt: skip
    windowed_verdicts = MetricRow(
        Counter, "stream_guard_windowed_verdicts",
        "Verdicts on posts that are longer than the model's context and were judged in windows, by policy.",
        ("policy",),
    )  # fmt: skip
    engine_rebuilds = MetricRow(
        Counter, "stream_guard_engine_rebuilds",
        "Engines rebuilt; start means that a rebuilt engine did not become ready.",
        ("cause",), values=("died", "hung", "start"),
    )  # fmt: skip
    engine_compilations = MetricRow(
        Counter, "stream_guard_engine_compilations",
        "What the engine compiled while posts were judged: kernels of Triton, graphs of torch.compile.",
        ("kind",), values=("kernel", "graph"),
    )  # fmt: skip
    policy_reloads = MetricRow(
        Counter, "stream_guard_policy_reloads",
        "Edits of the policies: switched to, refused, or restored after a refusal.",
        ("outcome",), values=("switched", "refused", "restored"),
    )  # fmt: skip

    # People's decisions
    decisions = MetricRow(
        Counter, "stream_guard_decisions",
        "Decisions of people that this member made events of, by kind; late: a later decision about the same stands; "
        "forgotten: a null value. Refused decisions are dead letters.",
        ("kind",),
        values=("review", "appeal", "retraction", "expiry", "breaker_reset", "late", "forgotten"),
    )  # fmt: skip
    retractions = MetricRow(
        Counter, "stream_guard_retractions",
        "Retractions built because a post was deleted at its source (post.deletes, post.tombstones).",
    )  # fmt: skip
    decision_subjects = MetricRow(
        Gauge, "stream_guard_decision_subjects",
        "Contents under a policy that a person decided about, as this member knows them.",
    )  # fmt: skip
    decisions_behind = MetricRow(
        Gauge, "stream_guard_decisions_behind",
        "Offsets of the decisions topic that this member has not read yet; a machine's verdict may contradict those.",
    )  # fmt: skip

    # Escalations
    escalations = MetricRow(
        Counter, "stream_guard_escalations",
        "Posts handed to another deployment, as acknowledged by the broker, by why.",
        ("policy", "reason"),
    )  # fmt: skip
    escalation_verdicts = MetricRow(
        Counter, "stream_guard_escalation_verdicts",
        "Verdicts built on posts that came from another deployment: decided by this one (decided), or why the verdict "
        "so far is final; escalation_late: a withheld verdict that became provisional at its deadline.",
        ("outcome",), values=ESCALATION_OUTCOMES,
    )  # fmt: skip
    escalation_lag = MetricRow(
        Gauge, "stream_guard_escalation_lag_records",
        "Offsets of cascade.escalation_topic that cascade.escalation_group has not committed.",
    )  # fmt: skip
    escalation_wait = MetricRow(
        Gauge, "stream_guard_escalation_wait_seconds",
        "Seconds for which posts wait in cascade.escalation_topic while cascade.escalation_group commits nothing.",
    )  # fmt: skip

    # Publishing
    verdicts = MetricRow(
        Counter, "stream_guard_verdicts", "Verdicts acknowledged by the broker.",
        ("policy", "decision", "tier", "mode"),
    )  # fmt: skip
    dead_letters = MetricRow(
        Counter, "stream_guard_dead_letters", "Dead letters acknowledged by the broker.",
        ("reason",), values=dead_letter_reasons(),
    )  # fmt: skip
    reasoning = MetricRow(
        Counter, "stream_guard_reasoning_records",
        "Chains of thought acknowledged by the broker, where kafka.reasoning_topic is set.",
    )  # fmt: skip
    review_items = MetricRow(
        Counter, "stream_guard_review_items",
        "Review items acknowledged by the broker, where kafka.review_topic is set.",
    )  # fmt: skip
    dead_letter_share = MetricRow(
        Gauge, "stream_guard_dead_letter_share",
        "Share of failures in the window; dead_letters.share_max is its limit.",
        ("stage",), values=("parse", "judge"),
    )  # fmt: skip
    dead_letter_consecutive = MetricRow(
        Gauge, "stream_guard_dead_letter_consecutive",
        "Failures in a row; dead_letters.consecutive_max is their limit.",
        ("stage",), values=("parse", "judge"),
    )  # fmt: skip
    dead_letter_stops = MetricRow(
        Counter, "stream_guard_dead_letter_limit_stops",
        "Limits on dead letters that were exceeded; each stops the service with exit code 5.",
        ("stage", "setting"),
    )  # fmt: skip
    transactions = MetricRow(
        Counter, "stream_guard_transactions",
        "Transactions, by outcome; all but committed are read again.",
        ("outcome",), values=("committed", "fenced", "timeout", "error"),
    )  # fmt: skip
    producer_rebuilds = MetricRow(
        Counter, "stream_guard_producer_rebuilds", "Producers rebuilt after an error."
    )

    # Durations
    seconds = MetricRow(
        BulkHistogram, "stream_guard_process_seconds",
        "Seconds from reading a record to handing its verdict to the producer.",
        buckets=SECONDS_BUCKETS,
    )  # fmt: skip
    stage_seconds = MetricRow(
        BulkHistogram, "stream_guard_stage_seconds",
        "Seconds of each stage: wait (from reading a record to handing its post to the judge), judge (all tiers and "
        "rungs), publish (from handing a record to the producer to the broker's acknowledgement).",
        ("stage",), values=STAGES, buckets=SECONDS_BUCKETS,
    )  # fmt: skip
    loop_lag = MetricRow(
        BulkHistogram, "stream_guard_event_loop_lag_seconds",
        "Seconds by which the event loop was late, measured once a second.",
        buckets=SECONDS_BUCKETS,
    )  # fmt: skip

    # What runs
    traces = MetricRow(
        Counter, "stream_guard_traces",
        "Records traced, by why: the sender's flag (parent), the ratio, or a reason in telemetry.trace_keep; refused "
        "means that telemetry.trace_kept_per_s_max was reached.",
        ("why",), values=TRACED,
    )  # fmt: skip
    build = MetricRow(
        Gauge, "stream_guard_build_info", "Always 1; the labels say what runs.",
        ("version", "model", "engine"),
    )  # fmt: skip

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        for attribute, row in (*vars(Metrics).items(), *vars(LaneMetrics).items()):
            if isinstance(row, MetricRow):
                self.__dict__[attribute] = row.make(registry)

    def observe_stage(self, stage: str, durations_ns: Sequence[int], count: int = 1) -> None:
        """Add durations of a stage, in ns, each seen ``count`` times."""
        self.stage_seconds.observe_all(
            [duration_ns / 1e9 for duration_ns in durations_ns], count, stage
        )

    def count_skipped(self, counts: Mapping[str, int]) -> None:
        """Add skipped records by reason."""
        for reason, count in counts.items():
            self.skipped.labels(reason).inc(count)

    def show_lag(self, behind: Mapping[Partition, int], ages_s: Mapping[Partition, float]) -> None:
        """Show the lag of the partitions that this member owns now, and of no other.

        Args:
            behind: records that are not finished.
            ages_s: age of the oldest of them, in s.
        """
        for gauge, values in ((self.lag, behind), (self.oldest_age, ages_s)):
            gauge.clear()
            for partition, value in values.items():
                gauge.labels(partition.topic, str(partition.partition)).set(value)

    def count_verdicts(self, counts: Mapping[tuple[str, str, str, str], int]) -> None:
        """Add counts by (policy, decision, tier, mode): for a whole batch, since a label lookup costs a microsecond."""
        for labels, count in counts.items():
            self.verdicts.labels(*labels).inc(count)

    def count_written(self, label: str | None) -> None:
        """Count an acknowledged output that is no verdict: None for a chain of thought, ``review``, or a reason.

        Of an escalation the label is ``escalation/POLICY/REASON``.
        """
        if label is None:
            self.reasoning.inc()
        elif label == "review":
            self.review_items.inc()
        elif label.startswith("escalation/"):
            self.escalations.labels(*label.split("/")[1:]).inc()
        else:
            self.dead_letters.labels(label).inc()

    def count_tier(
        self, tier: str, *, settled: int = 0, escalated: int = 0, skipped: int = 0
    ) -> None:
        """Add the outcomes of a tier for a batch of posts."""
        if settled:
            self.tiers.labels(tier, "settled").inc(settled)
        if escalated:
            self.tiers.labels(tier, "escalated").inc(escalated)
        if skipped:
            self.tiers.labels(tier, "skipped").inc(skipped)
