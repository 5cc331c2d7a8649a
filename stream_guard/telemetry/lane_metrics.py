"""The metrics of lanes and tenants, which have series only where ``routes.yaml`` names lanes."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from stream_guard.telemetry.bulk_histogram import BulkHistogram
from stream_guard.telemetry.metric_row import MetricRow
from stream_guard.telemetry.top_gauge import TopGauge

__all__ = ["LaneMetrics"]

_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200, 86_400)


class LaneMetrics:
    """The rows; :class:`stream_guard.telemetry.metrics.Metrics` makes them with its own."""

    lane_records = MetricRow(
        Counter, "stream_guard_lane_records",
        "Records finished, by lane. A record whose policies are in several lanes counts in each.",
        ("lane",),
    )  # fmt: skip
    lane_late = MetricRow(
        Counter, "stream_guard_lane_late_records",
        "Records finished later than the lane's goal_s, by their timestamp.",
        ("lane",),
    )  # fmt: skip
    lane_seconds = MetricRow(
        BulkHistogram, "stream_guard_lane_seconds",
        "Seconds from a record's timestamp to the acknowledgement of its verdicts, by lane.",
        ("lane",), buckets=_SECONDS,
    )  # fmt: skip
    lane_in_flight = MetricRow(
        Gauge, "stream_guard_lane_in_flight_records",
        "Records in flight, by lane.",
        ("lane",),
    )  # fmt: skip
    lane_full = MetricRow(
        Gauge, "stream_guard_lane_full",
        "1 while a lane has reached one of its limits, so that partitions with this lane alone are not read.",
        ("lane",),
    )  # fmt: skip
    lane_tokens = MetricRow(
        Counter, "stream_guard_lane_tokens",
        "Estimated tokens of requests to the model, by lane.",
        ("lane",),
    )  # fmt: skip
    tenant_tokens = MetricRow(
        TopGauge, "stream_guard_tenant_tokens_per_second",
        "Estimated tokens of requests to the model, per second, of the lanes.tenants_shown tenants with the most; the "
        "mean of about the last seven minutes.",
        ("lane", "tenant"),
    )  # fmt: skip
    quota_posts = MetricRow(
        Counter, "stream_guard_quota_posts",
        "Posts past their tenant's quota, by lane and by what became of them.",
        ("lane", "past"),
    )  # fmt: skip
