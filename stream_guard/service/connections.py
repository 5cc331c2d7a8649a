"""Bounds an HTTP server's connections in number and time, so that stalled clients do not use up its descriptors.

aiohttp has no limit on their number. A connection is closed if it sends no whole request in time, or none after the
last one; also if its client does not read the answer. At the limit, a new connection closes the connection with the
oldest request, so that a probe on a new connection is answered.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

FIRST_REQUEST_TIMEOUT_S: Final = 10.0
"""Time from the connection to its first whole request head."""
IDLE_TIMEOUT_S: Final = 75.0
"""Time from one request to the next; above the usual intervals of probes and metrics polls (10 to 60 s)."""


class Connections:
    """The open connections of one server; a factory of protocols for :meth:`asyncio.loop.create_server`.

    Args:
        server: the aiohttp server that answers.
        connections_max: most open connections.
        first_request_timeout_s: from the connection to its first request, in s.
        idle_timeout_s: from one request to the next, in s.
    """

    def __init__(
        self,
        server: web.Server,
        connections_max: int,
        *,
        first_request_timeout_s: float = FIRST_REQUEST_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self._server = server
        self._connections_max = connections_max
        self._first_request_timeout_s = first_request_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._open: dict[_Connection, None] = {}  # longest without a request first

    def __len__(self) -> int:
        return len(self._open)

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection; at the limit, close another one first."""
        while len(self._open) >= self._connections_max:
            stalest = next(iter(self._open))
            del self._open[stalest]
            stalest.abort()
        connection = _Connection(self._server, self, self._first_request_timeout_s)
        self._open[connection] = None
        return connection

    def renew(self, connection: web.RequestHandler) -> None:
        """Note a request of a connection: its deadline moves, and it is the last to be closed."""
        if isinstance(connection, _Connection) and connection in self._open:
            del self._open[connection]
            self._open[connection] = None
            connection.close_after(self._idle_timeout_s)

    def forget(self, connection: _Connection) -> None:
        """Remove a connection that is closed."""
        self._open.pop(connection, None)


class _Connection(web.RequestHandler):
    """A connection of a :class:`Connections`, with a deadline."""

    __slots__ = ("_connections", "_deadline", "_first_request_timeout_s", "_own_transport")

    def __init__(
        self, server: web.Server, connections: Connections, first_request_timeout_s: float
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's runners pass None as well
        )
        self._connections = connections
        self._first_request_timeout_s = first_request_timeout_s
        self._deadline: asyncio.TimerHandle | None = None
        # aiohttp forgets its own when it begins to close; a client that reads nothing could hold it open.
        self._own_transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._own_transport = transport
        super().connection_made(transport)
        self.close_after(self._first_request_timeout_s)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._connections.forget(self)
        super().connection_lost(exc)

    def close_after(self, timeout_s: float) -> None:
        """Set the deadline to so many seconds from now."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, self.abort)

    def abort(self) -> None:
        """Close at once; unsent data is lost."""
        if isinstance(self._own_transport, asyncio.WriteTransport):
            self._own_transport.abort()
        else:  # Not connected yet: aiohttp closes it as soon as it is.
            self.force_close()
