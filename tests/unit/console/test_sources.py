"""Sources of the console that cannot be read: they say so, and none of them ends the console."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.console.sources.bench import Bench
from stream_guard.console.sources.replicas import Replicas
from stream_guard.console.sources.sources import make_sources
from stream_guard.console.sources.state import Health
from stream_guard.core.errors import DatabaseError, EngineError
from stream_guard.offline.review.queue import ReviewQueue
from stream_guard.offline.review.store import Store
from stream_guard.offline.session import OfflineJudge
from stream_guard.settings import ConsoleSettings, Settings
from stream_guard.testing import ManualClock
from tests.hang import HANG_S

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("url", ["http://guard..svc:8080/metrics", "http://guard:99999/metrics"])
async def test_an_address_that_cannot_be_one_is_told_and_ends_nothing(url: str) -> None:
    settings = ConsoleSettings(metrics_urls=[url], metrics_interval_s=0.01)
    replicas = Replicas(settings, ManualClock())
    running = asyncio.create_task(replicas.run())
    async with asyncio.timeout(HANG_S):
        while replicas.state.health is not Health.AWAY and not running.done():  # noqa: ASYNC110 - a source tells nobody
            await asyncio.sleep(0.01)
    assert not running.done()
    assert url in replicas.state.because
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_source_that_something_else_cancels_does_not_end_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends(_: Replicas) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(Replicas, "run", ends)
    sections: dict[str, Any] = {
        "studio": {"socket": tmp_path / "studio.sock"},
        "console": {"metrics_urls": [], "feed_verdicts_max": 0},
    }
    sources = make_sources(Settings(**sections), ManualClock())
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(HANG_S):
            await sources.run()
    assert "'replicas' was cancelled from within" in str(caught.value.exceptions[0])
    await sources.close()


async def test_an_engine_starts_only_once_the_one_before_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, ended = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> None:
        ending.set()
        await ended.wait()

    async def fails(_judge: object, _progress: object) -> None:
        raise EngineError("the engine died")

    async def works(_judge: object, _progress: object) -> None:
        """Do nothing."""

    monkeypatch.setattr(OfflineJudge, "__aexit__", slow)
    sections: dict[str, Any] = {
        "engine": {"kind": "scripted"},
        "studio": {"socket": tmp_path / "studio.sock"},
        "console": {"engine": "own"},
    }
    bench = Bench(Settings(**sections), ManualClock())
    async with asyncio.timeout(HANG_S):
        assert bench.begin("author-1", "spam", "try", fails) is not None
        await ending.wait()
        second = bench.begin("author-2", "spam", "try", works)
        assert second is not None
        assert second.task is not None
        early, _ = await asyncio.wait({second.task}, timeout=0.5)
        assert not early
        ended.set()
        await second.task
        assert second.state == "done"
        await bench.close()


def test_a_file_that_is_no_database_any_more_is_told_as_one_that_is_away(tmp_path: Path) -> None:
    file = tmp_path / "review.sqlite"
    store = Store(str(file))
    queue = ReviewQueue(store)
    assert queue.counts()["open"] == 0
    store.close()
    for each in tmp_path.iterdir():
        each.write_bytes(b"no database" * 1_000)
    with pytest.raises(DatabaseError, match="not a database"):
        queue.counts()
