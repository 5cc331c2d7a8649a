"""The metrics of the running replicas: exact counts, read every second.

A URL stands for every address of its host's name, so one name of a headless service finds all replicas.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from stream_guard.console.security.origin import is_loopback
from stream_guard.console.sources.state import SourceWatch
from stream_guard.telemetry.metrics_page import Figure, read_figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stream_guard.console.sources.state import SourceState
    from stream_guard.core.clock import Clock
    from stream_guard.settings import ConsoleSettings

__all__ = ["Replica", "Replicas"]

_TIMEOUT_S: Final = 5.0
_PAGE_BYTES_MAX: Final = 16 << 20
RATE_WINDOW_S: Final = 10.0
"""Over how long rates are taken."""

_Labels = tuple[tuple[str, str], ...]
_Values = dict[tuple[str, _Labels], float]


class _Reading(NamedTuple):
    at_s: float
    values: _Values


class Replica:
    """One replica: its last readings.

    Args:
        address: of its page of metrics.
        now_ms: Unix time in ms.

    Attributes:
        fault: why it does not answer; None while it answers.
        since_ms: since when it answers, or does not; Unix time in ms.
    """

    def __init__(self, address: str, now_ms: int) -> None:
        self.address = address
        self.fault: str | None = None
        self.since_ms = now_ms
        self._readings: deque[_Reading] = deque()

    @property
    def figures(self) -> _Values:
        """The last values, by name and labels; none while it does not answer."""
        return self._readings[-1].values if self._readings and self.fault is None else {}

    def note(self, at_s: float, now_ms: int, figures: Iterable[Figure]) -> None:
        """Add a reading."""
        if self.fault is not None:
            self.since_ms = now_ms
        values = {(figure.name, figure.labels): figure.value for figure in figures}
        self._readings.append(_Reading(at_s, values))
        while self._readings[0].at_s < at_s - RATE_WINDOW_S:
            self._readings.popleft()
        self.fault = None

    def fail(self, now_ms: int, because: str) -> None:
        """Note that it does not answer. Rates begin again after that."""
        if self.fault is None:
            self.since_ms = now_ms
        self.fault = because
        self._readings.clear()

    def rates(self, name: str) -> dict[_Labels, float]:
        """Return a counter's increase a second, by labels, over the last readings."""
        if len(self._readings) < 2:  # noqa: PLR2004 - a rate needs two
            return {}
        found: dict[_Labels, float] = {}
        before = self._readings[0]
        for now in list(self._readings)[1:]:
            for (metric, labels), value in now.values.items():
                if metric == name:
                    old = before.values.get((metric, labels), 0.0)
                    # A restarted replica counts from zero.
                    found[labels] = found.get(labels, 0.0) + (
                        value - old if value >= old else value
                    )
            before = now
        passed_s = self._readings[-1].at_s - self._readings[0].at_s
        return {labels: grown / passed_s for labels, grown in found.items()} if passed_s else {}


class Replicas:
    """All replicas.

    Args:
        settings: where they are.
        clock: the time.

    Attributes:
        all: the replicas, by their address.
        turn: how often they have been read.
    """

    def __init__(self, settings: ConsoleSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._watch = SourceWatch("replicas", clock)
        self._listeners: list[Callable[[], None]] = []
        self.all: dict[str, Replica] = {}
        self.turn = 0

    @property
    def state(self) -> SourceState:
        """How the replicas are: away if one of them does not answer."""
        return self._watch.state

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function each time that all replicas have been read."""
        self._listeners.append(listener)

    def values(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return each replica's values of a metric, with their labels."""
        return [
            (dict(labels), value)
            for replica in self.all.values()
            for (metric, labels), value in replica.figures.items()
            if metric == name
        ]

    def by(
        self, name: str, *labels: str, together: Callable[[list[float]], float] = sum
    ) -> dict[tuple[str, ...], float]:
        """Return a metric's values by these labels, added up over all others and over the replicas."""
        return _grouped(self.values(name), labels, together)

    def rates_by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return a counter's increase a second by these labels, added up over all others and over the replicas."""
        found = [
            (dict(pairs), rate)
            for replica in self.all.values()
            for pairs, rate in replica.rates(name).items()
        ]
        return _grouped(found, labels, sum)

    async def run(self) -> None:
        """Read them until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            while True:
                await self._read_all(session)
                await asyncio.sleep(self._settings.metrics_interval_s)

    async def close(self) -> None:
        """Do nothing: the connections end with :meth:`run`."""

    async def _read_all(self, session: aiohttp.ClientSession) -> None:
        found: dict[str, str] = {}
        faults = []
        for url in self._settings.metrics_urls:
            try:
                found |= await _addresses(url)
            except OSError as error:
                faults.append(f"{url}: {error.strerror or error}")
            except ValueError as error:  # no name of a host, or no port
                faults.append(f"{url}: {error}")
        now_ms = self._now_ms()
        self.all = {address: self.all.get(address) or Replica(address, now_ms) for address in found}
        await asyncio.gather(
            *(self._read(session, self.all[address], host) for address, host in found.items())
        )
        faults += [
            f"{replica.address}: {replica.fault}" for replica in self.all.values() if replica.fault
        ]
        if faults:
            self._watch.away("; ".join(faults))
        else:
            self._watch.fresh()
        self.turn += 1
        for listener in self._listeners:
            listener()

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000

    async def _read(self, session: aiohttp.ClientSession, replica: Replica, host: str) -> None:
        try:
            async with session.get(
                replica.address, headers={"Host": host}, allow_redirects=False
            ) as answer:
                answer.raise_for_status()
                page = await _content(answer)
                replica.note(self._clock.monotonic_s(), self._now_ms(), read_figures(page))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            replica.fail(self._now_ms(), type(error).__name__)


def _grouped(
    values: Iterable[tuple[Mapping[str, str], float]],
    labels: tuple[str, ...],
    together: Callable[[list[float]], float],
) -> dict[tuple[str, ...], float]:
    groups: dict[tuple[str, ...], list[float]] = {}
    for pairs, value in values:
        groups.setdefault(tuple(pairs.get(label, "") for label in labels), []).append(value)
    return {key: together(group) for key, group in groups.items()}


async def _addresses(url: str) -> dict[str, str]:
    """Return the addresses that a URL stands for, with the host to name. Raises OSError and ValueError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    # TLS names a host, so its name stays.
    if is_loopback(host) or parts.scheme == "https":
        return {url: parts.netloc}
    port = parts.port or 80
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    numbers = {str(each[4][0]) for each in found}
    return {
        parts._replace(
            netloc=f"[{number}]:{port}" if ":" in number else f"{number}:{port}"
        ).geturl(): parts.netloc
        for number in numbers
    }


async def _content(answer: aiohttp.ClientResponse) -> str:
    content = bytearray()
    async for piece in answer.content.iter_any():
        content += piece
        if len(content) > _PAGE_BYTES_MAX:
            raise ValueError("the page of metrics is too long")
    return content.decode()
