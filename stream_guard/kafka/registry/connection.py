"""Credentials and TLS for the registry, from the settings. Errors name the setting and never the secret."""

from __future__ import annotations

import base64
import ssl
from typing import TYPE_CHECKING

from stream_guard.core.errors import SettingsError, named

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr

    from stream_guard.settings import RegistrySettings

__all__ = ["authorization", "ssl_context"]


def authorization(settings: RegistrySettings) -> dict[str, str]:
    """Return the header that proves who we are; empty without credentials. Files are read each time.

    Raises:
        SettingsError: a file cannot be read.
    """
    token = _secret(settings.bearer_token, settings.bearer_token_file, "bearer_token_file")
    if token is not None:
        return {"Authorization": f"Bearer {token}"}
    password = _secret(settings.password, settings.password_file, "password_file")
    if settings.username is None or password is None:
        return {}
    encoded = base64.b64encode(f"{settings.username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def _secret(value: SecretStr | None, file: Path | None, name: str) -> str | None:
    if file is None:
        return None if value is None else value.get_secret_value()
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        message = f"registry.{name}: {file}: {reason}; name a file that this user may read"
        raise SettingsError(message) from None


def ssl_context(settings: RegistrySettings) -> ssl.SSLContext:
    """Return the context of TLS.

    Raises:
        SettingsError: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
        if settings.ssl_certfile is not None:
            password = settings.ssl_key_password
            context.load_cert_chain(
                settings.ssl_certfile,
                settings.ssl_keyfile,
                # Without a password OpenSSL would ask at the terminal.
                _refuse_prompt if password is None else password.get_secret_value(),
            )
    except (OSError, ValueError) as error:
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            path = getattr(settings, name)
            if path is not None and not path.is_file():
                message = f"registry.{name}: {path} does not exist; name a PEM file"
                raise SettingsError(message) from None
        reason = getattr(error, "reason", None) or named(error)
        message = (
            f"registry.ssl_cafile, ssl_certfile or ssl_keyfile cannot be used: {reason}; name PEM files, a key that "
            "belongs to the certificate, and its password"
        )
        raise SettingsError(message) from None
    return context


def _refuse_prompt() -> str:
    raise SettingsError(
        "registry.ssl_keyfile: the key is encrypted; set registry.ssl_key_password "
        "(STREAM_GUARD_REGISTRY__SSL_KEY_PASSWORD)"
    )
