"""Kafka, as the program meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from stream_guard.settings.section import Section


class SecuritySettings(Section):
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


class KafkaSettings(Section):
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
    reasoning_topic: str | None = Field(None, min_length=1)
    """Where the model's chain of thought goes, for a few to read: raw, and it quotes posts. Off where unset."""
    archive_topic: str = Field("stream-guard.policies", min_length=1)
    """Where versions of policies are kept with ``policies.archive = "topic"``; compacted, and made where missing."""
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
        for name in self.own_topics:
            if name in self.topics:
                raise ValueError(f"{name!r} is read and written: verdicts would be judged again")
        if self.shadow_topic in (self.verdict_topic, self.dead_letter_topic):
            raise ValueError(
                "shadow_topic must be a topic of its own: what stands there is never acted on"
            )
        others = (self.verdict_topic, self.dead_letter_topic, self.shadow_topic)
        if self.reasoning_topic in others and self.reasoning_topic is not None:
            raise ValueError(
                "reasoning_topic must be a topic of its own, with access for fewer people"
            )
        if self.archive_topic in self.written_topics:
            raise ValueError("archive_topic must be a topic of its own: it is compacted")
        return self

    @property
    def written_topics(self) -> tuple[str, ...]:
        """The topics that we write."""
        extra = (one for one in (self.shadow_topic, self.reasoning_topic) if one is not None)
        return (self.verdict_topic, self.dead_letter_topic, *extra)

    @property
    def own_topics(self) -> tuple[str, ...]:
        """The topics whose records are ours, which are never read as posts."""
        return (*self.written_topics, self.archive_topic)
