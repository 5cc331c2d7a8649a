"""A thread that never ends keeps no process, by the real program and a real broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stream_guard.core.exit_codes import ExitCode
from tests.integration.harness import deploy, owed_of, post, produce, read, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

POLICIES = 2  # that judge every post


async def test_a_blocked_thread_does_not_outlive_a_clean_drain(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_DELIVERY__STOP_TIMEOUT_S="2")
    with running(place, tmp_path / "log", ("tests.integration.blocked_app",)) as run:
        await asyncio.to_thread(run.wait_for, "ready")
        await produce(place.bootstrap, place.posts, [post(number) for number in range(5)])
        owed = 5 * POLICIES
        await read(place.bootstrap, [place.verdicts], lambda got: len(owed_of(got)) >= owed)
        assert await asyncio.to_thread(run.end) == ExitCode.CLEAN
    assert "process_did_not_end" in run.log.read_text("utf-8", "replace")
