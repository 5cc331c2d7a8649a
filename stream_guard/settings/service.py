"""Settings of batches, delivery, dead letters, telemetry and the HTTP server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stream_guard.settings.section import Section


class BatchingSettings(Section):
    """Micro-batches, and the limits on what is in flight."""

    size_max: int = Field(64, ge=1)
    """Most posts of one policy in a micro-batch."""
    age_max_ms: int = Field(20, ge=0)
    """Longest wait of a post for a fuller micro-batch."""
    prefix_wait_factor: float = Field(250, ge=0)
    """If the policies do not all fit into the engine's prefix cache: how long posts under a cached policy may go before
    a post that came first, in multiples of ``age_max_ms``. 0: first come, first served."""
    poll_records_max: int = Field(500, ge=1)
    """Most records of one poll."""
    in_flight_records_max: int = Field(10_000, ge=1)
    """Most records in flight (read and not finished) over all partitions. At the limit polling pauses."""
    in_flight_bytes_max: int = Field(64 << 20, ge=1 << 16)
    """Most bytes of records in flight."""
    in_flight_tokens_max: int = Field(2_000_000, ge=64)
    """Most tokens of records in flight, estimated as one per four bytes of a post and policy."""
    partition_in_flight_max: int = Field(5_000, ge=1)
    """Most records in flight of one partition."""
    partition_span_max: int = Field(20_000, ge=1)
    """Most finished records of a partition that may wait for its oldest unfinished record."""

    @property
    def prefix_wait_s(self) -> float:
        """The same as ``prefix_wait_factor``, in s."""
        return self.prefix_wait_factor * self.age_max_ms / 1_000


class DeliverySettings(Section):
    """Delivery guarantees, commits and timeouts."""

    mode: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """Every record ends as its verdicts or a dead letter. ``at_least_once``: duplicates have the same verdict ids.
    ``exactly_once``: consumers with ``read_committed`` see no duplicates; it needs one producer per partition."""
    commit_interval_ms: int = Field(1_000, ge=10)
    """How often positions are committed."""
    commit_timeout_s: float = Field(10, gt=0)
    """Timeout of one commit."""
    publish_timeout_s: float = Field(120, gt=0)
    """Timeout of publishing, in s; after it the service stops without committing the records. A start waits as long for
    brokers that do not answer."""
    drain_timeout_s: float = Field(25, gt=0)
    """How long a stop or rebalance waits for records in flight; keep it below the pod's grace period."""
    stop_timeout_s: float = Field(5, gt=0)
    """Timeout for closing each client after the drain."""
    stall_timeout_s: float | None = Field(None, gt=0)
    """Stop the service if, for this long, no record in flight is finished or no position is committed. The default is
    ``engine.hang_timeout_s`` plus ``publish_timeout_s`` plus one minute."""
    record_age_s_max: float = Field(3_600, gt=0)
    """Stop the service if one record stays in flight this long (engine downtime excluded)."""
    loop_timeout_s: float = Field(60, gt=0)
    """End the process at once if the event loop is blocked for this long."""
    head_of_line_age_s_max: float = Field(60, gt=0)
    """Report a partition's oldest unfinished record in the log and ``/healthz`` when it is in flight for longer."""
    head_of_line_records_max: int = Field(10_000, ge=1)
    """Report it also when more finished records than this wait for it."""
    transaction_interval_ms: int = Field(200, ge=1)
    """Exactly once: how long a partition's finished records wait for more in one transaction."""
    transaction_records_max: int = Field(1_000, ge=1)
    """Exactly once: most input records of one transaction."""
    transaction_timeout_ms: int = Field(30_000, ge=1_000)
    """Exactly once: a longer transaction is aborted and its records are read again. Must not exceed the brokers'
    ``transaction.max.timeout.ms``."""
    transaction_producers_max: int = Field(64, ge=1)
    """Exactly once: most partitions of one member; each needs a producer with its own connections."""


class DeadLetterSettings(Section):
    """Limits on dead letters. So many failures mean a wrong configuration rather than bad records."""

    consecutive_max: int = Field(500, ge=0)
    """Most failures in a row; one more stops the service. 0 for no limit."""
    share_max: float = Field(0.5, ge=0, le=1)
    """Most failures in the window, as a share; above it the service stops. 1 for no limit."""
    window_records: int = Field(2_000, ge=1)
    """Size of the window, in records."""
    window_records_min: int = Field(1_000, ge=1)
    """``share_max`` applies when the window has at least this many records."""
    window_s: float = Field(600, gt=0)
    """Age of the oldest record in the window, in s."""
    hold_ms: int = Field(1_000, ge=0)
    """How long dead letters of failures in a row wait for a success before they are published."""

    @model_validator(mode="after")
    def _consistent(self) -> DeadLetterSettings:
        if self.window_records_min > self.window_records:
            raise ValueError(
                "window_records_min must not exceed window_records, or share_max never applies"
            )
        return self


class TelemetrySettings(Section):
    """Logs and traces."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """``auto`` is ``console`` on a terminal and ``json`` otherwise."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged."""
    log_repeats_per_minute_max: int = Field(30, ge=0)
    """Most log lines of one kind per minute; the next line says how many were suppressed. 0 for no limit."""
    otlp_endpoint: str | None = None
    """The OpenTelemetry collector for spans, e.g. ``http://collector:4317``. Unset: no spans."""
    otlp_protocol: Literal["grpc", "http"] = "grpc"
    """The transport of OTLP."""
    trace_ratio: float = Field(0.01, ge=0, le=1)
    """Share of records to trace; the flag of a record's ``traceparent`` takes precedence."""
    trace_keep: tuple[Literal["undetermined", "severe", "dead_letter", "slow"], ...] = (
        "undetermined",
        "severe",
        "dead_letter",
        "slow",
    )
    """Records to trace in any case: with an undetermined verdict, with a violation of a severity in
    ``cascade.severe``, dead letters, and slow ones. Their traces lack the engine's own spans."""
    trace_slow_s: float = Field(30, gt=0)
    """A record in flight for longer, in s, is slow."""
    trace_kept_per_s_max: float = Field(10, ge=1)
    """Most records per second that ``trace_keep`` adds; ``stream_guard_traces_total`` counts the rest as refused."""
    trace_engine: bool = True
    """Whether vLLM adds its own spans; needs ``otlp_endpoint``."""
    trace_content: bool = False
    """Whether spans contain prompts and completions. Everyone who can read traces can then read posts."""
    engine_metrics: bool = True
    """Whether ``/metrics`` includes vLLM's own metrics (``vllm:*``)."""
    service_name: str = "stream-guard"
    """The ``service.name`` of spans."""


class HttpSettings(Section):
    """The HTTP server for probes and metrics."""

    host: str = "127.0.0.1"
    """The address to listen on. The image and the chart set ``0.0.0.0``, since probes come from outside a container."""
    port: int = Field(8080, ge=0, le=65_535)
    """The port; 0 picks a free one and logs it."""
    connections_max: int = Field(256, ge=1)
    """Most open connections. A further one closes the connection that has been longest without a request."""
