"""A group's committed positions, while transactions are about to move them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream_guard.kafka import positions
from stream_guard.kafka.positions import committed_positions

TP = TopicPartition("posts", 0)


def busy_consumer() -> Any:  # noqa: ANN401 - what aiokafka has
    """Return a consumer of a group that always has a transaction open."""

    async def ensure_coordinator_known() -> None:
        pass

    async def send(request: Any) -> Any:  # noqa: ANN401
        stable = request.build(positions._Stable).require_stable
        at, code = (-1, positions._UNSTABLE) if stable else (7, 0)
        return positions._Response(0, [("posts", [(0, at, -1, "", code, {})], {})], 0, {})

    return SimpleNamespace(
        _coordinator=SimpleNamespace(
            ensure_coordinator_known=ensure_coordinator_known, _send_req=send
        )
    )


async def test_a_position_that_counts_waits_for_the_transaction() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await committed_positions(busy_consumer(), "ours", [TP])


async def test_a_position_that_is_only_looked_at_waits_for_none() -> None:
    assert await committed_positions(busy_consumer(), "theirs", [TP], stable=False) == {TP: 7}
