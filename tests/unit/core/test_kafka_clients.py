"""A client that does not start, or whose stop fails, leaves no connection behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import struct
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionResponse_v0

from stream_guard.core import kafka_clients
from stream_guard.core.kafka_clients import start_client, stop_client
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_API_VERSIONS = 18
_METADATA = 3
CLIENTS: dict[str, Callable[..., Any]] = {
    "consumer": AIOKafkaConsumer,
    "producer": AIOKafkaProducer,
    "admin": AIOKafkaAdminClient,
}


class SilentBroker:
    """Greets who connects, and never says what topics there are."""

    def __init__(self) -> None:
        self.address = ""
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                api, _version, correlation = struct.unpack_from(
                    ">hhi", await reader.readexactly(size)
                )
                if api == _METADATA:
                    self.asked.set()
                    continue
                assert api == _API_VERSIONS
                known = [(_API_VERSIONS, 0, 0), (_METADATA, 0, 5)]
                body = ApiVersionResponse_v0(error_code=0, api_versions=known).encode()
                writer.write(struct.pack(">ii", len(body) + 4, correlation) + body)
        self.left.set()
        writer.close()


@pytest.fixture
async def broker() -> AsyncIterator[SilentBroker]:
    made = SilentBroker()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_start_that_is_cancelled_closes_its_connection(
    kind: str, broker: SilentBroker
) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        client = CLIENTS[kind](bootstrap_servers=broker.address)
        starting = asyncio.create_task(start_client(client))
        await broker.asked.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert await stop_client(client) is None
        async with asyncio.timeout(HANG_S):
            await broker.left.wait()
        del client, starting
        gc.collect()
    assert not warned, "a connection was left to the collector"


async def test_a_broker_that_is_away_is_an_error_as_ever() -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers="127.0.0.1:9")
    with pytest.raises(KafkaConnectionError):
        await start_client(admin)
    assert await stop_client(admin) is None
    assert await stop_client(admin) is None  # nothing more to do


class Connections:
    """Remembers whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Failing:
    """A consumer whose stop does not come to its connections."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._client = Connections()
        self.stopping = asyncio.Event()

    async def stop(self) -> None:
        self.stopping.set()
        if self._how == "cancelled":
            raise asyncio.CancelledError
        if self._how == "error":
            raise KafkaConnectionError
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("cancelled", asyncio.CancelledError),
        ("error", KafkaConnectionError),
        ("hangs", TimeoutError),
    ],
)
async def test_connections_are_closed_however_the_stop_ends(
    how: str, error: type[BaseException]
) -> None:
    client = Failing(how)
    assert isinstance(await stop_client(client, 0.01 if how == "hangs" else 60), error)
    assert client._client.closed


async def test_connections_are_closed_where_the_caller_is_cancelled() -> None:
    client = Failing("hangs")
    caller = asyncio.create_task(stop_client(client, 60))
    await client.stopping.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert client._client.closed


async def test_an_admin_client_whose_connections_do_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Admin:
        def __init__(self) -> None:
            self._client = self
            self.begun = self.given_up = 0

        async def close(self) -> None:
            self.begun += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1

    monkeypatch.setattr(kafka_clients, "_LEAST_S", 0.01)
    admin = Admin()
    assert isinstance(await stop_client(admin, 0.01), TimeoutError)
    await asyncio.sleep(0)
    assert admin.begun == admin.given_up == 2
