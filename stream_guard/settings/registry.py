"""Settings of the schema registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, field_validator, model_validator

from stream_guard.settings.section import Section

_URL: Final = re.compile(r"https?://[^\s/@?#]+(?:/[^\s@?#]*)?")


class RegistrySettings(Section):
    """The schema registry that holds the schemas of records in Confluent's wire format."""

    url: str | None = None
    """The registry's URL. Several, separated by commas, are tried in turn. Unset: records have no schema ids."""
    username: str | None = None
    """The user, for basic authentication; of Confluent Cloud, the API key."""
    password: SecretStr | None = None
    """The user's password."""
    password_file: Path | None = None
    """A file with the password instead. It is read for each request, so it may change."""
    bearer_token: SecretStr | None = None
    """A token, for bearer authentication."""
    bearer_token_file: Path | None = None
    """A file with the token instead. It is read for each request, so it may change."""
    ssl_cafile: Path | None = None
    """CA certificates (PEM) to trust; the system's if unset."""
    ssl_certfile: Path | None = None
    """The client certificate (PEM), for mutual TLS."""
    ssl_keyfile: Path | None = None
    """The client's private key (PEM), for mutual TLS."""
    ssl_key_password: SecretStr | None = None
    """Password of the private key."""
    timeout_s: float = Field(5.0, gt=0)
    """Timeout of one request."""
    schemas_max: int = Field(1_000, ge=1)
    """Most schemas in memory; the oldest is fetched again when it is needed."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        for url in value.split(","):
            if _URL.fullmatch(url.strip()) is None:
                raise ValueError(
                    "not a URL such as https://registry:8081 (credentials belong into registry.username and "
                    "registry.password)"
                )
        return value

    @model_validator(mode="after")
    def _complete(self) -> RegistrySettings:
        for name in ("password", "bearer_token"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                raise ValueError(f"{name} and {name}_file exclude each other; set one")
        password = self.password is not None or self.password_file is not None
        if (self.username is not None) != password:
            raise ValueError("username and password (or password_file) must be set together")
        if password and (self.bearer_token is not None or self.bearer_token_file is not None):
            raise ValueError("username and bearer_token exclude each other; set one")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile must be set together")
        return self

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs, without a slash at the end."""
        return tuple(url.strip().rstrip("/") for url in (self.url or "").split(",") if url.strip())
