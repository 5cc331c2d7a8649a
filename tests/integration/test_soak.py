"""A short soak: three real brokers, the real program, every kind of fault at least once, in every delivery mode.

There are two. One has many posts judged by rule, and every fault that needs no engine. The other has few posts, judged
by the real engine, whose process is killed. In a single soak each restart of a consumer would restart an engine too.
What they must never do: pass with a kind of fault left out. The table that a soak prints says what there was. Only the
clocks that jump are left to ``make soak``: they need libfaketime, which a machine may not have.
"""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.soak.checker import Findings, check, objections
from tests.soak.members import ROOT
from tests.soak.report import FAULT_COLUMNS, fault_rows
from tests.soak.schedule import CLOCK, ENGINE_KILL, deck
from tests.soak.soak import MODES, Options, engine_environment, soak

if TYPE_CHECKING:
    from pathlib import Path

    from tests.soak.facts import History

CARDS = [card for card in deck("scripted", short=True) if card[0] != CLOCK]
KINDS = {kind for kind, _ in deck("vllm")}
"""Every kind of fault that the long soak knows."""
SHORT_POLICIES = ("keep-or-remove", "numeric-labels")
"""Two of a hundred words: each start of the real engine reads them again, on a CPU."""

# Clients of this process lose connections at any moment. What they leave to the garbage collector is not tested here.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")


async def test_whatever_breaks_nothing_is_lost_and_nothing_is_committed_too_early(
    tmp_path: Path,
) -> None:
    options = Options(
        seed=1,
        posts=6_000,
        faults=len(CARDS),
        modes=MODES,
        engine="scripted",
        folder=tmp_path,
        short=True,
        without=(CLOCK,),
    )
    results = await soaked(options)
    assert_faults(results, KINDS - {ENGINE_KILL, CLOCK})
    for history, found in results:
        assert sorted(fault.kind for fault in history.faults) == sorted(kind for kind, _ in CARDS)
        # The soak can only find what it provokes.
        assert found.poison > 0
        assert found.aborted_inputs > 0
        assert found.overtaken > 0
        assert found.retractions >= found.deletes > 0
        assert found.events == found.decisions > 0
        assert found.answered > 0
        assert len(found.acted) > 0
        assert len(history.reads) == sum(outcome.committed for outcome in history.outcomes)


async def test_an_engine_that_is_killed_loses_nothing_either(
    tmp_path: Path, random_model: Path
) -> None:
    options = Options(
        seed=1,
        posts=14,  # and those that arrive while the engine starts
        faults=1,
        modes=MODES,
        engine="vllm",
        folder=tmp_path / "soak",
        short=True,
        only=(ENGINE_KILL,),
        policies=short_policies(tmp_path / "policies"),
        extra=tuple(engine_environment(random_model).items()),
    )
    results = await soaked(options)
    assert_faults(results, {ENGINE_KILL})
    for history, _ in results:
        # The engine was built again by the process that had it; no consumer ended over it.
        assert [ended for ended in history.exits if not ended.asked] == []


def assert_faults(results: list[tuple[History, Findings]], kinds: set[str]) -> None:
    """Assert that the table of each mode's faults has these kinds, each at least once, and no other."""
    kind, times = FAULT_COLUMNS.index("fault"), FAULT_COLUMNS.index("times")
    for result in results:
        table = fault_rows([result])
        assert {row[kind] for row in table if int(row[times])} == kinds, result[0].mode


def short_policies(folder: Path) -> Path:
    """Copy them, with a route to both."""
    for slug in SHORT_POLICIES:
        shutil.copytree(ROOT / "tests" / "data" / "policies" / slug, folder / slug)
    (folder / "routes.yaml").write_text(f"default: [{', '.join(SHORT_POLICIES)}]\n")
    return folder


async def soaked(options: Options) -> list[tuple[History, Findings]]:
    """Run one soak; return what was seen in each mode, to which there is no objection."""
    results = [(history, check(history)) for history in await soak(options, print)]
    assert [history.mode for history, _ in results] == list(MODES)
    for history, found in results:
        history.save(options.folder / f"{history.mode}.json.gz")
        # How long a start, a takeover or a stall takes beside other tests is the machine's business: here all that was
        # owed has to come, in any time. `make soak` has the limits.
        said = objections(found, history, stall_s_max=math.inf, takeover_s_max=math.inf)
        assert said == [], f"{history.mode}; see {options.folder}"
        assert found.inputs - found.poison >= options.posts
        assert found.verdicts >= 2 * options.posts
        print(f"{history.mode}: stalls of {found.stall_s} s")  # noqa: T201 - shown where it fails
    return results
