"""Takes the engine away for five minutes while posts arrive: do memory, membership and positions hold?

Uses a real broker, the whole consumer in one process, and a producer in another. The judge answers at once, dies, stays
away for ``--minutes``, and returns. Prints the growth of resident memory during the outage, the rebalances, the records
taken meanwhile, and the time until the backlog was gone. Exits with 1 if memory grew by 10 % or more, if the group
rebalanced, or if a verdict is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from aiokafka import AIOKafkaProducer

from benchmarks.pipeline import fill, post

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).resolve().parent.parent
_GROWTH_MAX = 0.10
_POLICIES = 2
"""That judge each post, by the example routes."""
_WARM_UP = 50_000
"""Posts judged before the outage, so that the allocator's high-water mark comes from work and not from the start."""


async def produce(bootstrap: str, topic: str, seconds: float, rate_max: int) -> int:
    """Send posts for so long, at most so many a second; return how many."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks=1, linger_ms=20, max_batch_size=1 << 18
    )
    await producer.start()
    began, sent = time.monotonic(), 0
    try:
        while (passed := time.monotonic() - began) < seconds:
            if sent > passed * rate_max:
                await asyncio.sleep(0.01)
                continue
            for _ in range(100):
                await producer.send(topic, post(sent), key=b"%d" % (sent % 1_000))
                sent += 1
    finally:
        await producer.stop()
    return sent


def service(settings: Any) -> tuple[Any, asyncio.Event, Callable[[], None]]:
    """Return the consumer, what lets its engine start, and what kills the engine."""
    from stream_guard.core.clock import SystemClock
    from stream_guard.core.errors import EngineError
    from stream_guard.judging.engine.scripted import ScriptedJudge
    from stream_guard.judging.engine.supervisor import SupervisedJudge
    from stream_guard.service.app import App
    from stream_guard.telemetry.metrics import Metrics

    may_start, engines = asyncio.Event(), []

    class Engine(ScriptedJudge):
        def __init__(self) -> None:
            super().__init__()
            self.dead = asyncio.Event()
            engines.append(self)

        async def start(self, policies: Any) -> None:
            await may_start.wait()
            await super().start(policies)

        async def wait_failed(self) -> BaseException:
            await self.dead.wait()
            return EngineError("killed by the benchmark")

        async def kill(self) -> None:
            self.dead.set()

    metrics = Metrics()
    app: Any = None
    judge = SupervisedJudge(
        Engine,
        settings.engine,
        clock=SystemClock(),
        metrics=metrics,
        changed=lambda state: app.engine_changed(state),  # noqa: PLW0108 - the app is made after its judge
    )
    app = App(settings, judge=judge, metrics=metrics)
    return app, may_start, lambda: engines[-1].dead.set()  # noqa: PLW0108 - there is none yet


def total(app: Any, name: str) -> float:
    """Return the sum of a counter over its labels."""
    return math.fsum(
        sample.value
        for metric in app.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == name
    )


async def finished(app: Any, task: asyncio.Task[None], records: int) -> None:
    """Return once so many records were finished and none is in flight."""
    while app._poll_loop is None or app._poll_loop._pipeline.finished < records:  # noqa: SLF001
        if task.done():
            task.result()
        await asyncio.sleep(0.1)


async def measure(settings: Any, seconds: float, rate_max: int) -> int:
    """Run it; return the exit code."""
    bootstrap, (topic,) = settings.kafka.bootstrap_servers, settings.kafka.topics
    app, may_start, kill = service(settings)
    may_start.set()
    running = asyncio.create_task(app.run())
    await finished(app, running, _WARM_UP)
    may_start.clear()
    kill()
    while app.health.engine_ready:  # noqa: ASYNC110 - a flag of the program, which wakes nobody
        await asyncio.sleep(0.05)
    command = [sys.executable, "-m", "benchmarks.engine_down", "--produce", bootstrap, topic]
    command += ["--minutes", str(seconds / 60), "--rate", str(rate_max)]
    producer = await asyncio.create_subprocess_exec(
        *command, cwd=_ROOT, stdout=asyncio.subprocess.PIPE
    )
    process, sizes = psutil.Process(), []
    taken = total(app, "stream_guard_records_total")
    talking = asyncio.create_task(producer.communicate())
    while not talking.done():
        sizes.append(process.memory_info().rss)
        await asyncio.wait([talking], timeout=1)
    sent = int((await talking)[0])
    taken = total(app, "stream_guard_records_total") - taken
    away_turns = app._poll_loop.turns  # noqa: SLF001
    began = time.monotonic()
    may_start.set()
    await finished(app, running, _WARM_UP + sent)
    drained_s = time.monotonic() - began
    rebalances = total(app, "stream_guard_rebalances_total") - 1
    app.stop()
    await running
    owed = _POLICIES * (_WARM_UP + sent)
    growth = max(sizes) / sizes[0] - 1
    verdicts = total(app, "stream_guard_verdicts_total")
    print(
        f"engine away {seconds:.0f} s, {sent} posts arrived ({sent / seconds:.0f}/s), {taken:.0f} taken meanwhile, "
        f"poll loop turns {away_turns}\n"
        f"resident memory {sizes[0] / 2**20:.1f} MiB at first, {max(sizes) / 2**20:.1f} MiB at most: {growth:+.2%}\n"
        f"rebalances {rebalances:.0f}\n"
        f"backlog of {sent} drained in {drained_s:.1f} s ({sent / drained_s:.0f}/s); verdicts {verdicts:.0f} of {owed}"
    )
    return int(growth >= _GROWTH_MAX or rebalances > 0 or verdicts != owed)


def main() -> int:
    """Measure, or produce posts for the measuring process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rate", type=int, default=5_000, help="posts a second, at most")
    parser.add_argument("--produce", nargs=2, metavar=("BOOTSTRAP", "TOPIC"))
    options = parser.parse_args()
    seconds = 60 * options.minutes
    if options.produce:
        servers, topic = options.produce
        print(asyncio.run(produce(servers, topic, seconds, options.rate)))
        return 0
    from stream_guard.settings import load_settings
    from stream_guard.testing import start_broker

    topics = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("posts", "verdicts", "dead")]
    with start_broker() as broker:
        asyncio.run(fill(broker.bootstrap_servers, topics, topics[0], _WARM_UP))
        policies = _ROOT / "policies"
        os.environ |= {
            "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "STREAM_GUARD_KAFKA__TOPICS": f'["{topics[0]}"]',
            "STREAM_GUARD_KAFKA__VERDICT_TOPIC": topics[1],
            "STREAM_GUARD_KAFKA__DEAD_LETTER_TOPIC": topics[2],
            "STREAM_GUARD_KAFKA__MAX_POLL_INTERVAL_MS": "30000",
            "STREAM_GUARD_POLICIES__PATH": str(policies),
            "STREAM_GUARD_HTTP__HOST": "127.0.0.1",
            "STREAM_GUARD_HTTP__PORT": "0",
        }
        return asyncio.run(measure(load_settings(), seconds, options.rate))


if __name__ == "__main__":
    sys.exit(main())
