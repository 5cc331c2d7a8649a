"""The interface of every kind of broker, and the broker that already runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from stream_guard.core.errors import BrokerError
from stream_guard.testing.broker import probe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from stream_guard.testing.broker.security import Secured

Kind: TypeAlias = Literal["named", "docker", "embedded"]


class Broker(ABC):
    """A running broker or cluster; a context manager that stops it at the end.

    Its methods block: call them from async code through ``asyncio.to_thread``.

    Attributes:
        kind: how it is run.
        bootstrap_servers: ``host:port[,host:port]``, for any Kafka client.
        description: one line for people: which broker it is, and why it was chosen.
        brokers: how many brokers it was started with; 0 if that is unknown.
        secured: addresses, certificates and tokens for its secured listeners; None if it has none.
    """

    kind: Kind
    bootstrap_servers: str
    description: str
    brokers: int = 0
    secured: Secured | None = None

    def create_topics(
        self,
        *names: str,
        partitions: int = 1,
        configs: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Create topics, with 3 replicas if there are 3 brokers; return once every broker names their leaders.

        Args:
            names: topics to create; those that exist already stay unchanged.
            partitions: of each.
            configs: of each, such as ``{"cleanup.policy": "compact"}``.
            timeout_s: for all of it.

        Raises:
            BrokerError: the broker refused, or did not answer in time.
        """
        work = probe.create_topics(
            self.bootstrap_servers, names, partitions=partitions, configs=configs
        )
        probe.wait_for(work, timeout_s=timeout_s)

    def kill(self, node: int) -> None:
        """Kill broker ``node`` (1, 2, ...) without warning, as SIGKILL does.

        Raises:
            BrokerError: this kind of broker cannot be killed.
        """
        raise BrokerError(self._not_ours(f"kill({node})"))

    def stop(self, node: int) -> None:
        """Stop broker ``node`` cleanly: it hands over its partitions first.

        Raises:
            BrokerError: this kind of broker cannot be stopped.
        """
        raise BrokerError(self._not_ours(f"stop({node})"))

    def restart(self, node: int) -> None:
        """Start broker ``node`` again, on its data and port; return once the cluster is whole.

        Raises:
            BrokerError: it did not start, or this kind of broker cannot be started.
        """
        raise BrokerError(self._not_ours(f"restart({node})"))

    def _not_ours(self, what: str) -> str:
        return f"{what}: a {self.kind} broker cannot be controlled; use kind='embedded'"

    @abstractmethod
    def close(self) -> None:
        """Stop it and remove its data, if this process started it; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class NamedBroker(Broker):
    """A broker that somebody else runs."""

    kind = "named"

    def __init__(self, bootstrap_servers: str, *, why: str, timeout_s: float = 10.0) -> None:
        """Check that it answers.

        Raises:
            BrokerError: it does not, within ``timeout_s``.
        """
        self.bootstrap_servers = bootstrap_servers
        self.description = f"Kafka at {bootstrap_servers} ({why})"
        try:
            probe.wait_until_ready(bootstrap_servers, brokers=1, timeout_s=timeout_s)
        except BrokerError as error:
            message = (
                f"no Kafka broker answers at {bootstrap_servers} ({why}): {error}; start it, or "
                "unset KAFKA_BOOTSTRAP_SERVERS to have an embedded one started"
            )
            raise BrokerError(message) from error

    def close(self) -> None:
        """Do nothing: this process did not start it."""
