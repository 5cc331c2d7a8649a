"""Which hosts and origins a request may name.

A page of another site can make a browser send requests to the console. The session cookie is not sent with them
(SameSite=Strict); this check does not depend on that. On a loopback address only names of this machine are served,
so a site whose name was pointed at this machine (DNS rebinding) reaches nothing.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp import web

    from stream_guard.settings import ConsoleSettings

__all__ = ["Origins", "is_loopback"]

_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Origins:
    """The check of hosts and origins.

    Args:
        settings: where the console listens, and its public address.
    """

    def __init__(self, settings: ConsoleSettings) -> None:
        self._hosts: frozenset[str] | None = None
        self._public: str | None = None
        public = "" if settings.public_url is None else settings.public_url.rstrip("/")
        if public:
            parts = urlsplit(public)
            self._public = f"{parts.scheme}://{parts.netloc}".lower()
            self._hosts = frozenset({(parts.hostname or "").lower()})
        if is_loopback(settings.host):
            self._hosts = _LOCAL | {settings.host.strip("[]")} | (self._hosts or frozenset())

    def serves(self, request: web.Request) -> bool:
        """Return whether the request names a host that the console answers for."""
        if self._hosts is None:
            return True
        try:
            name = urlsplit(f"//{request.host}").hostname
        except ValueError:
            return False
        return name in self._hosts

    def is_own(self, request: web.Request) -> bool:
        """Return whether a request that changes something was made by a page of the console itself."""
        site = request.headers.get("Sec-Fetch-Site")
        if site is not None and site != "same-origin":
            return False
        origin = request.headers.get("Origin", "").lower()
        return origin in {self._public, f"http://{request.host}".lower()} - {None}
