"""Serves the studio's engine to the commands of the same user."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import StreamGuardError
from stream_guard.core.version import package_version
from stream_guard.offline.studio.address import peer_uid
from stream_guard.offline.studio.protocol import (
    error_message,
    exchange_message,
    frame,
    judged_message,
    read_message,
    read_policy,
    read_request,
)
from stream_guard.policies.policy import PolicySet

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest
    from stream_guard.offline.studio.warm_engine import WarmEngine
    from stream_guard.policies.policy import Policy

__all__ = ["StudioServer"]

_POLICIES_MAX: Final = 1_000
"""Of one connection: a command has at most 500 policies, and two versions of one."""


class StudioServer:
    """Judges what commands send, on one engine.

    Args:
        engine: started by the caller, now or later; requests wait for it.
        identity: of the engine, as ``engine_identity`` returns it; commands compare it with their own.
        busy: called at each message, for the idle timeout.
    """

    def __init__(
        self, engine: WarmEngine, identity: Mapping[str, str], busy: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._hello = frame(
            {
                "is": "hello",
                "version": package_version(),
                "process": os.getpid(),
                "engine": dict(identity),
            }
        )
        self._busy = busy
        self._numbers = itertools.count()
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """How many commands are connected."""
        return len(self._open)

    async def start(self, listener: socket.socket) -> None:
        """Accept connections of this user from now on."""
        self._server = await asyncio.start_unix_server(self._accept, sock=listener)

    async def close(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if peer_uid(writer.get_extra_info("socket")) != os.geteuid():
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="studio connection")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._hello)
        connection = _Connection(self._engine, writer, self._numbers)
        try:
            while True:
                message = await read_message(reader)
                self._busy()
                await connection.take(message)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the command ended
        except StreamGuardError as error:
            connection.fail(str(error))
        except (KeyError, TypeError, ValueError) as error:
            # The fault of a command of another build; what it is must not end the studio.
            connection.fail(f"the studio cannot read a message ({type(error).__name__})")
        finally:
            connection.close()
            self._busy()
            writer.close()


class _Connection:
    """One command: its policies, and its requests that are not judged yet."""

    def __init__(
        self, engine: WarmEngine, writer: asyncio.StreamWriter, numbers: itertools.count[int]
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._numbers = numbers
        self._policies: dict[int, Policy] = {}
        self._requests: dict[str, JudgeRequest] = {}
        self._explains = False
        self._watch: asyncio.Task[None] | None = None

    async def take(self, message: Mapping[str, Any]) -> None:
        """Act on one message. Raises KeyError, TypeError or ValueError if it is malformed."""
        match message["is"]:
            case "policy":
                if len(self._policies) >= _POLICIES_MAX:
                    raise ValueError("too many policies")
                self._policies[message["number"]] = read_policy(message)
            case "explain":
                self._explains = True
            case "prepare":
                await self._prepare([self._policies[number] for number in message["policies"]])
            case "judge":
                self._judge(message)
                await self._writer.drain()
            case "cancel":
                self._cancel(set(message["ids"]))
            case kind:
                raise ValueError(kind)

    async def _prepare(self, policies: Sequence[Policy]) -> None:
        found = {policy.id: policy for policy in policies}
        error: StreamGuardError | None = None
        try:
            await self._engine.prepare(PolicySet(found, default=tuple(found)))
        except StreamGuardError as raised:
            error = raised
        about = dict(self._engine.describe()) if error is None else {}
        said = None if error is None else error_message(error)
        self._send({"is": "prepared", "error": said, "about": about})
        if self._watch is None and error is None:
            self._watch = asyncio.create_task(self._report_failure())

    async def _report_failure(self) -> None:
        self.fail(str(await self._engine.wait_failed()))

    def fail(self, why: str) -> None:
        """Tell the command that nothing more is judged."""
        self._send({"is": "failed", "text": why})

    def _judge(self, message: Mapping[str, Any]) -> None:
        request_id = f"studio-{next(self._numbers)}"
        request = read_request(message, request_id, self._policies[message["policy"]])
        self._requests[request_id] = request
        if self._explains:
            self._engine.listen(
                request_id,
                lambda exchange: self._send(exchange_message(exchange, request.context)),
            )
        self._engine.submit([request], self._deliver)

    def _deliver(self, judgements: Sequence[Judgement]) -> None:
        for judgement in judgements:
            self._requests.pop(judgement.request.id, None)
            self._engine.forget(judgement.request.id)
            self._send(judged_message(judgement))

    def _cancel(self, ids: set[str]) -> None:
        gone = [request for request in self._requests.values() if request.context in ids]
        self._drop(gone)

    def _drop(self, requests: Sequence[JudgeRequest]) -> None:
        self._engine.cancel(requests)
        for request in requests:
            self._requests.pop(request.id, None)
            self._engine.forget(request.id)

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    def close(self) -> None:
        """Cancel what is left of this command."""
        self._drop(list(self._requests.values()))
        if self._watch is not None:
            self._watch.cancel()
