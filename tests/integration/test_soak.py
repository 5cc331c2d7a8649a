"""A short soak: three real brokers, the real program, every kind of fault, in every delivery mode at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak.checker import check, objections
from tests.soak.schedule import deck
from tests.soak.soak import MODES, Options, soak

if TYPE_CHECKING:
    from pathlib import Path

CARDS = deck("scripted", short=True)


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
    )
    histories = await soak(options, print)
    assert [history.mode for history in histories] == list(MODES)
    for history in histories:
        history.save(tmp_path / f"{history.mode}.json.gz")
        found = check(history)
        assert objections(found, history) == [], f"{history.mode}; see {tmp_path}"
        assert sorted(fault.kind for fault in history.faults) == sorted(kind for kind, _ in CARDS)
        # The soak can only find what it provokes.
        assert found.inputs - found.poison >= options.posts
        assert found.poison > 0
        assert found.aborted_inputs > 0
        assert found.verdicts >= 2 * options.posts
