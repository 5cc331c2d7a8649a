"""For tests of your own: a broker, a judge and a clock that you control.

In memory and at once: :class:`MemoryBroker` with :class:`MemorySource`, :class:`MemoryPublisher`,
:class:`MemoryTransactor` and :class:`MemoryBreakerLog`; :class:`ManualJudge`, :class:`ManualClock`. A real Kafka on
this machine: :func:`start_broker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.testing.doubles import ManualClock, ManualJudge
from stream_guard.testing.memory import MemoryBroker, MemoryRecord, MemorySource
from stream_guard.testing.memory_breaker import MemoryBreakerLog
from stream_guard.testing.memory_publisher import MemoryPublisher
from stream_guard.testing.memory_transactions import MemoryTransactor

if TYPE_CHECKING:
    from stream_guard.testing.broker import (
        Broker,
        BrokerSecurity,
        CertificateAuthority,
        SecuredListener,
        start_broker,
    )

__all__ = [
    "Broker",
    "BrokerSecurity",
    "CertificateAuthority",
    "ManualClock",
    "ManualJudge",
    "MemoryBreakerLog",
    "MemoryBroker",
    "MemoryPublisher",
    "MemoryRecord",
    "MemorySource",
    "MemoryTransactor",
    "SecuredListener",
    "start_broker",
]


_REAL = ("Broker", "BrokerSecurity", "CertificateAuthority", "SecuredListener", "start_broker")


def __getattr__(name: str) -> object:
    # The real broker's helper imports a Kafka client, which what lives in memory has no need of.
    if name in _REAL:
        from stream_guard.testing import broker

        return getattr(broker, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
