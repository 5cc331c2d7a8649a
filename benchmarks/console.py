"""Measures the console under load: its first paint, and how far it falls behind 10,000 verdicts a second.

A real broker gets verdicts at that rate from a process of its own, and a replica's page of metrics counts them. The
real ``stream-guard console`` reads both. A browser opens each page: the time to its first contentful paint is the
page's own. Then the live parts are followed, as a browser does: each verdict's id says when it was written, and the
policy of the counters when they were read. So the newest that a part shows says how old the part is. If the machine
cannot write at the rate, that is said, since the figures then say less.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import orjson
from aiohttp import web
from aiokafka import AIOKafkaProducer

from stream_guard.console.pages.registry import PAGES
from stream_guard.testing.broker import start_broker
from tests.console import open_browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAINT_S_MAX: Final = 1.0
BEHIND_S_MAX: Final = 2.0
VERDICTS: Final = "stream-guard.verdicts"
REVIEW: Final = "stream-guard.review"
PARTITIONS: Final = 12
_ADDRESS: Final = re.compile(r"(http://127\.0\.0\.1:\d+)/sign-in#(\S+)")
_TIMED: Final = re.compile(r"bench-(\d{13})-")
_TURN_S: Final = 0.05


class Load:
    """Writes verdicts at a rate, and counts them on a replica's page of metrics. It is the process of ``--load``.

    Args:
        servers: the brokers.
        rate: verdicts a second.
    """

    def __init__(self, servers: str, rate: int) -> None:
        self._servers = servers
        self._rate = rate
        self._sent = 0

    async def run(self) -> None:
        """Write until SIGTERM; print the metrics' port first, and the rate that was made last."""
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        runner = web.AppRunner(self._application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers, linger_ms=20, max_batch_size=1 << 20
        )
        await producer.start()
        started_s = time.monotonic()
        try:
            while not stopped.is_set():
                due = round((time.monotonic() - started_s) * self._rate) - self._sent
                await self._write(producer, due)
                await asyncio.sleep(_TURN_S)
            print(round(self._sent / (time.monotonic() - started_s)), flush=True)
        finally:
            await producer.stop()
            await runner.cleanup()

    async def _write(self, producer: AIOKafkaProducer, due: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        before, after = _template()
        for _ in range(due):
            name = f"bench-{now_ms}-{self._sent:09}".encode()
            await producer.send(
                VERDICTS, before + name + after, partition=self._sent % PARTITIONS, key=name
            )
            self._sent += 1

    def _application(self) -> web.Application:
        async def page(_request: web.Request) -> web.Response:
            policy = f"bench-{time.time_ns() // 1_000_000}-"
            labels = f'decision="safe",policy="{policy}",tier="rules",mode="live"'
            return web.Response(text=f"stream_guard_verdicts_total{{{labels}}} {self._sent}\n")

        app = web.Application()
        app.router.add_get("/metrics", page)
        return app


def _template() -> tuple[bytes, bytes]:
    """Return what is before and after the id of the post in a verdict."""
    from tests.verdicts import make_verdict

    verdict = make_verdict()
    verdict["content"]["id"] = "@"
    before, _, after = orjson.dumps(verdict).partition(b'"@"')
    return before + b'"', b'"' + after


@contextlib.asynccontextmanager
async def _load(servers: str, rate: int) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """Run the load in a process of its own; give the port of its metrics."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.console", "--load", servers, "--rate", str(rate)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None, "it is a pipe"
        yield int(await process.stdout.readline()), process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def _console(servers: str, metrics_port: int) -> AsyncIterator[tuple[str, str]]:
    """Run the console; give its address and its token."""
    with tempfile.TemporaryDirectory(prefix="stream-guard-bench-") as folder:
        kept = {name: value for name, value in os.environ.items() if "STREAM_GUARD_" not in name}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stream_guard", "console"),
            env=kept
            | {
                "STREAM_GUARD_CONSOLE__PORT": "0",
                "STREAM_GUARD_CONSOLE__METRICS_URLS": f'["http://127.0.0.1:{metrics_port}/metrics"]',
                "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": servers,
                "STREAM_GUARD_KAFKA__TOPICS": '["posts"]',
                "STREAM_GUARD_KAFKA__REVIEW_TOPIC": REVIEW,
                "STREAM_GUARD_REVIEW__DATABASE": str(Path(folder) / "review.sqlite"),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            assert process.stdout is not None, "it is a pipe"
            found = _ADDRESS.search((await process.stdout.readline()).decode())
            assert found is not None, "it prints its address"
            yield found[1], found[2]
        finally:
            process.terminate()
            await process.wait()


async def _paints(url: str, token: str) -> dict[str, list[float]]:
    """Return the seconds to the first contentful paint of each page, five times each."""
    found: dict[str, list[float]] = {}
    async with open_browser() as browser:
        page = await browser.new_page()
        await page.goto(f"{url}/sign-in#{token}")
        await page.wait_for_url(lambda address: "sign-in" not in address)
        for _ in range(5):
            for each in PAGES:
                await page.goto(f"{url}/{each.slug}")
                painted_ms = await page.evaluate(_FIRST_PAINT)
                found.setdefault(each.slug, []).append(painted_ms / 1_000)
    return found


_FIRST_PAINT: Final = """() => new Promise(resolve => new PerformanceObserver(list => {
  const paint = list.getEntriesByName("first-contentful-paint")[0];
  if (paint) resolve(paint.startTime);
}).observe({type: "paint", buffered: true}))"""


async def _ages(url: str, token: str, seconds: float) -> dict[str, list[float]]:
    """Follow the live parts that show verdicts; return how old each event's newest verdict was, in s, by part."""
    parts = [f"{page.slug}.{name}" for page in PAGES for name in page.live]
    ages: dict[str, list[float]] = {}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout()) as session:
        await session.post(f"{url}/sign-in", data={"token": token}, headers={"Origin": url})
        query = "&".join(f"part={part}" for part in parts)
        async with session.get(f"{url}/live?{query}") as answer:
            answer.raise_for_status()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await _follow(answer.content, ages)
    return ages


async def _follow(lines: aiohttp.StreamReader, ages: dict[str, list[float]]) -> None:
    rest = b""
    while piece := await lines.readany():
        *events, rest = (rest + piece).split(b"\n\n")
        now_s = time.time()
        for event in events:
            _, _, data = event.partition(b"data: ")
            if data:
                sent = orjson.loads(data)
                newest = max(map(int, _TIMED.findall(sent["html"])), default=0)
                if newest:
                    ages.setdefault(sent["part"], []).append(now_s - newest / 1_000)


async def _measure(servers: str, rate: int, seconds: float) -> int:
    async with _load(servers, rate) as (port, load), _console(servers, port) as (url, token):
        ages = await _ages(url, token, seconds)
        paints = await _paints(url, token)
        load.terminate()
        made, _ = await load.communicate()
    return _report(rate, int(made), paints, ages)


def _report(
    rate: int, made: int, paints: dict[str, list[float]], ages: dict[str, list[float]]
) -> int:
    missed = []
    print(f"verdicts a second: {made:,} written, {rate:,} wanted")
    if made < 0.95 * rate:
        missed.append("this machine could not write at that rate")
    print(f"\n{'page':<14} first paint, s: median   worst")
    for page, values in paints.items():
        print(f"{page:<14} {statistics.median(values):>22.2f} {max(values):>7.2f}")
        if statistics.median(values) > PAINT_S_MAX:
            missed.append(f"{page}: the first paint takes longer than {PAINT_S_MAX:g} s")
    print(f"\n{'part':<14} behind, s:      median   worst   events")
    for part, values in ages.items():
        print(f"{part:<14} {statistics.median(values):>22.2f} {max(values):>7.2f} {len(values):>8}")
        if max(values) > BEHIND_S_MAX:
            missed.append(f"{part}: falls behind by more than {BEHIND_S_MAX:g} s")
    if not ages:
        missed.append("no part showed a verdict")
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


def main() -> int:
    """Measure; return 1 if a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000, help="verdicts a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long parts are followed")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        asyncio.run(Load(asked.load, asked.rate).run())
        return 0
    with start_broker() as broker:
        broker.create_topics(VERDICTS, "posts", REVIEW, partitions=PARTITIONS)
        return asyncio.run(_measure(broker.bootstrap_servers, asked.rate, asked.seconds))


if __name__ == "__main__":
    sys.exit(main())
