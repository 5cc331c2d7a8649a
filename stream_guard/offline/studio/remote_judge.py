"""Finds a studio that runs, and judges on its engine.

A studio with another version or other settings is not used: its verdicts would differ from the command's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.core.errors import EngineError, SettingsError
from stream_guard.core.version import package_version
from stream_guard.offline.studio.address import check_private, peer_uid, socket_path
from stream_guard.offline.studio.identity import describe_differences, engine_identity
from stream_guard.offline.studio.protocol import (
    LENGTH_BYTES,
    frame,
    judge_message,
    length_of,
    policy_message,
    read_error,
    read_exchange,
    read_judged,
    read_message,
    unframe,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.judging.delivery import Deliver
    from stream_guard.judging.families.family import Exchange
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import Settings

__all__ = ["RemoteJudge", "Search", "find_studio"]

_HELLO_TIMEOUT_S: Final = 10.0


class Search(NamedTuple):
    """The result of looking for a studio.

    Attributes:
        judge: judges on its engine; None if there is none that this command may use.
        why_not: why a studio that exists is not used; None if there is none or it is used.
    """

    judge: RemoteJudge | None = None
    why_not: str | None = None


def find_studio(settings: Settings, *, listen: Callable[[Exchange], None] | None = None) -> Search:
    """Look for a studio with the engine that these settings describe. Blocks for at most some seconds.

    Args:
        settings: the sections ``studio`` and ``engine``.
        listen: as for ``OfflineJudge``.
    """
    try:
        path = socket_path(settings.studio)
        check_private(path.parent)
        check_private(path)
        connection = _connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return Search()  # none runs; one that was killed leaves its socket behind
    except (OSError, SettingsError) as error:
        return Search(why_not=str(error))
    try:
        hello = _read_hello(connection)
        why_not = _why_not(hello, settings)
    except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        why_not = f"it does not answer as a studio of this version does ({type(error).__name__})"
    if why_not is not None:
        connection.close()
        return Search(why_not=why_not)
    return Search(RemoteJudge(connection, hello["process"], listen))


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_HELLO_TIMEOUT_S)
    try:
        connection.connect(str(path))
        uid = peer_uid(connection)
    except OSError:
        connection.close()
        raise
    if uid != os.geteuid():
        connection.close()
        message = f"studio.socket: {path} is served by user {uid}; set it to a path of this user"
        raise SettingsError(message)
    return connection


def _read_hello(connection: socket.socket) -> dict[str, Any]:
    message = unframe(_exactly(connection, length_of(_exactly(connection, LENGTH_BYTES))))
    if message["is"] != "hello":
        raise ValueError("no hello")
    return message


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def _why_not(hello: Mapping[str, Any], settings: Settings) -> str | None:
    process, version = int(hello["process"]), str(hello["version"])
    if version != package_version():
        return f"it (process {process}) runs version {version}, and this is {package_version()}"
    different = describe_differences(hello["engine"], engine_identity(settings.engine))
    return f"in process {process}, {different}" if different else None


class RemoteJudge:
    """A :class:`stream_guard.judging.contract.Judge` on a studio's engine.

    Args:
        connection: to a studio, after its ``hello``.
        process: of the studio, for messages.
        listen: receives each prompt and completion, or None.
    """

    def __init__(
        self,
        connection: socket.socket,
        process: int,
        listen: Callable[[Exchange], None] | None = None,
    ) -> None:
        self.process = process
        self._connection = connection
        self._listen = listen
        self._requests: dict[str, tuple[JudgeRequest, Deliver]] = {}
        # With the policy itself, so that no other policy gets its identity.
        self._numbers: dict[int, tuple[int, Policy]] = {}
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None] | None = None
        self._failed: asyncio.Future[BaseException]
        self._prepared: asyncio.Future[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._about: Mapping[str, str] = {}

    async def start(self, policies: PolicySet) -> None:
        """Wait until the studio's engine is ready for these policies.

        Raises:
            EngineError: its engine did not start, or the studio ended.
            PolicyError: a policy cannot be judged by.
        """
        self._failed = asyncio.get_running_loop().create_future()
        reader, self._writer = await asyncio.open_unix_connection(sock=self._connection)
        self._reading = asyncio.create_task(self._read(reader), name="studio answers")
        if self._listen is not None:
            self._send({"is": "explain"})
        await self.prepare(policies)

    async def prepare(self, policies: PolicySet) -> None:
        """Wait until the studio's engine is ready for these policies as well.

        Raises:
            EngineError: the studio or its engine ended.
            PolicyError: a policy cannot be judged by.
        """
        async with self._one_at_a_time:
            self._prepared = asyncio.get_running_loop().create_future()
            numbers = [self._number(policy) for policy in policies.policies.values()]
            self._send({"is": "prepare", "policies": numbers})
            both: list[asyncio.Future[Any]] = [self._prepared, self._failed]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not self._prepared.done():
                raise self._failed.result()
            self._prepared.result()

    def _number(self, policy: Policy) -> int:
        """Return a policy's number in this connection, and send the policy at its first use."""
        known = self._numbers.get(id(policy))
        if known is None:
            known = self._numbers[id(policy)] = len(self._numbers), policy
            self._send(policy_message(*known))
        return known[0]

    def submit(self, requests: Sequence[JudgeRequest], deliver: Deliver) -> None:
        """Send requests to the studio. Each is delivered once."""
        for request in requests:
            self._requests[request.id] = (request, deliver)
            self._send(judge_message(request, self._number(request.policy)))

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        """Stop work on these requests, and do not deliver them."""
        gone = [one.id for one in requests if self._requests.pop(one.id, None) is not None]
        if gone:
            self._send({"is": "cancel", "ids": gone})

    def in_flight(self) -> int:
        """Return how many requests are sent and not judged."""
        return len(self._requests)

    async def wait_failed(self) -> BaseException:
        """Return the error, once the studio or its engine has ended."""
        return await asyncio.shield(self._failed)

    def describe(self) -> Mapping[str, str]:
        """Name the model, its revision, and the engine's build, as the studio's judge does."""
        return self._about

    async def close(self) -> None:
        """Leave the studio; it drops what is in flight."""
        if self._reading is None:
            self._connection.close()
            return
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                self._take(await read_message(reader))
        except (OSError, asyncio.IncompleteReadError, KeyError, TypeError, ValueError) as error:
            message = (
                f"the studio (process {self.process}) ended while it judged ({type(error).__name__}); run the command "
                "again: without a studio it starts an engine of its own"
            )
            self._fail(EngineError(message))

    def _take(self, message: Mapping[str, Any]) -> None:
        match message["is"]:
            case "prepared":
                assert self._prepared is not None, "it answers prepare"
                self._about = message["about"]
                if message["error"] is None:
                    self._prepared.set_result(None)
                else:
                    self._prepared.set_exception(read_error(message["error"]))
            case "exchange" if self._listen is not None:
                self._listen(read_exchange(message))
            case "judged":
                # One that was cancelled in the meantime is not delivered.
                request, deliver = self._requests.pop(message["id"], (None, None))
                if request is not None and deliver is not None:
                    deliver([read_judged(message, request)])
            case "failed":
                self._fail(EngineError(f"the studio (process {self.process}): {message['text']}"))

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_result(error)
