"""The comparison of a backfill with ``classify``: its rates and ratios."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.backfill import Round, Run, Watch, compare, rates


def test_the_rate_without_the_start_is_what_further_posts_cost() -> None:
    found = rates([Round(Run(1_000, 100, 30.0, 40.0), Run(100, 10, 12.0, 20.0))])
    assert found == {"whole": pytest.approx(1_000 / 30), "judging": pytest.approx(900 / 18)}


@pytest.mark.parametrize("small_s", [30.0, 31.0])
def test_a_difference_that_the_start_hides_is_unknown_and_ends_nothing(small_s: float) -> None:
    found = rates([Round(Run(300, 0, 30.0, 40.0), Run(100, 0, small_s, 40.0))])
    assert found == {"whole": 10.0, "judging": None}
    ratios = compare({"backfill": found, "classify": {"whole": 20.0, "judging": 50.0}}, "classify")
    assert ratios == {"whole": 0.5, "judging": None}


def test_one_slow_start_of_three_changes_no_rate() -> None:
    usual = Round(Run(1_000, 100, 30.0, 40.0), Run(100, 10, 12.0, 20.0))
    slow_first = Round(Run(1_000, 100, 30.5, 40.0), Run(100, 10, 29.0, 60.0))
    slow_whole = Round(Run(1_000, 100, 60.0, 90.0), Run(100, 10, 12.0, 20.0))
    found = rates([slow_first, usual, slow_whole])
    assert found == {"whole": pytest.approx(1_000 / 30.5), "judging": pytest.approx(900 / 18)}


_BUSY = """
import sys, time
while time.process_time() < 0.3: pass
print("used", flush=True)
sys.stdin.read()
"""
_UNCOUNTED = f"""
import signal, subprocess, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", {_BUSY!r}]).wait()
"""
"""A parent that ignores how its child ends: the kernel forgets what the child used."""


def test_a_childs_time_counts_although_its_parent_ignores_how_it_ends() -> None:
    watch = Watch()
    watch.start()
    words = [sys.executable, "-c", _UNCOUNTED]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"used\n"
        watch.sample()
    assert watch.stop() >= 0.3
