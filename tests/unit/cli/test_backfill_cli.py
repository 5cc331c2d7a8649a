"""``stream-guard backfill`` refuses what cannot work before it starts anything, and says what to do."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stream_guard.cli.main import app
from stream_guard.cli.terminal import stderr_without
from stream_guard.core.errors import StreamGuardError
from stream_guard.offline.backfill.cluster import Cluster, open_cluster

SHIPPED = Path(__file__).parents[3] / "policies"
DC = "dangerous-content"


@pytest.fixture
def posts(tmp_path: Path) -> str:
    file = tmp_path / "posts.jsonl"
    file.write_text('{"id":"a","text":"[violates]"}\n{"id":"b","text":"fine"}\n{\n')
    return str(file)


def run(*arguments: str, **settings: str) -> Result:
    command = ["backfill", *arguments, "--policy", DC, "--path", str(SHIPPED)]
    return CliRunner().invoke(
        app, command, env={"STREAM_GUARD_ENGINE__KIND": "scripted"} | settings
    )


def refusal(*arguments: str, **settings: str) -> str:
    result = run(*arguments, **settings)
    assert isinstance(result.exception, StreamGuardError), result.output
    return str(result.exception)


def test_a_dry_run_judges_a_sample_and_prices_the_rest(posts: str, tmp_path: Path) -> None:
    result = run(posts, "--dry-run", "--actors", "4", "--price-per-hour", "2.50", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert (made["rows"], made["posts"], made["verdicts"], made["dead_letters"]) == (3, 2, 2, 1)
    assert (made["actors"], made["price_per_hour"]) == (4, 2.5)
    assert made["cost"] is not None
    shown = run(posts, "--dry-run", "--price-per-hour", "2.50").stdout
    assert "2 of 3 rows" in shown
    assert "at 2.5 each" in shown
    assert sorted(file.name for file in tmp_path.iterdir()) == ["posts.jsonl"], "nothing is written"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name --out"),
        (("--from", "2025-01-01", "--out", "o"), "is no topic; name topic:NAME"),
        (("--enforce", "--out", "o"), "--enforce is for verdicts that go to a topic"),
        (("--state", "s", "--out", "o"), "--state is for verdicts that go to a topic"),
        (("--out", "topic:history"), "name --state FOLDER as well"),
        (
            ("--out", "topic:stream-guard.verdicts", "--state", "s"),
            "is kafka.verdict_topic.*create a topic.*--enforce",
        ),
        (("--out", "topic:stream-guard.dead-letters", "--state", "s"), "kafka.dead_letter_topic"),
        (
            ("--out", "topic:stream-guard.verdicts", "--state", "s", "--enforce"),
            "verdicts on files supersede nothing",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(
    posts: str, arguments: tuple[str, ...], message: str
) -> None:
    import re

    assert re.search(message, refusal(posts, *arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text-column", "body", "--out", "o"), "--text-column body: is for files"),
        (
            ("--out", "topic:history", "--state", "s", "--enforce"),
            "is not kafka.verdict_topic",
        ),
        (("--out", "topic:posts", "--state", "s"), "is the source; create a topic"),
    ],
)
def test_options_that_do_not_fit_a_topic_are_named(
    arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal("topic:posts", *arguments)


@pytest.mark.parametrize("setting", ["escalation_topic", "escalated_topic"])
def test_a_topic_of_escalations_is_refused(setting: str) -> None:
    named = {f"STREAM_GUARD_CASCADE__{setting.upper()}": "hard"}
    said = refusal("topic:posts", "--out", "topic:hard", "--state", "s", **named)
    assert f"is cascade.{setting}; create a topic" in said


def test_more_than_this_machine_has_is_refused(posts: str, tmp_path: Path) -> None:
    words = (posts, "--out", str(tmp_path / "out"))
    said = refusal(*words, "--actors", "9999")
    assert "--actors 9999 with --cpus 1 need 9999 CPUs" in said
    assert "--address" in said


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(StreamGuardError, match=r"pip install 'stream-guard\[ray\]'"),
        open_cluster(Cluster()),
    ):
        pass


def test_lines_of_a_library_are_dropped_and_all_others_stay(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import re

    with stderr_without(re.compile(rb"\[noise")):
        os.write(2, b"[noise] by a library\nan error of another\n")
        sys.stderr.write("[noise] of our own\n")
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == ["[noise] of our own", "an error of another"]
