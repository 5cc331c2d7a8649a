"""``python -m stream_guard.cli.demo.console``: what ``make demo-console`` runs.

Starts a broker, ``stream-guard run`` with the demo model and ``stream-guard console``, prints the console's address,
and feeds posts until SIGINT or SIGTERM. Then everything ends in order: the feeding, the console, and the consumer,
which drains first. A second signal ends it at once. It exits 0 if all of them ended well.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.cli.demo.environment import (
    OUTPUT,
    copy_policies,
    run_demo,
    say_progress,
    service_environment,
)
from stream_guard.cli.demo.posts import CHAT, FORUM, demo_posts
from stream_guard.cli.demo.process import Program
from stream_guard.cli.demo.stream import DEAD_LETTERS, VERDICTS, feed
from stream_guard.cli.terminal import say
from stream_guard.core.exit_codes import ExitCode
from stream_guard.testing.broker import Broker
from stream_guard.testing.broker.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Coroutine

REVIEW: Final = "stream-guard.review"
AUDIT: Final = "stream-guard.review-audit"
_PAUSE_S: Final = 1.0
"""Between two posts: slow enough to read along, and little work for a laptop."""
_START_S: Final = 600.0
_STOP_S: Final = 60.0


def _environment(broker: Broker) -> dict[str, str]:
    """Return the environment of both programs: people's decisions, a review queue, and where the metrics are."""
    [port] = free_ports(1)
    database = OUTPUT / "review.sqlite"
    for file in OUTPUT.glob(f"{database.name}*"):
        file.unlink()  # of an earlier run, whose topics are gone
    return service_environment(broker, copy_policies()) | {
        "STREAM_GUARD_HTTP__PORT": str(port),
        "STREAM_GUARD_CONSOLE__METRICS_URLS": orjson.dumps(
            [f"http://127.0.0.1:{port}/metrics"]
        ).decode(),
        # Who tries a draft starts an engine for it. Until then there is none.
        "STREAM_GUARD_CONSOLE__ENGINE": "own",
        "STREAM_GUARD_KAFKA__REVIEW_TOPIC": REVIEW,
        "STREAM_GUARD_KAFKA__AUDIT_TOPIC": AUDIT,
        "STREAM_GUARD_REVIEW__DATABASE": str(database),
        "STREAM_GUARD_REVIEW__SAMPLE": '{"*": {"*": 0.2}}',
        # The same posts come round and round: known answers and the model both have something to do.
        "STREAM_GUARD_CASCADE__DUPLICATES_TTL_S": "60",
    }


async def _feed(broker: Broker, consumer: Program) -> None:
    spent_s = await consumer.until("ready", _START_S, waiting_for="the engine is starting")
    say_progress(f"the engine is ready after {spent_s:.0f} s; posts are flowing until Ctrl-C")
    for number in count():
        await feed(broker, demo_posts(number), broken=True, pause_s=_PAUSE_S)


async def _show(console: Program) -> None:
    """Print the address and the token."""
    line = await console.printed(_START_S, waiting_for="the console is starting")
    address, _, token = line.removeprefix("console: ").partition("#")
    say(f"The console: {address}#{token}", style="bold")
    say(f"Or open {address} and sign in as a lead by the token {token}")
    say_progress("The token is for development only: it is valid for this run, on this machine.")


async def _ended(program: Program) -> None:
    """Raise EngineError once a program has ended by itself."""
    await program.wait()
    raise await program.failure("in the middle")


async def _until_stopped(stopped: asyncio.Event, *works: Coroutine[None, None, None]) -> None:
    """Do all works until the event is set, or one of them fails, which is raised."""
    stopping = asyncio.create_task(stopped.wait())
    tasks: set[asyncio.Task[None]] = {asyncio.create_task(work) for work in works}
    waiting: set[asyncio.Task[Any]] = {stopping, *tasks}
    try:
        while not stopping.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)


async def _run(broker: Broker) -> int:
    environment = _environment(broker)
    main, stopped = asyncio.current_task(), asyncio.Event()
    assert main is not None, "asyncio runs us"

    def stop() -> None:
        if stopped.is_set():
            main.cancel()
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with (
        Program(
            "the consumer", "run", environment, OUTPUT / "consumer.log", say_progress
        ) as consumer,
        Program(
            "the console", "console", environment, OUTPUT / "console.log", say_progress
        ) as console,
    ):
        await _until_stopped(
            stopped, _show(console), _feed(broker, consumer), _ended(consumer), _ended(console)
        )
        say_progress("stopping the console, and the consumer once it has drained")
        codes = [await console.stop(_STOP_S), await consumer.stop(_STOP_S)]
    if any(codes):
        say(f"the console exited {codes[0]}, the consumer {codes[1]}", style="red")
        return ExitCode.UNEXPECTED
    say(f"Everything is stopped. The logs are in {OUTPUT}.")
    return ExitCode.CLEAN


def main() -> int:
    """Run the demo; return its exit code."""
    return run_demo(_run, FORUM, CHAT, VERDICTS, DEAD_LETTERS, REVIEW, AUDIT)


if __name__ == "__main__":
    sys.exit(main())
