"""What stands still is found, told of with every stack, and nothing that merely waits is taken for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.core.errors import BrokerError, StallError
from stream_guard.core.kafka_types import Partition
from stream_guard.service.health.stall import HeadOfLine, StallDetector, StallLimits, task_stacks
from stream_guard.settings import Settings
from stream_guard.stream.progress import Head, Progress
from tests.hang import HANG_S

if TYPE_CHECKING:
    from stream_guard.core.errors import StreamGuardError

LIMITS = StallLimits(poll_s=30, progress_s=100, oldest_s=500)
MOVING = Progress(
    turns=0,
    finished=0,
    committed=0,
    in_flight=5,
    uncommitted=True,
    oldest_s=1,
    engine_ready=True,
)


def seconds_until_stalled(
    last_s: int = 1_000,
    *,
    still: tuple[str, ...] = (),
    **fixed: Any,  # noqa: ANN401
) -> tuple[int, StreamGuardError | None]:
    """Look once a second while all counts grow but those in ``still``; return when a stall was found, and which."""
    detector = StallDetector(LIMITS, tick_s=1)
    for now_s in range(last_s):
        counts = {name: now_s for name in ("turns", "finished", "committed") if name not in still}
        found = detector.check(MOVING._replace(**counts, **fixed), now_s)
        if found is not None:
            return now_s, found
    return last_s, None


def test_what_moves_is_left_alone() -> None:
    assert seconds_until_stalled() == (1_000, None)


def test_a_poll_loop_that_does_not_turn_is_a_stall() -> None:
    at_s, found = seconds_until_stalled(still=("turns",))
    assert at_s == 31
    assert isinstance(found, StallError)
    assert "poll loop" in str(found)
    assert found.exit_code == 1


def test_records_in_flight_of_which_none_is_finished_are_a_stall() -> None:
    at_s, found = seconds_until_stalled(still=("finished",), uncommitted=False)
    assert at_s == 101
    assert "delivery.stall_timeout_s" in str(found)


@pytest.mark.parametrize("fixed", [{"in_flight": 0}, {"engine_ready": False}])
def test_without_records_or_an_engine_nothing_need_be_finished(fixed: dict[str, Any]) -> None:
    still = ("finished", "committed")
    assert seconds_until_stalled(still=still, uncommitted=False, oldest_s=9_999, **fixed)[1] is None


def test_positions_that_are_due_and_never_committed_are_the_brokers() -> None:
    at_s, found = seconds_until_stalled(still=("committed",))
    assert at_s == 101
    assert isinstance(found, BrokerError)
    assert found.exit_code == 3


def test_a_broker_that_is_away_is_no_stall() -> None:
    still = ("committed", "finished")
    assert seconds_until_stalled(still=still, in_flight=0)[1] is None


def test_a_record_too_long_in_flight_is_a_stall() -> None:
    at_s, found = seconds_until_stalled(oldest_s=9_999)
    assert at_s == 501, "its time without an engine does not count"
    assert "delivery.record_age_s_max" in str(found)


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    detector = StallDetector(LIMITS, tick_s=1)
    assert detector.check(MOVING, 0) is None
    assert detector.check(MOVING, 5_000) is None


def test_a_stall_time_below_that_of_the_parts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"delivery\.stall_timeout_s must exceed"):
        Settings(delivery={"stall_timeout_s": 100})  # type: ignore[arg-type]
    assert Settings().stall_s == 120 + 120 + 60


def test_a_delay_on_purpose_is_shorter_than_a_stall() -> None:
    assert Settings().delay_s == 60
    assert Settings(delivery={"record_age_s_max": 20}).delay_s == 10  # type: ignore[arg-type]
    assert Settings(lanes={"delay_s_max": 9_999}).delay_s == (120 + 120 + 60) / 2  # type: ignore[arg-type]


def test_an_old_head_that_waits_on_purpose_is_told_of_only_if_it_holds_back_many() -> None:
    heads = HeadOfLine(age_s_max=10, held_back_max=100)
    patient, wide = (one._replace(patient=True) for one in (head(0, 9_999), head(1, 9_999, 101)))
    assert heads.update([patient, wide], 0) == [wide]


def head(partition: int, age_s: float, held_back: int = 0) -> Head:
    return Head(Partition("posts", partition), 7, age_s, held_back)


def test_a_head_that_is_old_or_holds_back_many_is_told_of_now_and_then() -> None:
    heads = HeadOfLine(age_s_max=10, held_back_max=100, repeat_s=60)
    fine, old, wide = head(0, 10, 100), head(1, 11), head(2, 1, 101)
    assert heads.update([fine, old, wide], 0) == [old, wide]
    assert heads.hindering == [old, wide]
    assert heads.update([fine, old, wide], 59) == []
    assert heads.hindering == [old, wide]
    assert heads.update([fine, old], 60) == [old]
    assert heads.update([fine, old, wide], 61) == [wide], "it had gone in between"


async def test_stacks_show_where_each_task_waits_down_to_the_innermost() -> None:
    async def innermost() -> None:
        await asyncio.Event().wait()

    async def outer() -> None:
        await innermost()

    task = asyncio.create_task(outer(), name="stuck")
    await asyncio.sleep(0)
    (stack,) = [lines for name, lines in task_stacks().items() if name.endswith(":stuck")]
    assert [line.rpartition(".")[2] for line in stack] == ["outer", "innermost", "wait"]
    task.cancel()


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def test_an_event_loop_that_stands_still_ends_the_process_with_its_stacks() -> None:
    done = run(
        """
        import asyncio, threading
        from stream_guard.service.health.watchdog import LoopWatchdog

        def block_for_ever():
            threading.Event().wait()

        async def main():
            async with LoopWatchdog(0.5, tick_s=0.05):
                await asyncio.sleep(0.01)
                block_for_ever()

        asyncio.run(main())
        """
    )
    assert done.returncode == 1
    assert "block_for_ever" in done.stderr
    assert "delivery.loop_timeout_s" in done.stdout + done.stderr


def test_a_stop_that_does_not_come_to_its_end_is_ended() -> None:
    done = run(
        """
        import asyncio
        from stream_guard.service.health.watchdog import LoopWatchdog

        async def main():
            async with LoopWatchdog(60, tick_s=0.05) as watchdog:
                watchdog.end_within(0.2, 3)
                await asyncio.Event().wait()

        asyncio.run(main())
        """
    )
    assert done.returncode == 3


def test_a_process_that_was_stopped_for_a_while_goes_on() -> None:
    done = run(
        """
        import asyncio, os, signal, subprocess, sys
        from stream_guard.service.health.watchdog import LoopWatchdog

        async def main():
            async with LoopWatchdog(1.5, tick_s=0.1):
                wake = f"import os, signal, time; time.sleep(3); os.kill({os.getpid()}, signal.SIGCONT)"
                child = subprocess.Popen([sys.executable, "-c", wake])
                os.kill(os.getpid(), signal.SIGSTOP)
                await asyncio.sleep(0.5)
                child.wait()
            print("went on")

        asyncio.run(main())
        """
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")
