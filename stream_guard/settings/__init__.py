"""Every setting, one class per section, units in the names.

A value comes from the environment (``STREAM_GUARD_<SECTION>__<NAME>``; lists and tables as JSON), otherwise from the
file of ``--config`` (TOML), otherwise from the default here. So a deployment can override the file of an image.

May import: ``core``.

Unknown names are errors, and no message shows a secret.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path  # noqa: TC003 - part of a public signature
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as PydanticSettingsError

from stream_guard.core.errors import SettingsError
from stream_guard.settings.judging import CascadeSettings, EngineSettings, RungSettings
from stream_guard.settings.kafka import KafkaSettings, SecuritySettings
from stream_guard.settings.posts import REGISTRY_FORMATS, PoliciesSettings, PostSettings
from stream_guard.settings.registry import RegistrySettings
from stream_guard.settings.section import DELIMITER, ENV_PREFIX
from stream_guard.settings.service import (
    BatchingSettings,
    DeadLetterSettings,
    DeliverySettings,
    HttpSettings,
    TelemetrySettings,
)
from stream_guard.settings.studio import StudioSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    "RegistrySettings",
    "RungSettings",
    "SecuritySettings",
    "Settings",
    "StudioSettings",
    "TelemetrySettings",
    "env_name",
    "load_settings",
]


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
    engine: EngineSettings = EngineSettings()
    cascade: CascadeSettings = CascadeSettings()
    batching: BatchingSettings = BatchingSettings()
    delivery: DeliverySettings = DeliverySettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    http: HttpSettings = HttpSettings()
    studio: StudioSettings = StudioSettings()

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
        """Return the sources, first wins: the environment, then the file (as keyword arguments), then defaults."""
        del dotenv_settings, file_secret_settings, settings_cls
        return env_settings, init_settings

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        forms = {self.post.format, *(self.post.of_topic(each).format for each in self.post.topics)}
        needing = sorted(forms.intersection(REGISTRY_FORMATS))
        if needing and self.registry.url is None:
            raise ValueError(
                f"registry.url ({env_name('registry', 'url')}) is required with post.format {needing[0]}: the "
                "registry has the schemas of the records"
            )
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
        return self


def load_settings(config: Path | None = None) -> Settings:
    """Read the settings from the environment and, under it, a TOML file.

    Raises:
        SettingsError: a name is unknown or a value malformed; the message names each, with an example.
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
    return ENV_PREFIX + DELIMITER.join(part.upper() for part in path)


def _refuse_unknown_environment() -> None:
    # pydantic-settings reads only the names that it knows, so a misspelt section would be ignored.
    for name in os.environ:
        if not name.upper().startswith(ENV_PREFIX):
            continue
        section = name.upper().removeprefix(ENV_PREFIX).split(DELIMITER, 1)[0].lower()
        if section not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            message = (
                f"{name}: unknown section {section!r} (known: {known}); "
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
    "registry.url": "https://registry:8081",
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
            known = ", ".join(_table_at(path[:-1]).model_fields)
            lines.append(f"{name}: unknown setting; known here: {known}")
            continue
        what = item["msg"].removeprefix("Value error, ")
        example = next(
            (f"; for example {v}" for k, v in _EXAMPLES.items() if dotted.startswith(k)), None
        )
        lines.append(f"{name}: {what}{example or _default_example(path)}")
    return "\n".join(lines)


def _table_at(path: Sequence[str]) -> type[BaseModel]:
    """Return the class of the section at a path; a name or an index in a table or a list is a step, too."""
    kind: Any = Settings
    for part in path:
        if hasattr(kind, "model_fields"):
            kind = kind.model_fields[part].annotation
        else:  # dict[str, Section] or tuple[Section, ...]
            kind = next(one for one in get_args(kind) if one not in (str, ...))
    found: type[BaseModel] = kind
    return found


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
