"""Who may sign in by a token: people of a file, or the person who sees this machine's terminal."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING

from stream_guard.console.security.origin import is_loopback
from stream_guard.console.security.roles import ROLE_NAMES, Role
from stream_guard.core.errors import SettingsError
from stream_guard.offline.review.tokens import Person, Tokens
from stream_guard.settings import env_name
from stream_guard.settings.console import is_safe_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.settings import ConsoleSettings

    OwnerOf = Callable[[str], Person | None]

__all__ = ["local_token", "takes_tokens", "tokens_of"]


def takes_tokens(settings: ConsoleSettings) -> bool:
    """Return whether anybody can sign in by a token: there is a file, or the command prints one."""
    return settings.tokens_file is not None or is_loopback(settings.host)


def tokens_of(settings: ConsoleSettings) -> OwnerOf | None:
    """Return a function that finds the owner of a token; None where this machine alone may sign in.

    Raises:
        SettingsError: the file is wrong; or there is none, and others than this machine could reach the console; or an
            issuer would send people back without TLS.
    """
    _require_safe_way_back(settings)
    if settings.tokens_file is not None:
        return Tokens(settings.tokens_file, ROLE_NAMES, "console.tokens_file").owner
    if takes_tokens(settings):
        return None
    if settings.oidc.issuer is None:
        name = env_name("console", "tokens_file")
        message = (
            f"console.host is {settings.host}, which others can reach, and console.tokens_file ({name}) is not set; "
            "name a file with ROLE PSEUDONYM TOKEN lines, set console.oidc, or leave console.host at 127.0.0.1"
        )
        raise SettingsError(message)
    return _nobody


def _require_safe_way_back(settings: ConsoleSettings) -> None:
    """Refuse an issuer whose codes, and the cookies after them, would cross a network as plain text."""
    if settings.oidc.issuer is None or settings.oidc.redirect_url is not None:
        return
    url = settings.public_url
    if is_loopback(settings.host) if url is None else is_safe_address(url):
        return
    name = env_name("console", "public_url")
    message = (
        f"console.public_url ({name}) is {url or 'not set'}, and with console.oidc.issuer people come back to it from "
        "the issuer; set it to the address with https:// that people type"
    )
    raise SettingsError(message)


def _nobody(_token: str) -> None:
    """Know no token: people sign in at the issuer alone."""


def local_token() -> tuple[str, OwnerOf]:
    """Return a new token for the person at this machine, and a function that finds its owner."""
    token = secrets.token_urlsafe(32)

    def owner(given: str) -> Person | None:
        known = hmac.compare_digest(
            token.encode(), given.strip().encode("utf-8", "surrogateescape")
        )
        return Person("local", Role.LEAD) if known else None

    return token, owner
