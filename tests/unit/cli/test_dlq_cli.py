"""The commands about dead letters refuse what makes no sense, in one line and with their exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream_guard.cli.main import app, main
from stream_guard.core.errors import OperatorError, StreamGuardError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.kafka.dead_letter_reader import Survey

ROOT = Path(__file__).parents[3]
# Nobody listens on port 9 of loopback, so this fails at once.
NOBODY = {
    "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "STREAM_GUARD_KAFKA__REQUEST_TIMEOUT_MS": "2000",
}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("list", "--since", "soon"), "--since soon: not a time; for example 2026-01-31"),
        (("list", "--until", "2026-13-01"), "--until 2026-13-01: not a time"),
        (("replay", "--offsets", "9-1"), "--offsets 9-1: the second is below the first"),
        (("replay", "--offsets", "all"), "--offsets all: write A-B"),
        (
            ("list", "--reason", "bogus"),
            "--reason bogus: unknown; use one of: cloud_event",
        ),
        (("replay", "--reason", "json", "--reason", "x"), "--reason x: unknown"),
    ],
)
def test_an_option_that_makes_no_sense_says_how_to_write_it(
    arguments: tuple[str, ...], says: str
) -> None:
    result = CliRunner().invoke(app, ["dlq", *arguments], env=NOBODY)
    assert isinstance(result.exception, StreamGuardError)
    assert result.exception.exit_code == ExitCode.USAGE
    assert says in str(result.exception)


@pytest.mark.parametrize(
    "arguments",
    [("list", "--limit", "-1"), ("list", "--partition", "-1"), ("show",), ("replay", "--all")],
)
def test_what_the_commands_do_not_know_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["dlq", *arguments]).exit_code == ExitCode.USAGE


def test_a_topic_that_may_be_misspelt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object, **__: object) -> Survey:
        return Survey()

    monkeypatch.setattr("stream_guard.kafka.dead_letter_replay.replay", nothing)
    settings = NOBODY | {"STREAM_GUARD_KAFKA__TOPICS": '["posts"]'}
    told = CliRunner().invoke(app, ["dlq", "replay", "--topic", "psots"], env=settings).stderr
    assert told.startswith("--topic psots: not in kafka.topics (did you mean posts?), and no dead")
    assert CliRunner().invoke(app, ["dlq", "replay", "--topic", "posts"], env=settings).stderr == ""


@pytest.mark.parametrize("command", [("list",), ("show", "posts/0/1"), ("replay",)])
def test_a_broker_that_is_not_there_is_named(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["dlq", *command], env=NOBODY)
    assert isinstance(result.exception, StreamGuardError)
    assert result.exception.exit_code == ExitCode.BROKER
    assert "127.0.0.1:9 (kafka.bootstrap_servers)" in str(result.exception)


@pytest.mark.parametrize(
    "command",
    [
        ("export", "dsa", "--mapping", "examples/dsa-mapping.yaml"),
        ("backtest", "--policy", "policies/dangerous-content", "--topic", "posts"),
        ("review", "list"),
        ("tail", "--limit", "1"),
        ("produce", "examples/dsa-mapping.yaml", "posts"),
    ],
)
def test_every_command_says_why_no_broker_answers(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("STREAM_GUARD_KAFKA__REVIEW_TOPIC", "review")
    monkeypatch.setenv("STREAM_GUARD_REVIEW__DATABASE", str(tmp_path / "review.sqlite"))
    result = CliRunner().invoke(app, command, env=NOBODY)
    assert isinstance(result.exception, StreamGuardError)
    assert str(result.exception) == (
        "no Kafka broker answers at 127.0.0.1:9 (kafka.bootstrap_servers): 127.0.0.1:9 refuses the connection; "
        "start the broker or fix the address"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("verdicts.jsonl", "exists already; name another file, or continue this one with --resume"),
        ("folder", "is a folder; name a file"),
        ("nowhere/verdicts.jsonl", "there is no folder"),
    ],
)
def test_a_backtest_refuses_its_file_before_it_asks_a_broker(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "verdicts.jsonl").write_text("kept")
    (tmp_path / "folder").mkdir()
    words = ("backtest", "--policy", "policies/dangerous-content", "--topic", "posts")
    result = CliRunner().invoke(app, [*words, "--output", str(tmp_path / name)], env=NOBODY)
    assert isinstance(result.exception, OperatorError)
    assert message in str(result.exception)
    assert (tmp_path / "verdicts.jsonl").read_text() == "kept"
    resumed = [*words, "--output", str(tmp_path / "verdicts.jsonl"), "--resume"]
    result = CliRunner().invoke(app, resumed, env=NOBODY)
    assert "no Kafka broker answers" in str(result.exception)


def test_the_program_ends_with_one_line_and_no_stack_trace() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stream_guard", "dlq", "show", "x", "--config", "none.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE
    assert done.stderr == "stream-guard: --config none.toml: No such file or directory\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("policies", "lint", "--format", "sarf"), "'text', 'json', 'sarif' (did you mean sarif?)"),
        (("classify", "hi", "--effort", "HGH"), "'HGH' is not one of 'low', 'medium', 'high' (did"),
        (("decide", "x", "saef", "--by", "r"), "'violates', 'safe' (did you mean safe?)"),
        (("review", "list", "--state", "opne"), "(did you mean open?)"),
        (("review", "list", "--why", "sevre"), "--why sevre: unknown (did you mean severe?); use"),
        (("dlq", "list", "--reason", "jsn"), "--reason jsn: unknown (did you mean json?); use one"),
        (("classify", "hi", "--policy", "dangerous-contnt"), "(did you mean dangerous-content?)"),
        (("policies", "lint", "dangerous-contnt"), "(did you mean dangerous-content?)"),
        (("clasify", "hi"), "No such command 'clasify'. Did you mean 'classify'; see"),
        (("policies", "calibrate", "p", "--method", "x"), "'x' is not one of 'platt', 'isotonic'"),
        (("tail", "--limit", "many"), "should be a valid integer"),
    ],
)
def test_a_value_that_an_option_does_not_know_is_one_plain_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["stream-guard", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == ExitCode.USAGE
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert "Value error" not in said


def test_every_command_shows_an_example() -> None:
    for command in ("list", "show", "replay"):
        result = CliRunner().invoke(app, ["dlq", command, "--help"])
        assert result.exit_code == ExitCode.CLEAN
        assert f"Example: stream-guard dlq {command}" in result.stdout
