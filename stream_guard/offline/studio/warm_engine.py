"""The studio's judge: one engine for every command, which prepares each policy once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache
from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.judging.assembly import make_lasting_judge
from stream_guard.offline.studio.protocol import policy_key
from stream_guard.policies.policy import PolicySet
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.judging.contract import Judge
    from stream_guard.judging.families.family import Exchange
    from stream_guard.settings import Settings

__all__ = ["WarmEngine"]

_PREPARED_MAX: Final = 256


class WarmEngine:
    """A :class:`stream_guard.judging.contract.Judge` that many callers share, each of whom may start it.

    Args:
        settings: the sections ``engine`` and ``cascade``.
        judge: the model's judge; by default that of the settings.

    Raises:
        EngineError: the engine is not installed.
    """

    def __init__(self, settings: Settings, *, judge: Judge | None = None) -> None:
        self._listeners: dict[str, Callable[[Exchange], None]] = {}
        self._inner = judge or make_lasting_judge(
            settings,
            SystemClock(),
            Metrics(CollectorRegistry()),
            lambda _: None,
            listen=self._hear,
        )
        self._started: asyncio.Future[None] | None = None
        self._preparing = asyncio.Lock()
        self._prepared: LRUCache[bytes, bool] = LRUCache(_PREPARED_MAX)
        self.submit, self.cancel = self._inner.submit, self._inner.cancel
        self.in_flight, self.describe = self._inner.in_flight, self._inner.describe

    async def start(self, policies: PolicySet) -> None:
        """Start the engine at the first call, or wait for its start; then prepare these policies.

        Raises:
            EngineError: it did not start.
            PolicyError: a policy cannot be judged by.
        """
        if self._started is not None:
            await self.prepare(policies)
            return
        self._started = asyncio.get_running_loop().create_future()
        try:
            await self._inner.start(policies)
        except BaseException as error:
            self._started.set_exception(error)
            self._started.exception()  # it is raised here; others may or may not wait
            raise
        self._prepared.update((policy_key(each), True) for each in policies.policies.values())
        self._started.set_result(None)

    async def prepare(self, policies: PolicySet) -> None:
        """Prepare those of these policies that are new, after the engine's start.

        Raises:
            EngineError: the engine did not start, or died.
            PolicyError: a policy cannot be judged by.
        """
        await self._wait_started()
        async with self._preparing:
            new = {
                p.id: p for p in policies.policies.values() if policy_key(p) not in self._prepared
            }
            if new:
                await self._inner.prepare(PolicySet(new, default=tuple(new)))
                self._prepared.update((policy_key(policy), True) for policy in new.values())

    async def _wait_started(self) -> None:
        assert self._started is not None, "start() comes first"
        await asyncio.shield(self._started)

    def listen(self, request_id: str, hear: Callable[[Exchange], None]) -> None:
        """Call ``hear`` with each prompt and completion of a request."""
        self._listeners[request_id] = hear

    def forget(self, request_id: str) -> None:
        """Call nobody for this request any more."""
        self._listeners.pop(request_id, None)

    def _hear(self, exchange: Exchange) -> None:
        hear = self._listeners.get(exchange.request_id)
        if hear is not None:
            hear(exchange)

    async def wait_failed(self) -> BaseException:
        """Return the error, once the engine is lost."""
        await self._wait_started()
        return await self._inner.wait_failed()

    async def close(self) -> None:
        """Stop the engine."""
        await self._inner.close()
