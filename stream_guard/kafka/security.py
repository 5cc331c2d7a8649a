"""What every Kafka client of ours is told about how to connect. Secrets leave their wrappers only here."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import ssl
from typing import TYPE_CHECKING, Any, Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from aiokafka.helpers import create_ssl_context

from stream_guard.core.errors import BrokerError, ForeignCallError, SettingsError, named
from stream_guard.core.foreign_calls import call_with_deadline
from stream_guard.kafka.credentials import (
    RotatingContext,
    SecretFile,
    TokenFile,
    ask_passwords,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_guard.settings import KafkaSettings, SecuritySettings


_HOOK: Final = "kafka.security.oauth_token_hook"


class TokenError(BrokerError, KafkaConnectionError):  # type: ignore[misc] # aiokafka ships no types
    """The operator's function gave no token. To aiokafka it is a failed connection, which it tries again."""

    def __str__(self) -> str:
        return str(self.args[0])


class HookTokenProvider(AbstractTokenProvider):  # type: ignore[misc] # aiokafka ships no types
    """Asks the operator's function for a token, in a thread where it is not async, and with a deadline.

    Args:
        hook: the function.
        timeout_s: the deadline, in s.
    """

    def __init__(self, hook: Callable[[], Any], timeout_s: float) -> None:
        self._hook = hook
        self._timeout_s = timeout_s

    async def token(self) -> str:
        """Return a token for SASL OAUTHBEARER.

        Raises:
            TokenError: the function failed, or it did not return in time. Its error is named by its type alone, since
                the text may hold a secret.
        """
        try:
            if inspect.iscoroutinefunction(self._hook):
                async with asyncio.timeout(self._timeout_s):
                    return str(await self._hook())
            return str(await call_with_deadline(_HOOK, self._timeout_s, self._hook))
        except ForeignCallError as error:
            raise TokenError(str(error)) from None
        except TimeoutError:
            message = f"{_HOOK}: no token within {self._timeout_s:g} s; find out what it waits for"
            raise TokenError(message) from None
        except Exception as error:
            message = (
                f"{_HOOK}: the function raised {type(error).__name__}; call it by hand, and see why"
            )
            raise TokenError(message) from error


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the options that consumers, producers and admin clients share.

    Raises:
        SettingsError: a certificate cannot be read, or the token hook cannot be imported.
    """
    security = settings.security
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "retry_backoff_ms": settings.retry_backoff_ms,
        "metadata_max_age_ms": settings.metadata_max_age_ms,
        "security_protocol": security.protocol,
    }
    if security.protocol in ("SSL", "SASL_SSL"):
        options["ssl_context"] = _rotating_context(security)
    if security.sasl_mechanism is not None:
        options["sasl_mechanism"] = security.sasl_mechanism
        if security.sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = _token_provider(
                security, settings.request_timeout_ms / 1_000
            )
        else:
            options["sasl_plain_username"] = security.username
            options["sasl_plain_password"] = _password(security)
    return options


def client_identity(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those connection options by which one single connection proves who we are."""
    return {
        name: value
        for name, value in options.items()
        if name.startswith(("sasl_", "ssl_")) or name in {"security_protocol", "client_id"}
    }


def _token_provider(security: SecuritySettings, timeout_s: float) -> AbstractTokenProvider:
    if security.oauth_token_file is not None:
        file = SecretFile(security.oauth_token_file, "kafka.security.oauth_token_file")
        return TokenFile(file)
    assert security.oauth_token_hook is not None, "checked by the settings"
    return HookTokenProvider(_import_hook(security.oauth_token_hook), timeout_s)


def _password(security: SecuritySettings) -> str | SecretFile:
    if security.password_file is not None:
        ask_passwords()
        return SecretFile(security.password_file, "kafka.security.password_file")
    assert security.password is not None, "checked by the settings"
    return security.password.get_secret_value()


def _rotating_context(security: SecuritySettings) -> ssl.SSLContext:
    files = (
        security.ssl_cafile,
        security.ssl_certfile,
        security.ssl_keyfile,
        security.ssl_key_password_file,
    )
    named_files = [file for file in files if file is not None]
    if not named_files:
        return _ssl_context(security)
    return RotatingContext(lambda: _ssl_context(security), named_files)


def _key_password(security: SecuritySettings) -> str | None:
    if security.ssl_key_password_file is not None:
        setting = "kafka.security.ssl_key_password_file"
        return SecretFile(security.ssl_key_password_file, setting).read()
    return (
        None if security.ssl_key_password is None else security.ssl_key_password.get_secret_value()
    )


def _ssl_context(security: SecuritySettings) -> ssl.SSLContext:
    password = _key_password(security)
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=None if security.ssl_cafile is None else str(security.ssl_cafile),
            certfile=None if security.ssl_certfile is None else str(security.ssl_certfile),
            keyfile=None if security.ssl_keyfile is None else str(security.ssl_keyfile),
            # Without a password OpenSSL would ask at the terminal.
            password=_refuse_prompt if password is None else password,
        )
    except (OSError, ssl.SSLError, ValueError) as error:
        raise SettingsError(_unreadable(security, error)) from error
    context.check_hostname = security.ssl_check_hostname
    return context


def _refuse_prompt() -> str:
    raise SettingsError(
        "kafka.security.ssl_keyfile: the key is encrypted; set kafka.security.ssl_key_password "
        "(STREAM_GUARD_KAFKA__SECURITY__SSL_KEY_PASSWORD)"
    )


def _unreadable(security: SecuritySettings, error: Exception) -> str:
    """Return which file cannot be used, and why."""
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(security, name)
        if path is None:
            continue
        try:
            content = path.read_bytes()
        except OSError as fault:
            return f"kafka.security.{name}: {path}: {fault.strerror}; name a PEM file that this user may read"
        if b"-----BEGIN " not in content:
            return f"kafka.security.{name}: {path} is not a PEM file; convert it with openssl"
    reason = (getattr(error, "reason", None) or "").upper()
    if "KEY_VALUES_MISMATCH" in reason:
        return (
            f"kafka.security: {security.ssl_keyfile} is not the key of the certificate {security.ssl_certfile}; name "
            "the files of one pair"
        )
    if security.ssl_key_password is not None or security.ssl_key_password_file is not None:
        return f"kafka.security.ssl_key_password does not open {security.ssl_keyfile}, or the key is damaged"
    return f"kafka.security: the certificate, key or CA is damaged ({reason.lower() or named(error)}); replace it"


def _import_hook(name: str) -> Callable[[], Any]:
    module_name, _, attribute = name.partition(":")
    try:
        hook = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        message = f"kafka.security.oauth_token_hook: {name!r} cannot be imported: {error}; e.g. my_auth:token"
        raise SettingsError(message) from error
    if not callable(hook):
        message = f"kafka.security.oauth_token_hook: {name!r} is not a function"
        raise SettingsError(message)
    return hook  # type: ignore[no-any-return] # checked to be callable
