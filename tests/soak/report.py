"""The soak's table: a row for each seed and mode, and the faults with what they cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.soak.checker import Findings
    from tests.soak.facts import History

Row = tuple[str, ...]
COLUMNS: Row = (
    *(
        "seed",
        "mode",
        "posts",
        "poison",
        "aborted",
        "faults",
        "verdicts",
        "dead letters",
        "commits",
    ),
    *("lost", "other id", "premature", "went back", "aborted read", "repeated", "of aborted tx"),
    *("longest stall", "own exits"),
)
FAULT_COLUMNS: Row = ("fault", "times", "repeats after", "stall, median", "stall, longest")


def rows(results: Sequence[tuple[History, Findings]]) -> list[Row]:
    """Return a row for each history."""
    return [_row(history, found) for history, found in results]


def _row(history: History, found: Findings) -> Row:
    own = Counter(ended.code for ended in history.exits if not ended.asked)
    return (
        str(history.seed),
        history.mode,
        f"{found.inputs - found.poison:,}",
        f"{found.poison:,}",
        f"{found.aborted_inputs:,}",
        str(len(history.faults)),
        f"{found.verdicts:,}",
        f"{found.dead_letters:,}",
        f"{found.commits:,}",
        *(
            f"{len(facts):,}"
            for facts in (
                found.lost,
                found.wrong_id,
                found.premature,
                found.rewound,
                found.aborted_read,
                found.repeated,
            )
        ),
        f"{found.aborted_outcomes:,}",
        f"{found.stall_s_max:.1f} s",
        ", ".join(f"{n} x {code}" for code, n in sorted(own.items())) or "none",
    )


def fault_rows(results: Sequence[tuple[History, Findings]]) -> list[Row]:
    """Return a row for each kind of fault, over all histories."""
    stalls: dict[str, list[float]] = defaultdict(list)
    repeats: Counter[str] = Counter()
    for history, found in results:
        repeats.update(found.repeated_after)
        for fault, stall_s in zip(history.faults, found.stall_s, strict=True):
            stalls[fault.kind].append(stall_s)
    return [
        (
            kind,
            str(len(column)),
            f"{repeats[kind]:,}",
            f"{sorted(column)[len(column) // 2]:.1f} s",
            f"{max(column):.1f} s",
        )
        for kind, column in sorted(stalls.items())
    ]


def markdown(columns: Row, body: Sequence[Row]) -> str:
    """Return a table in Markdown."""
    lines = [columns, tuple("---" for _ in columns), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(title: str, columns: Row, body: Sequence[Row]) -> Table:
    """Return a table for a terminal."""
    made = Table(title=title)
    for column in columns:
        made.add_column(column)
    for row in body:
        made.add_row(*row)
    return made
