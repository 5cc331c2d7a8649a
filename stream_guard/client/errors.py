"""The errors of the client."""

from __future__ import annotations

from stream_guard.core.errors import BrokerError, RegistryError, StreamGuardError

__all__ = ["BrokerError", "ClientError", "RegistryError", "UnreadableVerdictError"]


class ClientError(StreamGuardError):
    """An argument of the client is invalid."""


class UnreadableVerdictError(ClientError):
    """A record of the verdict topic is not a verdict that this version can read; the message names its place."""
