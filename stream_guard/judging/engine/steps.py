"""Runs a step of every length before the first post, and reports what is compiled while posts are judged.

vLLM captures graphs for short steps at its start, and pads a step to the next captured length. For longer steps it
compiles kernels when it meets a length for the first time. gpt-oss's routing has the length, rounded up to
:data:`LENGTH_TOKENS`, as a constant of its kernels. Such a compilation stops all posts for up to seconds.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import structlog

from stream_guard.core.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "LENGTH_TOKENS",
    "Compilations",
    "StepLimits",
    "Stepping",
    "lengths_of",
    "warm_steps",
    "watch",
]

LENGTH_TOKENS: Final = 32
"""Steps whose lengths differ by less may share their kernels."""
EVERY_S: Final = 30.0
"""How often the engine is asked what it has compiled."""
PROGRESS_S: Final = 10.0
"""How often the warm-up is logged."""
_log = structlog.get_logger(__name__)


class Compilations(NamedTuple):
    """What the engine has compiled.

    Attributes:
        kernels: of Triton; also those that were read from its cache on disk.
        graphs: of torch.compile.
        seconds: that it took.
    """

    kernels: int = 0
    graphs: int = 0
    seconds: float = 0.0

    def since(self, before: Compilations) -> Compilations:
        """Return the difference."""
        return Compilations(
            self.kernels - before.kernels,
            self.graphs - before.graphs,
            self.seconds - before.seconds,
        )


class StepLimits(NamedTuple):
    """Lengths of a step in tokens: the longest that vLLM captured at its start (0 for none), and the longest of all."""

    captured_max: int
    tokens_max: int


class Stepping(Protocol):
    """An engine, as far as this module needs it; see :class:`stream_guard.judging.engine.client.VllmClient`."""

    @property
    def step_limits(self) -> StepLimits:
        """Lengths of its steps."""

    async def try_step(self, tokens: int) -> None:
        """Run the model once on so many tokens."""

    async def compilations(self) -> Compilations:
        """Return what it has compiled since the first call."""


def lengths_of(limits: StepLimits) -> Sequence[int]:
    """Return one length for each set of kernels that steps will need and that vLLM has not captured, longest first."""
    first = limits.captured_max // LENGTH_TOKENS + 1
    last = -(-limits.tokens_max // LENGTH_TOKENS)
    return [min(LENGTH_TOKENS * each, limits.tokens_max) for each in range(last, first - 1, -1)]


async def warm_steps(engine: Stepping) -> None:
    """Run a step of every length that will occur, and log the progress.

    Raises:
        EngineError: the engine failed.
    """
    lengths = lengths_of(engine.step_limits)
    began_s = logged_s = time.monotonic()
    first = await engine.compilations()
    for number, length in enumerate(lengths, 1):
        await engine.try_step(length)
        now_s = time.monotonic()
        if now_s - logged_s >= PROGRESS_S or number == len(lengths):
            logged_s = now_s
            compiled = (await engine.compilations()).since(first)
            _log.info(
                "warming_up_steps",
                tried=number,
                of=len(lengths),
                kernels=compiled.kernels,
                graphs=compiled.graphs,
                took_s=round(now_s - began_s, 1),
            )


async def watch(
    engine: Stepping, tell: Callable[[Compilations], None] | None, every_s: float = EVERY_S
) -> None:
    """Report what is compiled from now on, until cancelled; it ends if the engine no longer answers.

    Args:
        engine: one that is ready.
        tell: called with what is new, if anything is.
        every_s: how often the engine is asked, in s.
    """
    try:
        before = await engine.compilations()
        while True:
            await asyncio.sleep(every_s)
            now = await engine.compilations()
            new = now.since(before)
            before = now
            if new.kernels or new.graphs:
                _log.warning(
                    "compiled_while_serving",
                    kernels=new.kernels,
                    graphs=new.graphs,
                    took_s=round(new.seconds, 1),
                    remedy="set engine.warm_steps, and keep the folder TRITON_CACHE_DIR between starts",
                )
                if tell is not None:
                    tell(new)
    except EngineError:  # it is dead or hangs; others see to that
        return
