"""``stream-guard policies improve`` and what follows it, at a terminal, over a review database and without a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from typer.testing import CliRunner

from stream_guard.cli.main import app
from stream_guard.core.errors import LimitError, PolicyError, SettingsError
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.store import Store
from stream_guard.policies.store import load_policies
from tests.unit.offline.review.topics import KAFKA, Topics, apply, decision_about

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n\n- S1.a bulk\n"
GOLDEN = "text,label\n[violates] buy,S1\n[violates] a quote,safe\n"
RULES = "rules:\n  - {id: quotes, outcome: safe, terms: [quote]}\n"


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy, and a review database in which people overturned two of its verdicts on the same text."""
    folder = tmp_path / "policies" / "spam"
    folder.mkdir(parents=True)
    (folder / "policy.md").write_text(TEXT)
    database = str(tmp_path / "review.sqlite")
    for name, value in {
        "REVIEW__DATABASE": database,
        "KAFKA__REVIEW_TOPIC": "review",
        "POLICIES__PATH": str(folder.parent),
        "POLICIES__ARCHIVE": "folder",
        "POLICIES__ARCHIVE_PATH": str(tmp_path / "archive"),
        "ENGINE__KIND": "scripted",
    }.items():
        monkeypatch.setenv(f"STREAM_GUARD_{name}", value)
    monkeypatch.chdir(tmp_path)
    topics, store = Topics(), Store(database)
    for number in range(3):
        topics.item(number, decision="violates", category="S1")
    for number in range(2):
        topics.decide(decision_about(number))
    apply(Projection(store, KAFKA), topics.records)
    store.close()
    return folder


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["policies", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_overturned_verdicts_are_shown_and_become_golden_rows_once(live: Path) -> None:
    shown = run("improve", "spam", "--offline", "--dry-run")
    assert "overturned 2, in 1 group" in shown
    assert "violates S1, people say safe:" in shown
    assert "posts/0/1: t" in shown
    assert "satire" in shown
    assert "would add 1 row" in shown
    assert not (live / "golden.csv").exists()
    assert not (live.parent / "_drafts").exists()
    said = run("improve", "spam", "--offline", "--examples", "0")
    assert "added 1 row" in said
    assert "1 were there" in said
    assert "posts/0/1" not in said
    assert "add golden_set: golden.csv to" in said
    assert "then run: stream-guard policies gates spam" in said
    assert (live / "golden.csv").read_text().startswith("id,text,label,language\np0:")
    assert "added 0 rows" in run("improve", "spam", "--offline")
    (live / "golden.csv").write_text("text,label\nt,violates\n")
    told = orjson.loads(run("improve", "spam", "--offline", "--json"))
    assert told["conflicts"][0]["there"] == "violates"
    assert (live / "golden.csv").read_text() == "text,label\nt,violates\n"


def test_a_draft_goes_live_only_if_its_gates_hold_and_returns(live: Path) -> None:
    (live / "golden.csv").write_text(GOLDEN)
    (live / "policy.yaml").write_text("golden_set: golden.csv\n")
    with pytest.raises(PolicyError, match="make one: stream-guard policies draft spam"):
        run("gates", "spam")
    run("draft", "spam")
    with pytest.raises(PolicyError, match="edit it first"):
        run("gates", "spam")
    draft = live.parent / "_drafts" / "spam"
    (draft / "policy.md").write_text(TEXT + "- S1.b more\n")
    with pytest.raises(PolicyError, match="has no gates"):
        run("gates", "spam")
    (draft / "policy.yaml").write_text("golden_set: golden.csv\ngates: {min_f1: 0.9}\n")
    with pytest.raises(LimitError, match=r"min_f1 is 0\.9, measured was 0\.6667"):
        run("promote", "spam", "--reason", "r")
    before = load_policies(live.parent).policies["spam"]
    (draft / "rules.yaml").write_text(RULES)
    told = orjson.loads(run("gates", "spam", "--json"))
    assert (told["held"], told["figures"]["golden"]["better"]) == (True, 1)
    assert load_policies(live.parent).policies["spam"] == before
    shown = run("promote", "spam", "--reason", "quotes are safe", "--by", "ann")
    assert "F1 0.667 live and 1.000 draft; 1 flip, 1 better, 0 worse" in shown
    assert "min_f1    0.9  1.000  held" in shown
    after = load_policies(live.parent).policies["spam"]
    assert after.rules is not None
    assert f"{after.version} is live, in place of {before.version}" in shown
    assert (live / "golden.csv").read_text() == GOLDEN
    # The draft follows what is live now, so that the next edit begins there.
    with pytest.raises(PolicyError, match="edit it first"):
        run("gates", "spam")
    run("rollback", "spam", "--reason", "too kind")
    assert load_policies(live.parent).policies["spam"] == before
    with pytest.raises(PolicyError, match="--rebase"):
        run("gates", "spam")
    run("draft", "spam", "--rebase")
    assert orjson.loads(run("gates", "spam", "--json"))["held"]
    history = run("history", "spam")
    assert "quotes are safe" in history
    assert "rollback" in history


def test_a_figure_that_was_not_measured_is_no_excuse(live: Path) -> None:
    (live / "golden.csv").write_text(GOLDEN)
    run("draft", "spam")
    draft = live.parent / "_drafts" / "spam"
    (draft / "policy.yaml").write_text("gates: {max_flips: 1}\n")
    with pytest.raises(LimitError, match="max_flips is 1, and nothing was measured"):
        run("gates", "spam")
    with pytest.raises(SettingsError, match="--reason: is empty"):
        run("promote", "spam", "--reason", " ")
    with pytest.raises(SettingsError, match="exclude each other"):
        run("draft", "spam", "--fresh", "--rebase")
    assert "has no promotion" in run("history", "spam")
