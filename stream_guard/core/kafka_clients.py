"""Starts and stops clients of aiokafka so that nothing of them stays behind.

Theory of operation. aiokafka leaves connections open in two cases. A start that is cancelled while it waits for the
first metadata forgets its connection: nothing but the stack of the cancelled call knows it. And a stop that ends with
an error, or by its deadline, does not come to the connections; the task that reads metadata then holds them until the
process ends. So clients are started and stopped here alone. It imports no aiokafka: rooms that may not use it have a
share in it, and it ships no types anyway.
"""

from __future__ import annotations

import time
import traceback
from typing import Any, Final

from stream_guard.core.stopping import stop_within

__all__ = ["start_client", "stop_client"]

_CLOSE_S: Final = 2.0
_LEAST_S: Final = 0.1
"""For the connections of a client whose stop took all its time: to begin their end takes two turns of the loop."""


async def start_client(client: Any) -> None:  # noqa: ANN401 - aiokafka ships no types
    """Start a consumer, producer or admin client. One that does not start still has to be stopped.

    Raises:
        KafkaError, OSError, TimeoutError: it does not start.
    """
    try:
        await client.start()
    except BaseException as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_name == "bootstrap":  # AIOKafkaClient's
                forgotten = frame.f_locals.get("bootstrap_conn")
                if forgotten is not None:
                    forgotten.close()
        raise


async def stop_client(
    client: Any,  # noqa: ANN401 - aiokafka ships no types
    timeout_s: float = _CLOSE_S,
) -> BaseException | None:
    """Stop a consumer, producer or admin client, started or not, and close its connections however that ends.

    asyncio waits 30 s for the other side of a TLS connection to close it, and a broker that is away never does.

    Args:
        client: the client. A second stop does nothing.
        timeout_s: for all of it, in s.

    Returns:
        As :func:`stream_guard.core.stopping.stop_within`.
    """
    stop = client.stop if hasattr(client, "stop") else client.close
    connections = client.client if hasattr(client, "client") else client._client  # noqa: SLF001
    end_s = time.monotonic() + timeout_s
    try:
        return await stop_within(stop(), timeout_s)
    finally:
        await stop_within(connections.close(), max(end_s - time.monotonic(), _LEAST_S))
