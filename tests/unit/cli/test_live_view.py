"""The live view: rates, shares, the slowest and the last, in bounded space; and the metrics that it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from rich.console import Console

from stream_guard.cli.metrics_poll import follow, summed
from stream_guard.cli.views.live import LAST, SLOWEST, LiveView
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from stream_guard.core.vocabulary import Decision


def verdict(offset: int, decision: Decision = "safe", took_ms: int = 5) -> dict[str, Any]:
    made = make_verdict(offset=offset, decision=decision)
    made["content"] = {**made["content"], "id": f"post-{offset}"}
    consumed = made["timing"]["consumed"]
    made["timing"] = {**made["timing"], "published": consumed + took_ms}
    return made


def shown(view: LiveView, now_s: float) -> str:
    console = Console(width=160, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(view.render(now_s))
    return captured.get()


def test_rates_are_over_the_last_minute() -> None:
    view = LiveView(0.0)
    for second in range(100):
        view.add(verdict(second), second + 0.5)
        view.add(verdict(second, "violates"), second + 0.6)
    assert view.rates(100.0) == pytest.approx({"safe": 1.0, "violates": 1.0}, rel=0.05)
    assert view.rates(400.0) == {}
    text = shown(view, 100.0)
    assert "200" in text
    assert "50.0%" in text


def test_the_slowest_and_the_last_are_shown_and_nothing_grows() -> None:
    view = LiveView(0.0)
    for offset in range(500):
        view.add(verdict(offset, took_ms=9_000 - offset), 1.0)
    text = shown(view, 2.0)
    slowest, last = text.split("last\n")
    for n in range(SLOWEST):
        assert f"{9_000 - n} ms" in slowest
        assert f"post-{499 - n}" in last
    assert f"post-{499 - LAST}" not in last
    (second,) = view._by_second
    assert (len(second.slowest), len(view._last)) == (SLOWEST, LAST)
    for part in (slowest, last):
        heads = next(line for line in part.splitlines() if line.startswith("topic"))
        assert heads.split() == ["topic", "decision", "rule", "tier", "policy", "took", "post"]


def test_the_slowest_are_those_of_the_last_minute() -> None:
    view = LiveView(0.0)
    view.add(verdict(1, took_ms=9_000), 1.0)
    view.add(verdict(2, took_ms=50), 90.0)
    slowest, last = shown(view, 91.0).split("last\n")
    assert "slowest of the last 60 s" in slowest
    assert "post-2" in slowest
    assert "post-1" not in slowest
    assert "post-1" in last


def test_before_the_first_verdict_it_says_so() -> None:
    text = shown(LiveView(0.0), 1.0)
    assert "no verdict yet" in text
    assert "not read yet" in text


PAGE = """# TYPE stream_guard_lag_records gauge
stream_guard_lag_records{topic="a",partition="0"} 3
stream_guard_lag_records{topic="a",partition="1"} 4
# TYPE stream_guard_oldest_unjudged_age_seconds gauge
stream_guard_oldest_unjudged_age_seconds{topic="a",partition="0"} 70
stream_guard_oldest_unjudged_age_seconds{topic="a",partition="1"} 2
# TYPE stream_guard_dead_letters counter
stream_guard_dead_letters_total{reason="json"} 2
other 5
"""


def test_metrics_are_summed_and_ages_are_the_largest() -> None:
    assert summed(PAGE) == {
        "stream_guard_lag_records": 7,
        "stream_guard_oldest_unjudged_age_seconds": 70,
        "stream_guard_dead_letters_total": 2,
    }


async def test_it_follows_the_metrics_of_a_service_and_says_when_there_are_none() -> None:
    import asyncio

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE)

    app = web.Application()
    app.add_routes([web.get("/metrics", page)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    told = asyncio.Event()

    class Told(LiveView):
        def show_metrics(self, samples: Any) -> None:  # noqa: ANN401
            super().show_metrics(samples)
            told.set()

        def show_metrics_error(self, why: str) -> None:
            super().show_metrics_error(why)
            told.set()

    for path, expected in (("metrics", "lag 7 records   oldest 70.0 s"), ("nothing", "--metrics")):
        told.clear()
        view = Told(0.0)
        task = asyncio.create_task(follow(f"http://127.0.0.1:{port}/{path}", view))
        await told.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert expected in shown(view, 1.0)
    await runner.cleanup()
