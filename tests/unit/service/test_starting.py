"""A stop ends a start that waits for something outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from stream_guard.service.app import App
from stream_guard.service.starting import Start, StoppedError
from stream_guard.settings import EngineSettings, KafkaSettings, PoliciesSettings, Settings
from stream_guard.telemetry.metrics import Metrics

POLICIES = Path(__file__).parents[3] / "policies"


async def test_a_step_gives_its_result_or_its_error() -> None:
    async def refuse() -> None:
        raise ValueError("refused")

    start = Start(asyncio.Event())
    assert await start.step(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match="refused"):
        await start.step(refuse())


async def test_a_stop_cancels_a_step_and_waits_until_it_has_cleaned_up() -> None:
    stop, cleaned = asyncio.Event(), []

    async def wait() -> None:
        try:
            stop.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(StoppedError):
        await Start(stop).step(wait())
    assert cleaned


async def test_a_signal_ends_a_start_that_waits_for_brokers() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        settings = Settings(
            kafka=KafkaSettings(
                bootstrap_servers=f"127.0.0.1:{closed.getsockname()[1]}", topics=("posts",)
            ),
            engine=EngineSettings(kind="scripted"),
            policies=PoliciesSettings(path=POLICIES),
        )
        app = App(settings, metrics=Metrics(CollectorRegistry()))
        with structlog.testing.capture_logs() as logs:
            running = asyncio.create_task(app.run())
            while not any(one["event"] == "brokers_away" for one in logs):
                assert not running.done(), await running
                await asyncio.sleep(0.01)
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(60):  # delivery.publish_timeout_s is twice that
                await running
