"""Chooses the broker: a named one, one in Docker, or an embedded one; and says why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import BrokerError
from stream_guard.testing.broker.base import Broker, Kind, NamedBroker
from stream_guard.testing.broker.container import DockerBroker, docker_answers
from stream_guard.testing.broker.embedded import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.testing.broker.security import BrokerSecurity

NAMED_VARIABLE: Final = "KAFKA_BOOTSTRAP_SERVERS"
KIND_VARIABLE: Final = "BROKER"
_NAMED_TIMEOUT_S: Final = 15.0  # it exists already, or it does not


def start_broker(
    brokers: int = 1,
    *,
    kind: Kind | None = None,
    prefer_docker: bool = False,
    timeout_s: float = 60.0,
    progress: Callable[[str], None] = lambda _: None,
    security: BrokerSecurity | None = None,
) -> Broker:
    """Start a broker, or use the named one; return when it is ready.

    Without ``kind``, the first of these applies: the broker in ``KAFKA_BOOTSTRAP_SERVERS``; the kind in ``BROKER``
    (``docker`` or ``embedded``); Docker, if ``prefer_docker`` is set and an engine answers; an embedded broker.
    Several brokers are always embedded, so that tests can kill them; so are secured ones.

    Args:
        brokers: 1 to 3.
        kind: overrides the choice.
        prefer_docker: use Docker if an engine answers.
        timeout_s: until it is ready, without downloads.
        progress: called with one line when something slow begins.
        security: secured listeners besides the plain one; :attr:`Broker.secured` says how to reach them.

    Raises:
        BrokerError: it cannot be reached, did not start, or ``BROKER`` names no kind.
    """
    if security is not None:
        if kind not in (None, "embedded"):
            message = f"kind={kind!r} cannot be secured; leave kind out"
            raise BrokerError(message)
        return EmbeddedBroker(
            brokers=brokers,
            why="secured",
            timeout_s=timeout_s,
            progress=progress,
            security=security,
        )
    chosen, why = (kind, f"kind={kind!r}") if kind else choose(brokers, prefer_docker=prefer_docker)
    if chosen == "named":
        servers = os.environ.get(NAMED_VARIABLE, "")
        if not servers:
            message = f"kind='named' needs {NAMED_VARIABLE}, for example localhost:9092"
            raise BrokerError(message)
        return NamedBroker(servers, why=why, timeout_s=min(timeout_s, _NAMED_TIMEOUT_S))
    if chosen == "docker":
        return DockerBroker(why=why, timeout_s=timeout_s, progress=progress)
    return EmbeddedBroker(brokers=brokers, why=why, timeout_s=timeout_s, progress=progress)


def choose(brokers: int, *, prefer_docker: bool) -> tuple[Kind, str]:
    """Return the kind, and the reason for people.

    Raises:
        BrokerError: ``BROKER`` names no kind.
    """
    asked = os.environ.get(KIND_VARIABLE, "")
    if asked not in ("", "docker", "embedded"):
        message = f"{KIND_VARIABLE}={asked} is no kind of broker; use docker or embedded"
        raise BrokerError(message)
    if brokers > 1:
        return "embedded", f"{brokers} brokers are wanted, and each must be ours to kill"
    if os.environ.get(NAMED_VARIABLE):
        return "named", f"{NAMED_VARIABLE} is set"
    if asked == "docker":
        return "docker", f"{KIND_VARIABLE}=docker"
    if asked == "embedded":
        return "embedded", f"{KIND_VARIABLE}=embedded"
    if prefer_docker and docker_answers():
        return "docker", "a Docker engine answers"
    return "embedded", f"neither {NAMED_VARIABLE} nor {KIND_VARIABLE} is set"
