"""What can go wrong for a reader of verdicts."""

from __future__ import annotations

from stream_guard.core.errors import BrokerError, StreamGuardError

__all__ = ["BrokerError", "ClientError", "UnreadableVerdictError"]


class ClientError(StreamGuardError):
    """The client was asked for something that makes no sense."""


class UnreadableVerdictError(ClientError):
    """A record of the verdict topic is no verdict that this version understands; it names the place."""
