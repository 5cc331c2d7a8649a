"""Every setting, one class per section, units in the names.

A value comes from the environment (``STREAM_GUARD_<SECTION>__<NAME>``; lists and tables as JSON), otherwise from the
file of ``--config`` (TOML), otherwise from the default here. So a deployment can override the file of an image.

May import: ``core``.

Unknown names are errors, and no message shows a secret.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path  # noqa: TC003 - part of a public signature
from typing import NamedTuple

from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as PydanticSettingsError

from stream_guard.core.errors import SettingsError
from stream_guard.settings.actions import ActionLimit, ActionsSettings
from stream_guard.settings.console import ConsoleSettings, OidcSettings
from stream_guard.settings.decisions import DecisionsSettings
from stream_guard.settings.faults import (
    ConfigFile,
    env_name,
    explain,
    explain_malformed_json,
    explain_unknown_variable,
)
from stream_guard.settings.judging import CascadeSettings, EngineSettings, RungSettings
from stream_guard.settings.kafka import KafkaSettings, SecuritySettings
from stream_guard.settings.lanes import LanesSettings
from stream_guard.settings.output import OutputSettings
from stream_guard.settings.posts import REGISTRY_FORMATS, PoliciesSettings, PostSettings
from stream_guard.settings.registry import RegistrySettings
from stream_guard.settings.review import ReviewSettings
from stream_guard.settings.section import DELIMITER, ENV_PREFIX
from stream_guard.settings.service import (
    BatchingSettings,
    DeadLetterSettings,
    DeliverySettings,
    HttpSettings,
    TelemetrySettings,
)
from stream_guard.settings.studio import StudioSettings
from stream_guard.settings.threads import ThreadSettings

__all__ = [
    "ActionLimit",
    "ActionsSettings",
    "BatchingSettings",
    "CascadeSettings",
    "ConsoleSettings",
    "DeadLetterSettings",
    "DecisionsSettings",
    "DeliverySettings",
    "EngineSettings",
    "HttpSettings",
    "KafkaSettings",
    "LanesSettings",
    "OidcSettings",
    "OutputSettings",
    "PoliciesSettings",
    "PostSettings",
    "RegistrySettings",
    "ReviewSettings",
    "RungSettings",
    "SecuritySettings",
    "Settings",
    "SideTopics",
    "StudioSettings",
    "TelemetrySettings",
    "ThreadSettings",
    "env_name",
    "load_settings",
]


class SideTopics(NamedTuple):
    """Topics of Stream Guard's own that another section than ``kafka`` names: they must exist.

    Attributes:
        read: besides the topics of posts.
        written: besides the topics of verdicts and what goes with them.
    """

    read: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Each topic once."""
        return tuple(dict.fromkeys((*self.read, *self.written)))


class Settings(BaseSettings):
    """All sections."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    post: PostSettings = PostSettings()
    policies: PoliciesSettings = PoliciesSettings()
    registry: RegistrySettings = RegistrySettings()
    output: OutputSettings = OutputSettings()
    engine: EngineSettings = EngineSettings()
    cascade: CascadeSettings = CascadeSettings()
    actions: ActionsSettings = ActionsSettings()
    batching: BatchingSettings = BatchingSettings()
    lanes: LanesSettings = LanesSettings()
    delivery: DeliverySettings = DeliverySettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    decisions: DecisionsSettings = DecisionsSettings()
    review: ReviewSettings = ReviewSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    http: HttpSettings = HttpSettings()
    studio: StudioSettings = StudioSettings()
    console: ConsoleSettings = ConsoleSettings()

    @property
    def stall_s(self) -> float:
        """``delivery.stall_timeout_s``, or its default."""
        delivery = self.delivery
        if delivery.stall_timeout_s is not None:
            return delivery.stall_timeout_s
        return self.engine.hang_s + delivery.publish_timeout_s + 60

    @property
    def deployment(self) -> str:
        """``cascade.deployment``, or its default."""
        return self.cascade.deployment or self.kafka.group_id

    @property
    def side_topics(self) -> SideTopics:
        """The topics that are read or written besides those of ``kafka``: of escalations."""
        cascade = self.cascade
        late = cascade.escalation_topic if cascade.escalation_deadline_s is not None else None
        return SideTopics(
            read=tuple(one for one in (cascade.escalated_topic, late) if one is not None),
            written=() if cascade.escalation_topic is None else (cascade.escalation_topic,),
        )

    @property
    def delay_s(self) -> float:
        """``lanes.delay_s_max``, or less: a post that waits on purpose must not look like a stall."""
        return min(self.lanes.delay_s_max, self.stall_s / 2, self.delivery.record_age_s_max / 2)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, first wins: the environment, then the file (as keyword arguments), then defaults."""
        del dotenv_settings, file_secret_settings, settings_cls
        return env_settings, init_settings

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        forms = {self.post.format, *(self.post.of_topic(each).format for each in self.post.topics)}
        needing = sorted(forms.intersection(REGISTRY_FORMATS))
        if needing and self.registry.url is None:
            raise ValueError(
                f"registry.url is required with post.format {needing[0]}: the registry has the schemas of the records"
            )
        if self.output.format == "avro":
            self._check_avro()
        if self.kafka.rebalance_timeout_ms < (self.delivery.drain_timeout_s + 5) * 1_000:
            raise ValueError(
                "kafka.rebalance_timeout_ms must exceed delivery.drain_timeout_s by 5 s: "
                "the flush and the last commit need them"
            )
        if self.stall_s <= max(self.engine.hang_s, self.delivery.publish_timeout_s):
            raise ValueError(
                "delivery.stall_timeout_s must exceed engine.hang_timeout_s and delivery.publish_timeout_s, "
                "so that these two can name the part that stopped"
            )
        self._check_side_topics()
        return self

    def _check_side_topics(self) -> None:
        kafka, cascade = self.kafka, self.cascade
        for name in ("escalation_topic", "escalated_topic"):
            topic = getattr(cascade, name)
            if topic is not None and topic in (*kafka.topics, *kafka.own_topics):
                raise ValueError(
                    f"cascade.{name}: {topic!r} is also a topic of section kafka; escalations need a topic of their own"
                )
        if cascade.escalation_group == kafka.group_id:
            raise ValueError(
                "cascade.escalation_group must be the group of the other deployment, not kafka.group_id of this one"
            )

    def _check_avro(self) -> None:
        if self.registry.url is None:
            raise ValueError(
                "registry.url is required with output.format avro: the registry keeps the schemas of verdicts and "
                "dead letters"
            )
        if self.kafka.cloudevents_mode != "binary":
            raise ValueError(
                "output.format avro needs kafka.cloudevents_mode binary: a structured CloudEvent is JSON"
            )


def load_settings(config: Path | None = None) -> Settings:
    """Read the settings from the environment and, under it, a TOML file.

    Raises:
        SettingsError: a name is unknown or a value malformed. The message names the variable or the file and line of
            each, with an example or the name that was probably meant.
    """
    file = ConfigFile() if config is None else _read(config)
    _refuse_unknown_environment()
    try:
        return Settings(**file.table)
    except ValidationError as error:
        raise SettingsError(explain(error, Settings, file)) from error
    except PydanticSettingsError as error:
        raise SettingsError(explain_malformed_json(Settings, str(error))) from error


def _read(config: Path) -> ConfigFile:
    try:
        # Some editors begin a file with a byte order mark.
        text = config.read_text("utf-8-sig")
        return ConfigFile(config, text, tomllib.loads(text))
    except OSError as error:
        message = f"--config {config}: {error.strerror or error}"
        raise SettingsError(message) from error
    except UnicodeDecodeError as error:
        message = (
            f"--config {config}: not TOML: not UTF-8 at byte {error.start}; save the file as UTF-8"
        )
        raise SettingsError(message) from error
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        at, what = (f":{place[1]}", str(error)[: place.start()]) if place else ("", str(error))
        column = f" at column {place[2]}" if place else ""
        message = (
            f"--config {config}{at}: not TOML: {what}{column}; write name = value under [section], "
            'texts as "text", lists as ["a", "b"]'
        )
        raise SettingsError(message) from error


def _refuse_unknown_environment() -> None:
    # pydantic-settings reads only the names that it knows, so a misspelt section would be ignored.
    for name in os.environ:
        if not name.upper().startswith(ENV_PREFIX):
            continue
        section = name.upper().removeprefix(ENV_PREFIX).split(DELIMITER, 1)[0].lower()
        if section not in Settings.model_fields:
            raise SettingsError(explain_unknown_variable(name, Settings))
