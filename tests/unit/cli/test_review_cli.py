"""``stream-guard review`` at a terminal, over a database of items; Kafka is replaced where a command writes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from stream_guard.cli.main import app
from stream_guard.core.errors import BrokerError, NotLeasedError, SettingsError
from stream_guard.kafka.audit_writer import AuditWriter
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.store import Store
from stream_guard.records.contracts import writer_schema
from tests.unit.offline.review.topics import KAFKA, Topics, apply

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.records.decision import Decision

ENTRY: Final = Draft202012Validator(writer_schema("review-audit-1.0.json"))


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three items in a database that the settings name; their ids."""
    database = str(tmp_path / "review.sqlite")
    monkeypatch.setenv("STREAM_GUARD_REVIEW__DATABASE", database)
    monkeypatch.setenv("STREAM_GUARD_KAFKA__REVIEW_TOPIC", "review")
    topics, store = Topics(), Store(database)
    made = [topics.item(number, decision="violates") for number in range(3)]
    apply(Projection(store, KAFKA), topics.records)
    store.close()
    return made


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["review", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_items_are_listed_shown_and_measured(names: list[str]) -> None:
    listed = orjson.loads(run("list", "--offline", "--json"))
    assert listed["counts"] == {"open": 3, "decided": 0, "withdrawn": 0}
    assert {item["id"] for item in listed["items"]} == set(names)
    assert "text      t" in run("show", names[0], "--by", "r-1", "--offline")
    assert "spam" in run("stats", "--offline")


def test_a_policy_without_items_is_refused_unless_it_is_in_the_folder(
    names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAM_GUARD_POLICIES__PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=r"--policy sapm: unknown \(did you mean spam\?\)"):
        run("list", "--offline", "--policy", "sapm")
    (tmp_path / "quiet").mkdir()
    (tmp_path / "quiet" / "policy.md").write_text("No noise.")
    assert f"{len(names)} open" in run("list", "--offline", "--policy", "quiet")


def test_a_decision_is_written_and_closes_the_item(
    names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[Decision] = []

    async def write(_settings: object, decision: Decision) -> None:
        written.append(decision)

    async def caught_up(*_: object) -> int:
        return 0

    monkeypatch.setattr("stream_guard.kafka.decision_writer.write_decision", write)
    monkeypatch.setattr("stream_guard.offline.review.follow.catch_up", caught_up)
    said = run("decide", names[0], "safe", "--by", "r-1", "--reason", "satire")
    assert [one.decided_by.id for one in written] == ["r-1"]
    assert f"decision {written[0].id} written to stream-guard.decisions" in said
    with pytest.raises(NotLeasedError):
        run("decide", names[0], "safe", "--by", "r-2")
    with pytest.raises(SettingsError, match="action"):
        run("decide", names[1], "violates", "--category", "S2", "--by", "r-2")
    # A refused choice gives the item back.
    run("decide", names[1], "violates", "--action", "remove", "--by", "r-3")
    assert len(written) == 2
    # The folder has the item's policy, so the category must be one of its own.
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam" / "policy.md").write_text("- S1: Advertising\n- S0: Safe\nAnswer 0 or 1.\n")
    monkeypatch.setenv("STREAM_GUARD_POLICIES__PATH", str(tmp_path))
    removal = ("violates", "--action", "remove", "--by", "r-4", "--category")
    with pytest.raises(SettingsError, match="--category S9: unknown; use one of: S1, S0"):
        run("decide", names[2], *removal, "S9")
    run("decide", names[2], *removal, "S1")
    assert len(written) == 3


def test_nobody_looks_or_decides_at_a_terminal_without_an_entry(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[dict[str, Any]] = []
    written: list[Decision] = []

    async def write_entry(_self: AuditWriter, entry: dict[str, Any]) -> None:
        ENTRY.validate(entry)
        entries.append(entry)
        if len(entries) > 3:
            raise BrokerError("the broker is away")

    async def write(_settings: object, decision: Decision) -> None:
        written.append(decision)

    async def caught_up(*_: object) -> int:
        return 0

    monkeypatch.setenv("STREAM_GUARD_KAFKA__AUDIT_TOPIC", "audit")
    monkeypatch.setattr(AuditWriter, "write", write_entry)
    monkeypatch.setattr("stream_guard.kafka.decision_writer.write_decision", write)
    monkeypatch.setattr("stream_guard.offline.review.follow.catch_up", caught_up)
    run("show", names[0], "--by", "r-1", "--role", "lead", "--offline")
    run("decide", names[0], "safe", "--by", "r-2")
    asked = [(one["who"], one["role"], one["what"], one["item_id"]) for one in entries]
    assert asked == [
        ("r-1", "lead", "show", names[0]),
        ("r-2", "reviewer", "lease", names[0]),
        ("r-2", "reviewer", "decide", names[0]),
    ]
    with pytest.raises(BrokerError):
        run("show", names[1], "--by", "r-1", "--offline")
    with pytest.raises(BrokerError):
        run("decide", names[1], "safe", "--by", "r-1")
    assert len(written) == 1
    monkeypatch.delenv("STREAM_GUARD_KAFKA__AUDIT_TOPIC")
    run("decide", names[1], "safe", "--by", "r-1")  # nobody leased it


def test_without_a_review_topic_the_message_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STREAM_GUARD_KAFKA__REVIEW_TOPIC", raising=False)
    with pytest.raises(SettingsError, match=r"kafka\.review_topic"):
        run("list", "--offline")
