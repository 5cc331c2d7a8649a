"""A source before another one passes on each call of the port, with its arguments and its answer."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, cast

import pytest

from stream_guard.core.kafka_types import Partition
from stream_guard.kafka.registry.source import SchemaSource
from stream_guard.stream.late_source import LateSource
from stream_guard.stream.ports import Source
from stream_guard.stream.wrapping_source import WrappingSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ONE = Partition("posts", 1)
CALLS: Mapping[str, tuple[tuple[Any, ...], Mapping[str, Any]]] = {
    "start": (("listener",), {}),
    "poll": (((ONE,),), {"records_max": 7, "timeout_ms": 8, "bytes_max": 9}),
    "commit": (({ONE: 3},), {}),
    "assigned": ((), {}),
    "ends": ((), {}),
    "positions": ((), {}),
    "committed": (((ONE,),), {}),
    "seek": ((ONE, 5), {}),
    "stop": ((), {}),
}
PORT = {
    name: method
    for name, method in vars(Source).items()
    if inspect.isfunction(method) and not name.startswith("_")
}


class Recorder:
    """A source that answers each call with what was called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def answer(*args: object, **named: object) -> object:
            return name, args, named

        async def answer_later(*args: object, **named: object) -> object:
            return answer(*args, **named)

        return answer_later if inspect.iscoroutinefunction(PORT[name]) else answer


@pytest.mark.parametrize("name", PORT)
async def test_a_call_is_passed_on(name: str) -> None:
    args, named = CALLS[name]
    answer = getattr(WrappingSource(cast("Source", Recorder())), name)(*args, **named)
    if asyncio.iscoroutine(answer):
        answer = await answer
    # A call without an answer has none to pass on.
    expected = None if name in ("start", "commit", "seek", "stop") else (name, args, named)
    assert answer == expected


def test_sources_before_another_one_have_one_base() -> None:
    for kind in (LateSource, SchemaSource):
        assert issubclass(kind, WrappingSource)
        again = {"start", "commit", "assigned", "ends", "committed"} & vars(kind).keys()
        assert not again, f"{kind.__name__} passes on again what its base passes on"
