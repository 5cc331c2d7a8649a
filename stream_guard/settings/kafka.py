"""Settings of the connection to Kafka and of the topics."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from stream_guard.settings.section import Section


class SecuritySettings(Section):
    """Encryption and authentication."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Kafka's ``security.protocol``."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """The SASL mechanism; required with a SASL protocol."""
    username: str | None = None
    """The user, for PLAIN and SCRAM."""
    password: SecretStr | None = None
    """The user's password, for PLAIN and SCRAM."""
    password_file: Path | None = None
    """A file with the password, instead of ``password``; read again for each connection, so it may rotate."""
    oauth_token_hook: str | None = None
    """For OAUTHBEARER: ``package.module:function``, async or not, that returns a token."""
    oauth_token_file: Path | None = None
    """For OAUTHBEARER: a file with the token, instead of ``oauth_token_hook``; read again for each connection."""
    ssl_cafile: Path | None = None
    """CA certificates (PEM) to trust; the system's if unset. All three files are read again when they change."""
    ssl_certfile: Path | None = None
    """The client certificate (PEM), for mutual TLS."""
    ssl_keyfile: Path | None = None
    """The client's private key (PEM), for mutual TLS."""
    ssl_key_password: SecretStr | None = None
    """Password of the private key."""
    ssl_key_password_file: Path | None = None
    """A file with the private key's password, instead of ``ssl_key_password``."""
    ssl_check_hostname: bool = True
    """Whether the broker's certificate must name the broker's host."""

    @model_validator(mode="after")
    def _complete(self) -> SecuritySettings:
        sasl = self.protocol.startswith("SASL")
        if sasl and self.sasl_mechanism is None:
            raise ValueError("sasl_mechanism is required with a SASL protocol, e.g. SCRAM-SHA-512")
        if not sasl and self.sasl_mechanism is not None:
            raise ValueError("sasl_mechanism needs protocol SASL_SSL (or SASL_PLAINTEXT)")
        self._check_sasl()
        if self.ssl_key_password is not None and self.ssl_key_password_file is not None:
            raise ValueError(
                "ssl_key_password and ssl_key_password_file exclude each other; set one"
            )
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile must be set together")
        return self

    def _check_sasl(self) -> None:
        if self.sasl_mechanism == "OAUTHBEARER":
            if (self.oauth_token_hook is None) == (self.oauth_token_file is None):
                raise ValueError(
                    "oauth_token_hook (e.g. my_auth:token) or oauth_token_file is required with OAUTHBEARER; set one"
                )
            if self.oauth_token_hook is not None and ":" not in self.oauth_token_hook:
                raise ValueError(
                    "oauth_token_hook must be package.module:function, e.g. my_auth:token"
                )
        elif self.sasl_mechanism is not None:
            if self.username is None or (self.password is None and self.password_file is None):
                raise ValueError(
                    f"username and password are required with {self.sasl_mechanism}; password_file may replace password"
                )
            if self.password is not None and self.password_file is not None:
                raise ValueError("password and password_file exclude each other; set one")


class KafkaSettings(Section):
    """The brokers, the topics and the consumer group."""

    bootstrap_servers: str = Field("localhost:9092", min_length=1)
    """The first brokers to connect to, as ``host:port[,host:port...]``."""
    topics: tuple[str, ...] = ()
    """The topics to read. Set either this or ``topic_pattern``."""
    topic_pattern: str | None = None
    """A regular expression for the topics to read; it must match the start of the name."""
    group_id: str = Field("stream-guard", min_length=1)
    """The consumer group."""
    group_instance_id: str | None = None
    """Static membership: a name for this replica that stays the same after a restart. Each replica needs its own."""
    verdict_topic: str = Field("stream-guard.verdicts", min_length=1)
    """The topic for verdicts."""
    dead_letter_topic: str = Field("stream-guard.dead-letters", min_length=1)
    """The topic for records that cannot be judged."""
    shadow_topic: str | None = Field(None, min_length=1)
    """The topic for verdicts of shadow policies, which no one acts on; required if ``routes.yaml`` has shadows."""
    reasoning_topic: str | None = Field(None, min_length=1)
    """The topic for the model's raw chain of thought. It quotes posts: limit who may read it. Unset: not published."""
    review_topic: str | None = Field(None, min_length=1)
    """The topic for verdicts that people should review, such as ``stream-guard.review``; see ``review``. Unset: not
    published."""
    audit_topic: str | None = Field(None, min_length=1)
    """The topic for the audit trail of ``review serve``, ``review show`` and ``review decide``, such as
    ``stream-guard.review-audit``: who asked for what. No request is then answered before its entry is written. Unset:
    the trail is in the database alone."""
    archive_topic: str = Field("stream-guard.policies", min_length=1)
    """The topic for versions of policies, with ``policies.archive = "topic"``; compacted, and created if missing."""
    decision_topic: str = Field("stream-guard.decisions", min_length=1)
    """The topic of people's decisions, with ``decisions.enabled``; compacted, and created if missing."""
    breaker_topic: str = Field("stream-guard.breaker", min_length=1)
    """The topic on which replicas count actions, if ``actions.limits`` or a policy sets limits; compacted, with one
    partition, and created if missing."""
    client_id: str = "stream-guard"
    """The client's name in brokers' logs and quotas."""
    security: SecuritySettings = SecuritySettings()
    """Encryption and authentication."""
    session_timeout_ms: int = Field(45_000, ge=1_000)
    """The group removes a member that sends no heartbeat for this long."""
    heartbeat_interval_ms: int = Field(3_000, ge=100)
    """How often the member sends a heartbeat."""
    rebalance_timeout_ms: int = Field(90_000, ge=1_000)
    """How long the group waits for this member in a rebalance; must exceed ``delivery.drain_timeout_s`` by 5 s."""
    max_poll_interval_ms: int = Field(300_000, ge=1_000)
    """A member that does not poll for this long leaves the group."""
    request_timeout_ms: int = Field(30_000, ge=1_000)
    """Timeout of one request to a broker, and of a produced batch with its retries."""
    retry_backoff_ms: int = Field(100, ge=1)
    """Pause between two attempts of a request."""
    metadata_max_age_ms: int = Field(30_000, ge=1_000)
    """How often metadata is refreshed; new topics and partitions are found then."""
    fetch_max_wait_ms: int = Field(100, ge=1)
    """How long a broker waits for ``fetch_min_bytes`` before it answers a fetch."""
    fetch_min_bytes: int = Field(1, ge=1)
    """A broker answers a fetch as soon as it has this many bytes."""
    fetch_max_bytes: int = Field(16 << 20, ge=1_024)
    """Most bytes of one fetch from a broker."""
    max_partition_fetch_bytes: int = Field(2 << 20, ge=1_024)
    """Most bytes of one fetch per partition; a larger single record is still fetched."""
    isolation_level: Literal["read_uncommitted", "read_committed"] = "read_committed"
    """``read_uncommitted`` also reads records of open and aborted transactions."""
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    """Compression of the records that Stream Guard produces."""
    linger_ms: int = Field(5, ge=0)
    """How long a batch of verdicts waits for more records."""
    batch_bytes_max: int = Field(900_000, ge=16_384)
    """Most bytes of one batch of verdicts, before compression; keep it below the topic's limit."""
    cloudevents_mode: Literal["binary", "structured"] = "binary"
    """How verdicts are CloudEvents: ``binary`` has the attributes in headers, ``structured`` in the JSON value."""
    dead_letter_bytes_max: int = Field(900_000, ge=1_024)
    """Most bytes of a dead letter's value. A larger value is cut, and headers name the original size and record."""
    dead_letter_headers: tuple[Literal["connect", "streams"], ...] = ()
    """Further headers of dead letters, for tools that know them: Kafka Connect's ``__connect.errors.*``, Kafka Streams'
    ``__streams.errors.*``. The ``sg_*`` headers stay."""
    client_rack: str | None = None
    """The rack or zone of this process: it then reads from a replica in the same rack (KIP-392), if the brokers have
    ``broker.rack`` and ``replica.selector.class`` set. Unset: from leaders."""

    @model_validator(mode="after")
    def _consistent(self) -> KafkaSettings:
        if self.topics and self.topic_pattern:
            raise ValueError("topics and topic_pattern exclude each other; set one")
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError("heartbeat_interval_ms must be at most a third of session_timeout_ms")
        for name in self.own_topics:
            if name in self.topics:
                raise ValueError(
                    f"{name!r} is both read and written, so verdicts would be judged again; use two topics"
                )
        self._check_own_topics()
        return self

    def _check_own_topics(self) -> None:
        if self.verdict_topic == self.dead_letter_topic:
            raise ValueError(
                "dead_letter_topic must be a separate topic, because readers of verdicts cannot read dead letters"
            )
        if self.shadow_topic in (self.verdict_topic, self.dead_letter_topic):
            raise ValueError(
                "shadow_topic must be a separate topic, because no one acts on its verdicts"
            )
        others = (self.verdict_topic, self.dead_letter_topic, self.shadow_topic)
        if self.reasoning_topic in others and self.reasoning_topic is not None:
            raise ValueError(
                "reasoning_topic must be a separate topic, so that fewer people can read it"
            )
        if self.review_topic is not None and self.review_topic in (*others, self.reasoning_topic):
            raise ValueError(
                "review_topic must be a separate topic, because it has records of its own"
            )
        if self.audit_topic in self.written_topics:
            raise ValueError(
                "audit_topic must be a separate topic, so that fewer programs can write to it"
            )
        taken = {*self.written_topics, self.audit_topic}
        for name in ("archive_topic", "decision_topic", "breaker_topic"):
            topic = getattr(self, name)
            if topic in taken:
                raise ValueError(f"{name} must be a separate topic, because it is compacted")
            taken.add(topic)

    @property
    def written_topics(self) -> tuple[str, ...]:
        """The topics for verdicts, dead letters, reasoning and review items."""
        optional = (self.shadow_topic, self.reasoning_topic, self.review_topic)
        extra = (one for one in optional if one is not None)
        return (self.verdict_topic, self.dead_letter_topic, *extra)

    @property
    def own_topics(self) -> tuple[str, ...]:
        """All topics of Stream Guard's own; it never reads them as posts."""
        audit = () if self.audit_topic is None else (self.audit_topic,)
        return (
            *self.written_topics,
            *audit,
            self.archive_topic,
            self.decision_topic,
            self.breaker_topic,
        )
