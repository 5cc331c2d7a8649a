"""Consumers get a person's verdicts, retractions and expiries as typed events, and the example service undoes."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from examples.undoing_enforcement import SCHEMA, expire, handle
from stream_guard.client import Verdict, Window, parse_verdict
from stream_guard.client.filters import Wanted
from stream_guard.records.verdict_changes import decided_event, deleted_event
from stream_guard.records.verdict_event import encode_verdict
from tests.decisions import make_decision
from tests.verdicts import FakeRecord, make_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator


def machine(**changes: Any) -> Verdict:  # noqa: ANN401
    made = make_verdict(offset=0, decision="violates", category="S1") | changes
    return parse_verdict(encode_verdict(made))


def decided(kind: str = "review", *, stands: bool = True, **changes: Any) -> Verdict:  # noqa: ANN401
    decision = make_decision(kind, **changes)
    assert decision.about is not None
    made = decided_event(
        decision, decision.about, FakeRecord(), stands=stands, consumed_ms=5, published_ms=6
    )
    return parse_verdict(encode_verdict(made))


def deleted(content_id: str | None, key: bytes | None = b"k") -> Verdict:
    record = FakeRecord(offset=9, partition=0, key=key)
    return parse_verdict(
        encode_verdict(deleted_event(record, content_id, consumed_ms=5, published_ms=6))
    )


def test_each_event_says_what_it_is() -> None:
    assert machine().event == "verdict"
    assert not machine().is_human
    person = decided(valid_until=10)
    assert (person.event, person.is_human, person.revision) == ("verdict", True, 1_700_000_001_000)
    assert person.supersedes == machine().id
    assert person.is_valid_at(9)
    assert not person.is_valid_at(10)
    assert decided("retraction").event == deleted("p0").event == "retraction"
    assert decided("expiry").event == "expiry"
    assert decided("expiry").expired == machine().id


@pytest.mark.parametrize("event", [decided("retraction"), decided("expiry"), deleted("p0")])
def test_only_a_service_that_asks_for_events_gets_them(event: Verdict) -> None:
    assert not Wanted(decisions=["violates", "undetermined"]).wants(event)
    assert Wanted(decisions=["violates"], events=True).wants(event)
    assert not Wanted(policies=["other"], events=True).wants(decided())


def test_a_deletion_concerns_every_policy_and_a_late_decision_nobody() -> None:
    assert Wanted(policies=["spam"], events=True).wants(deleted("p0"))
    assert Wanted(decisions=["violates"], events=True).wants(decided())
    assert not Wanted(decisions=["violates"]).wants(decided())
    assert not Wanted(decisions=None, events=True).wants(decided(stands=False))


def test_a_person_overrules_the_machine_on_the_same_text_by_the_same_policy() -> None:
    window = Window(10)
    window.remember(decided(valid_until=10))
    assert window.is_overruled(machine(), now_ms=9)
    assert not window.is_overruled(machine(), now_ms=10)
    edited = machine(content=machine().content.model_dump() | {"sha256": "1" * 64})
    assert not window.is_overruled(edited, now_ms=9)
    assert window.is_overruled(decided(id="a", decided_at=1), now_ms=9)
    assert not window.is_overruled(decided(id="z", decided_at=1_700_000_001_001), now_ms=9)


def test_a_verdict_taken_back_overrules_nothing() -> None:
    window = Window(10)
    window.note(decided())
    window.note(decided("retraction", id="d-2", decided_at=1_700_000_001_001))
    assert not window.is_overruled(machine(), now_ms=9)


# The example service


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:")
    made.executescript(SCHEMA)
    yield made
    made.close()


def log(database: sqlite3.Connection) -> list[str]:
    return [what for (what,) in database.execute("SELECT what FROM log ORDER BY number")]


def test_the_service_undoes_what_a_person_overrules_and_does_not_do_it_again(
    database: sqlite3.Connection,
) -> None:
    for event in (machine(), machine(), decided(), decided(), machine(id="f" * 32)):
        handle(database, event)
    assert log(database) == ["remove", "undo remove"]


@pytest.mark.parametrize(
    "event", [deleted("p0", None), deleted(None), decided("retraction"), decided("expiry")]
)
def test_the_service_undoes_what_is_taken_back_or_expired(
    database: sqlite3.Connection, event: Verdict
) -> None:
    handle(database, machine())
    handle(database, event)
    assert log(database) == ["remove", "undo remove"]


def test_the_service_undoes_by_the_clock_and_keeps_what_is_the_same(
    database: sqlite3.Connection,
) -> None:
    handle(database, machine(valid_until=10))
    handle(database, machine(id="e" * 32, valid_until=10))
    expire(database, 9)
    assert log(database) == ["remove"]
    expire(database, 10)
    assert log(database) == ["remove", "undo remove"]
