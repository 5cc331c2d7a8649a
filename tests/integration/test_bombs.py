"""Compressed records that expand to far more than a machine has, by a real broker and in a process of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from stream_guard.core.exit_codes import ExitCode
from tests.integration.harness import deploy, owed_of, post, read, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.testing import Broker

MIB = 1 << 20
POLICIES = 2  # that judge every post
BOMBS = 3
LARGE = 100
IN_FLIGHT_MIB = 8
ASIDE_MIB = 128
"""What docs/guides/operations.md names beside ``batching.in_flight_bytes_max``."""


def resident_mib(pid: int, field: str) -> float:
    """Return a size of a process from the kernel: now (``VmRSS``), or at most so far (``VmHWM``)."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1_024
    raise AssertionError(f"the kernel does not tell {field}")


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
async def test_bombs_are_dead_letters_within_the_memory_that_is_promised(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, codec: str
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_BATCHING__IN_FLIGHT_BYTES_MAX=str(IN_FLIGHT_MIB * MIB),
    )
    with running(place, tmp_path / "log") as run:
        await asyncio.to_thread(run.wait_for, "ready")
        idle_mib = resident_mib(run.process.pid, "VmRSS")
        producer = AIOKafkaProducer(
            bootstrap_servers=place.bootstrap, compression_type=codec, max_request_size=1 << 30
        )
        await producer.start()
        try:
            await producer.send_and_wait(place.posts, post(0), partition=0)
            for _ in range(BOMBS):
                await producer.send_and_wait(place.posts, b"x" * (200 * MIB), partition=0)
            for number in range(LARGE):
                text = "y" * (900 << 10)
                await producer.send(place.posts, post(number, text), partition=0)
            await producer.send_and_wait(place.posts, post(1), partition=0)
        finally:
            await producer.stop()
        owed = 2 * POLICIES + BOMBS + LARGE
        records = await read(
            place.bootstrap, [place.verdicts, place.dead], lambda got: len(owed_of(got)) >= owed
        )
        peak_mib = resident_mib(run.process.pid, "VmHWM")
        assert run.end() == ExitCode.CLEAN
    letters = [dict(r.headers) for r in records if r.topic == place.dead]
    assert {headers["sg_reason"] for headers in letters} == {b"too_large"}
    assert sorted(int(headers["sg_offset"]) for headers in letters) == list(
        range(1, BOMBS + LARGE + 1)
    )
    bombs = [headers for headers in letters if int(headers["sg_offset"]) <= BOMBS]
    assert all(int(headers["sg_cut_from_bytes"]) > 200 * MIB for headers in bombs)
    assert peak_mib - idle_mib < IN_FLIGHT_MIB + ASIDE_MIB
