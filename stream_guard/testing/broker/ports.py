"""Finds free ports of loopback."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

from stream_guard.core.errors import BrokerError

# Below the range that systems take for outgoing connections, so that no such connection takes the port of a broker
# that is down.
_PORTS: Final = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return ports of loopback on which no process listens now.

    Raises:
        BrokerError: there are not enough.
    """
    found: list[int] = []
    # Random, so that processes that search at the same time rarely find the same ports; not a secret.
    for port in random.sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probing:
            probing.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    message = f"{count} free ports are needed on 127.0.0.1, and {len(found)} were found"
    raise BrokerError(message)
