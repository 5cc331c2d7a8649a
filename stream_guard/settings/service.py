"""How the service runs: batches, delivery, limits, telemetry, probes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stream_guard.settings.section import Section


class BatchingSettings(Section):
    """How records are gathered, and how much may be in flight."""

    size_max: int = Field(64, ge=1)
    """Posts of one policy handed to the judge together."""
    age_max_ms: int = Field(20, ge=0)
    """A post waits no longer than this for company."""
    poll_records_max: int = Field(500, ge=1)
    """Records taken by one poll."""
    in_flight_records_max: int = Field(10_000, ge=1)
    """Records read and not yet finished, over all partitions; above it nothing is polled."""
    in_flight_bytes_max: int = Field(64 << 20, ge=1 << 16)
    """Bytes of the same."""
    in_flight_tokens_max: int = Field(2_000_000, ge=64)
    """Tokens of the same, estimated at one for four bytes of a post, times its policies, whose own text is shared."""
    partition_in_flight_max: int = Field(5_000, ge=1)
    """Records of one partition in flight."""
    partition_span_max: int = Field(20_000, ge=1)
    """Finished records that one unfinished record at a partition's head may hold back."""


class DeliverySettings(Section):
    """When positions are committed, and how long things may take."""

    mode: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """Every record ends as its verdicts or a dead letter. ``at_least_once``: repeats carry the same verdict ids.
    ``exactly_once``: readers that read committed records only see no repeats; costs a producer per partition."""
    commit_interval_ms: int = Field(1_000, ge=10)
    """How often positions are committed."""
    commit_timeout_s: float = Field(10, gt=0)
    """Deadline of one commit."""
    publish_timeout_s: float = Field(120, gt=0)
    """Verdicts that cannot be produced for this long stop the service; nothing is committed for them."""
    drain_timeout_s: float = Field(25, gt=0)
    """At a stop or a rebalance: how long what is in flight may take; below the pod's grace period."""
    stop_timeout_s: float = Field(5, gt=0)
    """After the drain: the deadline of each client's closing."""
    stall_timeout_s: float | None = Field(None, gt=0)
    """Records in flight of which none is finished, or positions of which none is committed, for so long stop the
    service; by default ``engine.hang_timeout_s`` and ``publish_timeout_s`` together, and a minute more."""
    record_age_s_max: float = Field(3_600, gt=0)
    """So does one record in flight for so long, of the time that the engine was ready."""
    loop_timeout_s: float = Field(60, gt=0)
    """An event loop that does not turn for so long ends the process at once."""
    head_of_line_age_s_max: float = Field(60, gt=0)
    """An unfinished record at a partition's head is told of in the log and ``/healthz`` when it is older."""
    head_of_line_records_max: int = Field(10_000, ge=1)
    """It is told of, too, when it holds back the positions of more finished records."""
    transaction_interval_ms: int = Field(200, ge=1)
    """Exactly once: how long a partition's finished records wait for company in one transaction."""
    transaction_records_max: int = Field(1_000, ge=1)
    """Exactly once: input records of one transaction; this many do not wait for company."""
    transaction_timeout_ms: int = Field(30_000, ge=1_000)
    """Exactly once: a transaction that takes longer is given up, by us and by the broker, and its records are
    read again; at most the brokers' ``transaction.max.timeout.ms``."""
    transaction_producers_max: int = Field(64, ge=1)
    """Exactly once: partitions that one member may own, since each has a producer with connections of its own."""


class DeadLetterSettings(Section):
    """When dead letters stop the service: past these the deployment is wrong, and not the posts."""

    consecutive_max: int = Field(500, ge=0)
    """Failures in a row that become dead letters; one more stops the service. 0 for no limit."""
    share_max: float = Field(0.5, ge=0, le=1)
    """Share of failures in the window above which the service stops. 1 for no limit."""
    window_records: int = Field(2_000, ge=1)
    """Records that the share is taken over: the last so many."""
    window_records_min: int = Field(1_000, ge=1)
    """Fewer records than this in the window say nothing about the share."""
    window_s: float = Field(600, gt=0)
    """Older records are forgotten."""
    hold_ms: int = Field(1_000, ge=0)
    """How long the dead letters of a row of failures wait for it to end, before they are written all the same."""

    @model_validator(mode="after")
    def _consistent(self) -> DeadLetterSettings:
        if self.window_records_min > self.window_records:
            raise ValueError(
                "window_records_min must be at most window_records, or the share is never looked at"
            )
        return self


class TelemetrySettings(Section):
    """Logs and traces."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """``auto`` is console on a terminal, JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines shown."""
    log_repeats_per_minute_max: int = Field(30, ge=0)
    """Lines of one kind that are shown a minute; the next after it says how many were held back. 0 for no limit."""
    otlp_endpoint: str | None = None
    """Where spans go, e.g. ``http://collector:4317``; none are kept where unset."""
    otlp_protocol: Literal["grpc", "http"] = "grpc"
    """OTLP's transport."""
    trace_ratio: float = Field(0.01, ge=0, le=1)
    """Share of records without a ``traceparent`` that are traced; with one, its flag decides."""
    trace_keep: tuple[Literal["undetermined", "severe", "dead_letter", "slow"], ...] = (
        "undetermined",
        "severe",
        "dead_letter",
        "slow",
    )
    """Records that are traced whatever the ratio and the flag say: those with an undetermined verdict, with a violation
    of a severity in ``cascade.severe``, dead letters, and slow ones. Without the engine's own spans."""
    trace_slow_s: float = Field(30, gt=0)
    """A record that takes so long, from when it is read, is slow."""
    trace_kept_per_s_max: float = Field(10, ge=1)
    """Records a second that ``trace_keep`` adds at most; ``stream_guard_traces`` counts the rest as refused."""
    trace_engine: bool = True
    """Have vLLM hang spans of its own under ours, where there is an ``otlp_endpoint``."""
    trace_content: bool = False
    """Put the text of posts, and what the model made of them, into spans: whoever may read traces reads posts."""
    engine_metrics: bool = True
    """Publish vLLM's own metrics (``vllm:*``), too."""
    service_name: str = "stream-guard"
    """The ``service.name`` of spans."""


class HttpSettings(Section):
    """Probes and metrics over HTTP."""

    host: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside the pod
    """Address to listen on."""
    port: int = Field(8080, ge=0, le=65_535)
    """Port; 0 takes a free one and logs it."""
