"""Every setting, one class per section, units in the names.

Values come from, in this order: the command line's ``--config FILE`` (TOML), the environment
(``STREAM_GUARD_<SECTION>__<NAME>``; lists and tables as JSON), the defaults here. The environment wins
over the file, so that a deployment can override what an image carries.

What it must never do: accept a name that it does not know, or show a secret.
"""

from __future__ import annotations

import itertools
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as PydanticSettingsError

from stream_guard.errors import SettingsError

ENV_PREFIX: Final = "STREAM_GUARD_"
_DELIMITER: Final = "__"


class _Section(BaseModel):
    """A section: unknown names are errors, and the values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SecuritySettings(_Section):
    """How to reach brokers that ask who we are."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Kafka's ``security.protocol``."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """Required with a SASL protocol."""
    username: str | None = None
    """For PLAIN and SCRAM."""
    password: SecretStr | None = None
    """For PLAIN and SCRAM."""
    oauth_token_hook: str | None = None
    """For OAUTHBEARER: ``package.module:function``, async or not, that returns a token."""
    ssl_cafile: Path | None = None
    """CA certificates (PEM) to trust; the system's where unset."""
    ssl_certfile: Path | None = None
    """Our certificate (PEM), for mutual TLS."""
    ssl_keyfile: Path | None = None
    """Our private key (PEM), for mutual TLS."""
    ssl_key_password: SecretStr | None = None
    """Password of the private key."""
    ssl_check_hostname: bool = True
    """Whether the broker's certificate must carry its host's name."""

    @model_validator(mode="after")
    def _complete(self) -> SecuritySettings:
        sasl = self.protocol.startswith("SASL")
        if sasl and self.sasl_mechanism is None:
            raise ValueError("sasl_mechanism is required with a SASL protocol, e.g. SCRAM-SHA-512")
        if not sasl and self.sasl_mechanism is not None:
            raise ValueError("sasl_mechanism needs protocol SASL_SSL (or SASL_PLAINTEXT)")
        if self.sasl_mechanism == "OAUTHBEARER":
            if not self.oauth_token_hook or ":" not in self.oauth_token_hook:
                raise ValueError(
                    "oauth_token_hook is required with OAUTHBEARER, e.g. my_auth:token"
                )
        elif sasl and (self.username is None or self.password is None):
            raise ValueError(f"username and password are required with {self.sasl_mechanism}")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile go together")
        return self


class KafkaSettings(_Section):
    """Where records come from and verdicts go."""

    bootstrap_servers: str = "localhost:9092"
    """Brokers to begin with, as ``host:port[,host:port...]``."""
    topics: tuple[str, ...] = ()
    """Names of the topics to read. Either this or ``topic_pattern``."""
    topic_pattern: str | None = None
    """A regular expression of topics to read, matched from the name's start."""
    group_id: str = Field("stream-guard", min_length=1)
    """The consumer group."""
    group_instance_id: str | None = None
    """Static membership: a name that outlives a restart, one per replica."""
    verdict_topic: str = Field("stream-guard.verdicts", min_length=1)
    """Where verdicts go."""
    dead_letter_topic: str = Field("stream-guard.dead-letters", min_length=1)
    """Where records that cannot be judged go."""
    shadow_topic: str | None = Field(None, min_length=1)
    """Where verdicts of shadow policies go, which are never acted on; needed where ``routes.yaml`` has shadows."""
    client_id: str = "stream-guard"
    """What brokers' logs and quotas know us by."""
    security: SecuritySettings = SecuritySettings()
    """How to reach brokers that ask who we are."""
    session_timeout_ms: int = Field(45_000, ge=1_000)
    """A member silent for this long is out of the group."""
    heartbeat_interval_ms: int = Field(3_000, ge=100)
    """How often we tell the group that we are alive."""
    rebalance_timeout_ms: int = Field(90_000, ge=1_000)
    """How long the group waits for us to give partitions back; above ``delivery.drain_timeout_s``."""
    max_poll_interval_ms: int = Field(300_000, ge=1_000)
    """A member that has not polled for this long leaves the group."""
    request_timeout_ms: int = Field(30_000, ge=1_000)
    """Deadline of one request to a broker, and of a produced batch, retries included."""
    retry_backoff_ms: int = Field(100, ge=1)
    """Wait between two tries of a request."""
    metadata_max_age_ms: int = Field(30_000, ge=1_000)
    """How soon new partitions and topics are noticed."""
    fetch_max_wait_ms: int = Field(100, ge=1)
    """How long a broker holds a fetch open for ``fetch_min_bytes``."""
    fetch_min_bytes: int = Field(1, ge=1)
    """What makes a broker answer a fetch before that."""
    fetch_max_bytes: int = Field(16 << 20, ge=1_024)
    """Upper bound of one fetch from a broker, in bytes."""
    max_partition_fetch_bytes: int = Field(2 << 20, ge=1_024)
    """Upper bound of one fetch per partition, in bytes; a single larger record still comes."""
    isolation_level: Literal["read_uncommitted", "read_committed"] = "read_committed"
    """Whether records of open or aborted transactions are read."""
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    """Of what we produce."""
    linger_ms: int = Field(5, ge=0)
    """How long a batch of verdicts waits for company."""
    batch_bytes_max: int = Field(900_000, ge=16_384)
    """Upper bound of one batch of verdicts, in bytes before compression; below the topic's limit."""
    cloudevents_mode: Literal["binary", "structured"] = "binary"
    """How verdicts are CloudEvents: ``binary``, attributes as headers; ``structured``, one JSON around the verdict."""
    dead_letter_bytes_max: int = Field(900_000, ge=1_024)
    """A larger dead letter has its value cut to this and says so; its source record is named."""

    @model_validator(mode="after")
    def _consistent(self) -> KafkaSettings:
        if self.topics and self.topic_pattern:
            raise ValueError("topics and topic_pattern exclude each other; set one")
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError("heartbeat_interval_ms must be at most a third of session_timeout_ms")
        for name in self.written_topics:
            if name in self.topics:
                raise ValueError(f"{name!r} is read and written: verdicts would be judged again")
        if self.shadow_topic in (self.verdict_topic, self.dead_letter_topic):
            raise ValueError(
                "shadow_topic must be a topic of its own: what stands there is never acted on"
            )
        return self

    @property
    def written_topics(self) -> tuple[str, ...]:
        """The topics that we write."""
        shadow = () if self.shadow_topic is None else (self.shadow_topic,)
        return (self.verdict_topic, self.dead_letter_topic, *shadow)


_Share = Annotated[float, Field(ge=0, le=1)]
Tier: TypeAlias = Literal["duplicates", "rules", "classifier", "safeguard"]
_Pointer = Annotated[str, Field(pattern=r"^(/.*)?$")]


class PostSettings(_Section):
    """How a record's JSON becomes a post; fields are JSON pointers (RFC 6901)."""

    format: Literal["auto", "json", "cloudevents"] = "auto"
    """``auto`` reads CloudEvents where the headers say so, plain JSON elsewhere; ``cloudevents`` insists."""
    id: _Pointer = "/id"
    """Where the post's id is; required in every record."""
    text: _Pointer = "/text"
    """Where the text is; required in every record."""
    author: _Pointer = "/author"
    """Where the author's id is."""
    tenant: _Pointer = "/tenant"
    """Where the tenant is."""
    language: _Pointer = "/language"
    """Where the language (BCP 47) is."""
    created_at: _Pointer = "/created_at"
    """Where the time of writing is: RFC 3339, or Unix time in s or ms."""
    title: _Pointer = "/title"
    """Where the title is."""
    parent: _Pointer = "/parent"
    """Where the text that the post answers is."""
    max_text_bytes: int = Field(64 << 10, ge=1)
    """A longer text (UTF-8, with title and parent) is a dead letter."""
    max_record_bytes: int = Field(1 << 20, ge=1)
    """A larger value is a dead letter."""
    max_key_bytes: int = Field(4 << 10, ge=1)
    """A longer record key is a dead letter: every verdict carries its record's key."""
    max_depth: int = Field(64, ge=1, le=512)
    """A document nested deeper is a dead letter."""


class PoliciesSettings(_Section):
    """Where the policies are."""

    path: Path = Path("policies")
    """A folder with ``<slug>/policy.md`` and ``routes.yaml``."""
    reload: bool = True
    """Whether edits of the folder go live while posts flow; without it, at the next start."""


class EngineSettings(_Section):
    """The model and the engine; what is not named here goes to vLLM through ``extra``."""

    kind: Literal["vllm", "scripted"] = "vllm"
    """``scripted`` judges by a fixed rule, without a model: for load tests of the pipeline."""
    model: str = "openai/gpt-oss-safeguard-20b"
    """A folder, or a model's name on a hub."""
    revision: str | None = None
    """The model's revision, so that verdicts can be reproduced."""
    dtype: str = "auto"
    """vLLM's ``dtype``."""
    max_model_len: int = Field(8_192, ge=64)
    """Longest prompt and answer together, in tokens."""
    max_num_seqs: int = Field(256, ge=1)
    """Requests that vLLM runs side by side."""
    max_num_batched_tokens: int = Field(8_192, ge=64)
    """Tokens that vLLM computes in one step."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of the GPU's memory that vLLM takes."""
    kv_cache_memory_bytes: int | None = Field(None, ge=1 << 20)
    """Size of the KV cache, in bytes, instead of a share of memory."""
    load_format: str = "auto"
    """vLLM's ``load_format``; ``dummy`` makes random weights in the model's shape."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Passed on to vLLM's engine arguments as it is."""
    effort: Literal["low", "medium", "high"] = "low"
    """How long the model reasons, for policies that do not say."""
    reasoning_tokens_max: int = Field(512, ge=1)
    """Reasoning budget, in tokens; exact."""
    rationale_tokens_max: int = Field(96, ge=1)
    """Longest rationale, in tokens."""
    attempts_max: int = Field(2, ge=1, le=5)
    """Tries for an answer that can be read; each with half the budget of the last."""
    request_timeout_s: float = Field(60, gt=0)
    """A post without an answer by then is ``undetermined``."""
    start_timeout_s: float = Field(1_800, gt=0)
    """The engine must be ready by then."""
    hang_timeout_s: float | None = Field(None, gt=0)
    """An engine that decides nothing for so long, while it has posts, hangs and is killed; above
    ``request_timeout_s``, by default twice that."""
    rebuilds_max: int = Field(10, ge=0)
    """Engines rebuilt within ``rebuild_window_s``, failed attempts included; one more stops the service."""
    rebuild_window_s: float = Field(3_600, gt=0)
    """Over how long rebuilds are counted."""
    rebuild_backoff_s_min: float = Field(1, ge=0)
    """Pause before a rebuild; it doubles with each that follows without a post judged in between."""
    rebuild_backoff_s_max: float = Field(60, ge=0)
    """Longest of these pauses."""
    deaths_per_post_max: int = Field(2, ge=1)
    """A post over which the engine has died or hung so often, the last time alone in it, is a dead letter."""
    in_flight_requests_max: int | None = Field(None, ge=1)
    """Requests admitted to vLLM at once; by default twice ``max_num_seqs``."""
    in_flight_tokens_max: int | None = Field(None, ge=64)
    """Prompt tokens admitted to vLLM at once; by default no bound beyond that of requests."""
    prompt_date: str = Field("2025-01-01", pattern=r"^\d{4}-\d{2}-\d{2}$")
    """The date in harmony's system message, pinned so that prefixes stay cached and verdicts reproducible."""

    @model_validator(mode="after")
    def _ordered(self) -> EngineSettings:
        if self.hang_s <= self.request_timeout_s:
            raise ValueError(
                "hang_timeout_s must exceed request_timeout_s, or one slow post would pass for a hanging engine"
            )
        if self.rebuild_backoff_s_max < self.rebuild_backoff_s_min:
            raise ValueError("rebuild_backoff_s_max must not be below rebuild_backoff_s_min")
        return self

    @property
    def hang_s(self) -> float:
        """``hang_timeout_s``, or its default."""
        return 2 * self.request_timeout_s if self.hang_timeout_s is None else self.hang_timeout_s


class RungSettings(_Section):
    """One rung of the ladder: how long the model reasons, and its budget."""

    effort: Literal["medium", "high"]
    """Above the lowest, with which no post is asked twice."""
    reasoning_tokens_max: int = Field(ge=1, le=32_768)
    """Reasoning budget on this rung, in tokens; exact. A policy's own is kept where it is larger."""


class CascadeSettings(_Section):
    """Which tiers a post passes, when the model is asked again, and what is left out under pressure."""

    tiers: tuple[Tier, ...] = Field(
        ("duplicates", "rules", "classifier", "safeguard"), min_length=1
    )
    """In order, for policies that do not say; ``safeguard`` is the model, and the last."""
    duplicates_entries_max: int = Field(100_000, ge=1)
    """Answers kept for posts that come again, about 1 kB each; the least recently used go first."""
    duplicates_ttl_s: float = Field(3_600, gt=0)
    """How long an answer is kept, in s."""
    classifier: str | None = Field(None, min_length=1)
    """The classifier of policies with ``thresholds`` that name none: ``builtin:NAME``, or a folder."""
    classifier_threads: int = Field(1, ge=1, le=64)
    """Threads that a classifier's run may use, besides the engine's."""
    ladder: tuple[RungSettings, ...] = (
        RungSettings(effort="medium", reasoning_tokens_max=1_024),
        RungSettings(effort="high", reasoning_tokens_max=2_048),
    )
    """Rungs above a policy's own effort, lowest first; empty asks the model once."""
    uncertain_band: tuple[_Share, _Share] = (0.2, 0.8)
    """An answer whose confidence lies in it, ends included, climbs; two equal ends leave out all but that value."""
    severe: tuple[Literal["low", "medium", "high", "critical"], ...] = ("high", "critical")
    """Severities at which a violation is asked again, one rung higher, and which pressure spares longest."""
    pressure_effort_age_s_max: float | None = Field(60, gt=0)
    """Oldest post at the judge, in s, above which posts are asked once, at low effort; unset never."""
    pressure_effort_lag_records_max: int | None = Field(None, ge=1)
    """Records still to be read, above which the same holds."""
    pressure_severe_only_age_s_max: float | None = Field(None, gt=0)
    """Oldest post, in s, above which the model is asked for policies with a severe category only; unset never."""
    pressure_severe_only_lag_records_max: int | None = Field(None, ge=1)
    """Records still to be read, above which the same holds."""
    pressure_undetermined_age_s_max: float | None = Field(None, gt=0)
    """Oldest post, in s, above which the model is not asked: the policy's ``undetermined`` holds; unset never."""
    pressure_undetermined_lag_records_max: int | None = Field(None, ge=1)
    """Records still to be read, above which the same holds."""
    pressure_recovery_ratio: float = Field(0.5, gt=0, lt=1)
    """A level is left once age and lag are below this share of its limits."""
    pressure_hold_s: float = Field(30, ge=0)
    """For how long they must be, in s, before each step back."""
    pressure_interval_s: float = Field(1, gt=0)
    """How often it is looked at, in s."""

    @model_validator(mode="after")
    def _consistent(self) -> CascadeSettings:
        if len(set(self.tiers)) < len(self.tiers):
            raise ValueError("tiers names one twice; keep one")
        if "safeguard" in self.tiers[:-1]:
            raise ValueError("tiers: safeguard always ends a post's way; put it last")
        efforts = [rung.effort for rung in self.ladder]
        budgets = [rung.reasoning_tokens_max for rung in self.ladder]
        if efforts not in ([], ["medium"], ["high"], ["medium", "high"]):
            raise ValueError("ladder: each effort once, medium before high")
        if budgets != sorted(budgets):
            raise ValueError("ladder: a higher rung needs at least the budget of the one below")
        if self.uncertain_band[0] > self.uncertain_band[1]:
            raise ValueError("uncertain_band is upside down; write the lower end first")
        for unit in ("age_s", "lag_records"):
            levels = ("effort", "severe_only", "undetermined")
            names = [f"pressure_{level}_{unit}_max" for level in levels]
            limits = [(getattr(self, name), name) for name in names if getattr(self, name)]
            for (low, lower), (high, higher) in itertools.pairwise(limits):
                if low >= high:
                    raise ValueError(f"{higher} must be above {lower}")
        return self


class BatchingSettings(_Section):
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


class DeliverySettings(_Section):
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


class DeadLetterSettings(_Section):
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


class TelemetrySettings(_Section):
    """Logs and traces."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """``auto`` is console on a terminal, JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines shown."""
    otlp_endpoint: str | None = None
    """Where spans go, e.g. ``http://collector:4317``; none are kept where unset."""
    otlp_protocol: Literal["grpc", "http"] = "grpc"
    """OTLP's transport."""
    trace_ratio: float = Field(0.01, ge=0, le=1)
    """Share of records without a ``traceparent`` that are traced; with one, its flag decides."""
    service_name: str = "stream-guard"
    """The ``service.name`` of spans."""


class HttpSettings(_Section):
    """Probes and metrics over HTTP."""

    host: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside the pod
    """Address to listen on."""
    port: int = Field(8080, ge=0, le=65_535)
    """Port; 0 takes a free one and logs it."""


class Settings(BaseSettings):
    """All sections."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=_DELIMITER,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    post: PostSettings = PostSettings()
    policies: PoliciesSettings = PoliciesSettings()
    engine: EngineSettings = EngineSettings()
    cascade: CascadeSettings = CascadeSettings()
    batching: BatchingSettings = BatchingSettings()
    delivery: DeliverySettings = DeliverySettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    http: HttpSettings = HttpSettings()

    @property
    def stall_s(self) -> float:
        """``delivery.stall_timeout_s``, or its default."""
        delivery = self.delivery
        if delivery.stall_timeout_s is not None:
            return delivery.stall_timeout_s
        return self.engine.hang_s + delivery.publish_timeout_s + 60

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file over defaults; the file comes in as keyword arguments."""
        del dotenv_settings, file_secret_settings, settings_cls
        return env_settings, init_settings

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.kafka.rebalance_timeout_ms < (self.delivery.drain_timeout_s + 5) * 1_000:
            raise ValueError(
                "kafka.rebalance_timeout_ms must exceed delivery.drain_timeout_s by 5 s, which are "
                "kept for the flush and the last commit"
            )
        if self.stall_s <= max(self.engine.hang_s, self.delivery.publish_timeout_s):
            raise ValueError(
                "delivery.stall_timeout_s must exceed engine.hang_timeout_s and delivery.publish_timeout_s, which "
                "find and name the part that stands still"
            )
        return self


def load_settings(config: Path | None = None) -> Settings:
    """Read the settings from the environment and, under it, a TOML file.

    Raises:
        SettingsError: a name is unknown or a value malformed; names each, with an example.
    """
    table: dict[str, Any] = {}
    if config is not None:
        try:
            table = tomllib.loads(config.read_text("utf-8"))
        except OSError as error:
            message = f"--config {config}: {error.strerror or error}"
            raise SettingsError(message) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            message = f"--config {config}: not TOML: {error}"
            raise SettingsError(message) from error
    _refuse_unknown_environment()
    try:
        return Settings(**table)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    except PydanticSettingsError as error:
        cause = error.__cause__ or error
        message = (
            f"{error}: {cause}; lists and tables are JSON in the environment, for example "
            f"""{ENV_PREFIX}KAFKA__TOPICS='["posts"]'"""
        )
        raise SettingsError(message) from error


def env_name(*path: str) -> str:
    """Return the environment's name of a setting: ``("kafka", "topics")`` -> ``STREAM_GUARD_KAFKA__TOPICS``."""
    return ENV_PREFIX + _DELIMITER.join(part.upper() for part in path)


def _refuse_unknown_environment() -> None:
    # pydantic-settings only looks for names that it knows, so a misspelt section would be ignored.
    for name in os.environ:
        if not name.upper().startswith(ENV_PREFIX):
            continue
        section = name.upper().removeprefix(ENV_PREFIX).split(_DELIMITER, 1)[0].lower()
        if section not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            message = (
                f"{name}: there is no section {section!r} (known: {known}); "
                f"names look like {env_name('kafka', 'group_id')}"
            )
            raise SettingsError(message)


_EXAMPLES: Final[dict[str, str]] = {
    "kafka.topics": '["posts"]',
    "kafka.security": '{"protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "u", "password": "p"}',
    "engine.extra": '{"enable_chunked_prefill": true}',
    "cascade.ladder": '[{"effort": "medium", "reasoning_tokens_max": 1024}]',
    "cascade.tiers": '["duplicates", "safeguard"]',
    "cascade.uncertain_band": "[0.2, 0.8]",
    "policies.path": "/etc/stream-guard/policies",
    "post.text": "/message/body",
    "cascade.classifier": "builtin:toxicity",
}


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        path = tuple(str(part) for part in item["loc"])
        dotted = ".".join(path) or "settings"
        name = f"{dotted} ({env_name(*path)})" if path else dotted
        if item["type"] == "extra_forbidden":
            parent: Any = Settings
            for part in path[:-1]:
                parent = parent.model_fields[part].annotation
            known = ", ".join(parent.model_fields)
            lines.append(f"{name}: there is no such setting; known here: {known}")
            continue
        what = item["msg"].removeprefix("Value error, ")
        example = next(
            (f"; for example {v}" for k, v in _EXAMPLES.items() if dotted.startswith(k)), None
        )
        lines.append(f"{name}: {what}{example or _default_example(path)}")
    return "\n".join(lines)


def _default_example(path: tuple[str, ...]) -> str:
    field: Any = None
    fields: Any = Settings.model_fields
    for part in path:
        field = fields.get(part)
        if field is None:
            return ""
        fields = getattr(field.annotation, "model_fields", {})
    if field is None or isinstance(field.default, BaseModel) or field.default in (None, "", ()):
        return ""
    return f"; for example {field.default}"


__all__ = [
    "BatchingSettings",
    "CascadeSettings",
    "DeadLetterSettings",
    "DeliverySettings",
    "EngineSettings",
    "HttpSettings",
    "KafkaSettings",
    "PoliciesSettings",
    "PostSettings",
    "RungSettings",
    "SecuritySettings",
    "Settings",
    "TelemetrySettings",
    "env_name",
    "load_settings",
]
