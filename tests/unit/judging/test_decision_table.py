"""The table of decisions keeps, of each subject, the decision with the highest rank; in any order, and any number."""

from __future__ import annotations

import functools
import random
import resource
import sqlite3
from typing import Any

import pytest

from stream_guard.core.errors import DecisionError, SettingsError
from stream_guard.judging.human.table import DecisionTable, Row, Unread
from stream_guard.records.decision import encode_decision
from tests.decisions import make_decision

SUBJECTS = 300


def history(count: int, dice: random.Random) -> list[Row]:
    """Decisions about few subjects, of which some are forgotten."""
    rows = []
    for number in range(count):
        content = {"id": f"p{dice.randrange(SUBJECTS)}"}
        at = 1_700_000_000_000 + dice.randrange(50)
        key, value, _ = encode_decision(
            decision := make_decision(id=f"d-{number}", decided_at=at, content=content)
        )
        rows.append(Row(None, None, key) if dice.random() < 0.05 else Row(decision, value, key))
    return rows


def expected(rows: list[Row]) -> dict[bytes | None, Any]:
    standing: dict[bytes | None, tuple[tuple[int, str], bytes | None]] = {}
    for decision, value, key in rows:
        if decision is None:
            standing.pop(key, None)
        elif key not in standing or (decision.decided_at, decision.id) > standing[key][0]:
            standing[key] = (decision.decided_at, decision.id), value
    return {key: value for key, (_, value) in standing.items()}


@pytest.mark.parametrize(
    ("count", "each"), [(5_000, 5_000), (5_000, 1_700), (999, 7), (1_000, 1_000)]
)
def test_the_highest_rank_stands_however_many_come_at_once(count: int, each: int) -> None:
    rows = history(count, random.Random(count + each))  # noqa: S311 - seeded, no secret
    table = DecisionTable()
    for begin in range(0, count, each):
        table.load(rows[begin : begin + each])
    wanted = expected(rows)
    assert {key: table.standing(key) for _, _, key in rows} == {
        key: wanted.get(key) for _, _, key in rows
    }
    assert len(table) == len(wanted)
    table.close()


@pytest.mark.parametrize("each", [5_000, 1_700, 1_000, 7])
def test_what_a_start_stages_stands_as_if_it_had_been_checked_at_once(each: int) -> None:
    rows = history(5_000, random.Random(each))  # noqa: S311 - seeded, no secret
    decisions = {row.value: row.decision for row in rows}
    refused = {value for number, value in enumerate(decisions) if number % 11 == 0}

    def read(key: bytes, value: bytes, timestamp_ms: int) -> Any:  # noqa: ANN401 - a decision
        assert (key, timestamp_ms) == (key, 17)
        if value in refused:
            raise DecisionError("no person can have made it")
        return decisions[value]

    table = DecisionTable(read=read)
    staged = [Unread(key or b"", 17, value, number) for number, (_, value, key) in enumerate(rows)]
    for begin in range(0, len(staged), each):
        table.stage(staged[begin : begin + each])
    table.settle()
    wanted = expected([row for row in rows if row.value is None or row.value not in refused])
    asked = sorted({key or b"" for _, _, key in rows})
    assert len(table) >= len(wanted)
    version = table.version
    assert {key: table.standing(key) for key in asked} == {key: wanted.get(key) for key in asked}
    assert len(table) == len(wanted)
    assert table.version == version, "asking changes nothing"
    table.close()


def test_what_comes_after_a_start_meets_what_the_start_has_not_checked() -> None:
    def read(_key: bytes, _value: bytes, _timestamp_ms: int) -> Any:  # noqa: ANN401 - a decision
        return newer

    newer, older = make_decision(id="b", decided_at=20), make_decision(id="a", decided_at=10)
    key, value, _ = encode_decision(newer)
    for change in ("apply", "load", "forget"):
        table = DecisionTable(read=read)
        table.stage([Unread(key, 1, value, 0)])
        table.settle()
        if change == "apply":
            assert table.apply(older, b"older") == "late"
        elif change == "load":
            table.load([Row(older, b"older", key)])
        else:
            table.forget(key)
        assert table.standing(key) == (None if change == "forget" else value)
        assert len(table) == (change != "forget")
        table.close()


def test_the_count_follows_every_change() -> None:
    table = DecisionTable()
    key, value, _ = encode_decision(decision := make_decision())
    assert len(table) == 0
    table.apply(decision, value)
    assert len(table) == 1
    table.load([])
    table.forget(key)
    assert len(table) == 0
    table.close()


@functools.cache
def many() -> list[Row]:
    """More decisions than fit into the smallest memory."""
    rows = []
    for number in range(6_000):
        decision = make_decision(id=f"d-{number}", content={"id": f"p{number}"})
        key, value, _ = encode_decision(decision)
        rows.append(Row(decision, value, key))
    return rows


def test_a_full_temporary_folder_is_named_with_what_helps() -> None:
    table = DecisionTable(1 << 20)
    table._database.execute("PRAGMA max_page_count = 40")  # SQLite answers as for a full disk
    with pytest.raises(SettingsError, match=r"decisions\.memory_bytes_max .*full.* set TMPDIR"):
        table.load(many())
    table.close()


def test_a_temporary_file_that_may_not_grow_is_named_with_what_helps() -> None:
    table = DecisionTable(1 << 20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(SettingsError, match=r"decisions\.memory_bytes_max .*I/O.* set TMPDIR"):
            table.load(many())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    table.close()


def test_an_error_that_is_no_lack_of_room_keeps_its_name() -> None:
    table = DecisionTable()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        table._database.execute("SELECT * FROM absent")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        table._database.executemany("DELETE FROM absent WHERE key = ?", [(1,)])
    table.close()
