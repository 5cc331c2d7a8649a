"""The capacity formula, and the run of all benchmarks, in what they reckon."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import pytest

from benchmarks import __main__ as everything
from benchmarks.capacity import Costs, Load, load_of, solve, workloads
from benchmarks.report import Report
from benchmarks.workload import EFFORTS, board_of

COSTS = Costs(20e-6, 50e-6)


def _load(uncached: float, generated: float) -> Load:
    return Load(1 / COSTS.post_s(uncached, generated), uncached, generated)


def test_two_runs_give_the_costs() -> None:
    found = solve(_load(200, 30), _load(60, 150))
    assert found == pytest.approx(COSTS)


def test_runs_too_alike_give_none() -> None:
    assert solve(_load(100, 50), _load(200, 101)) is None


def test_a_negative_cost_is_none() -> None:
    assert solve(Load(100, 200, 30), Load(1, 60, 150)) is None


def test_a_run_says_its_tokens_per_post() -> None:
    run = {"rate": 8.0, "prompt_tokens": 5_000, "cached_tokens": 4_000, "output_tokens": 300}
    assert load_of(run, 10) == Load(8.0, 100.0, 30.0)
    with pytest.raises(ValueError, match="without a rate"):
        load_of(run | {"rate": None}, 10)


def test_the_workloads_differ_in_length_and_effort() -> None:
    found = workloads(0, 30)
    long, short, mixed = (found[kind] for kind in found)
    assert min(len(post.value) for post in long) > max(len(post.value) for post in short)
    assert {EFFORTS[board_of(post) % 3][0] for post in long} == {"low"}
    assert {EFFORTS[board_of(post) % 3][0] for post in short} == {"high"}
    assert {EFFORTS[board_of(post) % 3][0] for post in mixed} == {"low", "medium", "high"}
    assert {len(posts) for posts in found.values()} == {30}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, str | None]]:
    """Benchmarks by name, as (exit code, state of their target, or None for no report)."""
    outcomes: dict[str, tuple[int, str | None]] = {}

    def run(command: list[str]) -> int:
        name = command[2].removeprefix("benchmarks.")
        assert command[:2] == [sys.executable, "-m"]
        code, state = outcomes[name]
        if state is not None:
            report = Report(name, "", {})
            report.aim("ratio", 1.0 if state == "reached" else 0.0, at_least=0.5)
            report.write(Path(command[4]))
        return code

    monkeypatch.setattr(everything, "run_one", run)
    return outcomes


@pytest.mark.parametrize(
    ("outcome", "code", "complaint"),
    [
        ((0, "reached"), 0, None),
        ((1, "missed"), 1, None),
        ((3, None), 1, "serving ended with 3 and left no report"),
        ((2, "reached"), 1, "serving ended with 2"),
    ],
)
def test_all_hands_on_what_one_says(
    ran: dict[str, tuple[int, str | None]],
    outcome: tuple[int, str | None],
    code: int,
    complaint: str | None,
    tmp_path: Path,
) -> None:
    ran |= {"engine_feed": (0, "reached"), "serving": outcome}
    report = Report("all", "", {})
    # Of an earlier run: not to be taken for this one's.
    earlier = Report("serving", "", {})
    earlier.aim("ratio", 0.0, at_least=0.5)
    earlier.write(tmp_path / "serving").rename(tmp_path / "serving" / "serving-20200101T000000Z")
    everything.run_all(["engine_feed", "serving"], tmp_path, [], report)
    assert report.exit_code == code
    assert report.complaints == ([complaint] if complaint else [])
    table = report.document()["tables"][0]["rows"]
    assert table[0]["benchmark"] == "engine_feed"
    assert orjson.dumps(table)
