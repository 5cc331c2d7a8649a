"""Every event that changes a verdict has a verdict's shape, a deterministic id, and harms no reader of version 1.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from stream_guard.client import parse_verdict
from stream_guard.records.contracts import reader_schema, writer_schema
from stream_guard.records.verdict_changes import decided_event, deleted_event, superseding_id
from stream_guard.records.verdict_event import VerdictEvents, encode_verdict
from tests.decisions import make_decision
from tests.verdicts import FakeRecord

ROOT = Path(__file__).resolve().parents[3]
STRICT = Draft202012Validator(writer_schema("verdict-1.1.json"))
READER = Draft202012Validator(reader_schema("verdict-1.1.json"))
RELEASED = json.loads((ROOT / "docs/contracts/released/verdict-1.0.json").read_text("utf-8"))
RECORD = FakeRecord(topic="stream-guard.decisions")


def event(kind: str, *, stands: bool = True, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    decision = make_decision(kind, **changes)
    assert decision.about is not None
    made = decided_event(
        decision, decision.about, RECORD, stands=stands, consumed_ms=5, published_ms=6
    )
    read: dict[str, Any] = orjson.loads(encode_verdict(made))
    return read


def deleted(content_id: str | None) -> dict[str, Any]:
    made = deleted_event(FakeRecord(), content_id, consumed_ms=5, published_ms=6)
    read: dict[str, Any] = orjson.loads(encode_verdict(made))
    return read


EVENTS = {
    "review": event("review", valid_until=9),
    "appeal": event("appeal"),
    "retraction": event("retraction"),
    "expiry": event("expiry"),
    "late": event("review", stands=False, valid_until=9),
    "deleted": deleted("p0"),
    "tombstone": deleted(None),
}


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_follows_the_schema_and_is_read_by_every_reader(name: str) -> None:
    made = EVENTS[name]
    STRICT.validate(made)
    READER.validate(made | {"schema_version": "1.2", "novelty": 1})
    assert parse_verdict(encode_verdict(made)).id == made["id"]
    VerdictEvents(0).encode(made, "00-" + "1" * 32 + "-" + "2" * 16 + "-00")
    # A reader that was made for version 1.0 finds every field that it needs.
    assert set(RELEASED["required"]) <= set(made)


@pytest.mark.parametrize("name", ["retraction", "expiry", "late", "deleted", "tombstone"])
def test_an_event_that_is_no_verdict_asks_for_nothing(name: str) -> None:
    made = EVENTS[name]
    assert (made["decision"], made["action"], made["needs_review"]) == (
        "undetermined",
        "none",
        False,
    )


def test_a_decision_names_the_verdict_that_it_changes() -> None:
    decision = make_decision()
    assert decision.about is not None
    name = decision.about.verdict_id
    assert EVENTS["review"]["supersedes"] == name
    assert EVENTS["review"]["valid_until"] == 9
    assert EVENTS["retraction"]["retracts"]["verdict_id"] == name
    assert EVENTS["expiry"]["expired"] == name
    assert EVENTS["review"]["provenance"]["tier"] == "human"
    assert EVENTS["review"]["revision"] == decision.decided_at
    assert EVENTS["deleted"]["retracts"] == {
        "verdict_id": None, "content_id": "p0", "key": "k", "cause": "deleted",
    }  # fmt: skip


def test_one_decision_about_one_verdict_has_one_id() -> None:
    ids = {superseding_id(decision, about) for decision in ("a", "b") for about in (None, "0" * 32)}
    assert len(ids) == 4
    assert EVENTS["review"]["id"] == EVENTS["appeal"]["id"] == event("review")["id"]
    assert event("review", id="d-2")["id"] != EVENTS["review"]["id"]


def test_a_decision_about_a_content_id_alone_has_its_own_record_as_source() -> None:
    about = make_decision().about
    assert about is not None
    bare = about.model_copy(update={"verdict_id": None, "source": None})
    decision = make_decision().model_copy(update={"about": bare})
    made = decided_event(decision, bare, RECORD, stands=True, consumed_ms=5, published_ms=6)
    assert made["source"]["topic"] == "stream-guard.decisions"
    assert "supersedes" not in made


@pytest.mark.parametrize("kind", ["review", "retraction", "expiry"])
def test_a_late_decision_has_an_event_that_changes_nothing(kind: str) -> None:
    made = event(kind, stands=False)
    assert made["id"] == event(kind)["id"]
    assert not {"supersedes", "retracts", "expired", "valid_until"} & set(made)
