"""A Kafka broker for demos, tests and development: named, in Docker, or embedded; always a real one.

::

    with start_broker() as broker:
        print(broker.description)
        broker.create_topics("posts", partitions=4)
        ...  # broker.bootstrap_servers

It leaves no process behind. Do not use it in production.
"""

from __future__ import annotations

from stream_guard.testing.broker.base import Broker, Kind
from stream_guard.testing.broker.certificates import Certificate, CertificateAuthority
from stream_guard.testing.broker.choice import start_broker
from stream_guard.testing.broker.node import WATCHDOG
from stream_guard.testing.broker.security import BrokerSecurity, Secured, SecuredListener

__all__ = [
    "WATCHDOG",
    "Broker",
    "BrokerSecurity",
    "Certificate",
    "CertificateAuthority",
    "Kind",
    "Secured",
    "SecuredListener",
    "start_broker",
]
