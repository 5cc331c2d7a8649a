"""The soak's tables: one of what came of each seed and mode, one of what each kind of fault cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypeAlias

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.soak.checker import Findings
    from tests.soak.facts import History

Row: TypeAlias = tuple[str, ...]
FAULT_COLUMNS: Row = (
    "fault",
    "times",
    "repeats by it",
    "stall, median",
    "stall, longest",
    "takeover, median",
    "takeover, longest",
)


def outcome_rows(results: Sequence[tuple[History, Findings]]) -> list[Row]:
    """Return the rows of the first table, its heading first: a column for each history."""
    columns = [_column(history, found) for history, found in results]
    return [(name, *(column[name] for column in columns)) for name in columns[0]]


def _column(history: History, found: Findings) -> dict[str, str]:
    own = Counter(ended.code for ended in (*found.own_exits, *found.crashed))
    return {
        "": f"seed {history.seed}, {history.mode}",
        "posts": f"{found.inputs - found.poison - found.deletes:,}",
        "deletions": f"{found.deletes:,}",
        "decisions": f"{found.decisions:,}",
        "malformed records": f"{found.poison:,}",
        "records of aborted transactions": f"{found.aborted_inputs:,}",
        "faults": str(len(history.faults)),
        "verdicts": f"{found.verdicts:,}",
        "dead letters": f"{found.dead_letters:,}",
        "retractions of deleted posts": f"{found.retractions:,}",
        "events of decisions": f"{found.events:,}",
        "decisions without an event": f"{len(found.undecided):,}",
        "verdicts by a person's decision": f"{found.answered:,}",
        "verdicts against a person's decision": f"{len(found.overruled) + len(found.resurrected):,}",
        "commits": f"{found.commits:,}",
        "lost": f"{len(found.lost):,}",
        "with another id": f"{len(found.wrong_id):,}",
        "another record's content, or of the wrong kind": f"{len(found.crossed) + len(found.undue):,}",
        "of no record, or of an aborted one": f"{len(found.phantom) + len(found.aborted_read):,}",
        "overtaken by retention": f"{found.overtaken:,}",
        "overtaken, and not logged": f"{len(found.silent):,}",
        "read meanwhile": f"{len(history.reads):,}",
        "read wrongly, twice or never": f"{len(found.dirty) + len(found.disordered) + len(found.unread):,}",
        "generations of the group": f"{len(history.generations):,}",
        "verdicts with an action": f"{len(found.acted):,}",
        "actions above their limit": f"{len(found.overrun):,}",
        "premature commits": f"{len(found.premature):,}",
        "commits that went back": f"{len(found.rewound):,}",
        "repeated, as read_committed reads": f"{len(found.repeated) + len(found.copied):,}",
        "of aborted transactions of ours": f"{found.aborted_outcomes:,}",
        "longest time without progress": f"{found.stall_s_max:.1f} s",
        "longest takeover": _seconds(max(_known(found.takeover_s), default=None)),
        "peak resident size of a consumer": f"{history.peak_bytes >> 20:,} MiB",
        "consumers' exits, refused by the brokers": f"{found.refused_exits:,}",
        "consumers' exits of their own, by code": ", ".join(
            f"{count} x {code}" for code, count in sorted(own.items())
        )
        or "none",
    }


def fault_rows(results: Sequence[tuple[History, Findings]]) -> list[Row]:
    """Return a row for each kind of fault, over all histories."""
    stalls: dict[str, list[float]] = defaultdict(list)
    takeovers: dict[str, list[float]] = defaultdict(list)
    repeats: Counter[str] = Counter()
    for history, found in results:
        repeats.update(found.repeated_by)
        for fault, stall_s, taken_s in zip(
            history.faults, found.stall_s, found.takeover_s, strict=True
        ):
            stalls[fault.kind].append(stall_s)
            takeovers[fault.kind].extend(_known([taken_s]))
    return [
        (
            kind,
            str(len(column)),
            f"{repeats[kind]:,}",
            _seconds(_median(column)),
            _seconds(max(column)),
            _seconds(_median(takeovers[kind])),
            _seconds(max(takeovers[kind], default=None)),
        )
        for kind, column in sorted(stalls.items())
    ]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} s"


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
