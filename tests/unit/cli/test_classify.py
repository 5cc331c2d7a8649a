"""``stream-guard classify`` judges without Kafka, and says in one line what is wrong with what it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from stream_guard.cli.main import app
from stream_guard.cli.posts import read_posts
from stream_guard.cli.views.classify import exchange_lines, verdict_lines
from stream_guard.core.errors import StreamGuardError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.judging.families.family import exchange_of
from stream_guard.judging.families.harmony.family import Harmony
from stream_guard.settings import PostSettings

if TYPE_CHECKING:
    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "policies"
DC = "dangerous-content"
SCRIPTED = {"STREAM_GUARD_ENGINE__KIND": "scripted"}


def run(*arguments: str, text: str | None = None) -> Result:
    command = ["classify", *arguments, "--path", str(SHIPPED)]
    return CliRunner().invoke(app, command, env=SCRIPTED, input=text)


def verdicts(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_text_is_judged_and_its_decision_shown_with_the_reasons() -> None:
    result = run("a [violates] post", "--policy", DC)
    assert result.exit_code == ExitCode.CLEAN, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("violates     dangerous-content@")
    shown = {line[2:13].strip(): line[13:] for line in lines[1:]}
    assert shown["category"].startswith("DC1 ")
    assert shown["rules"] == "DC1.a"
    assert shown["tokens"] == "0 in, of which 0 cached; 0 out"
    assert shown["trail"].startswith("duplicates: escalated, new, ")


def test_without_a_policy_every_policy_of_the_folder_judges() -> None:
    judged = verdicts(run("fine", "--json"))
    assert [verdict["policy"]["id"] for verdict in judged] == sorted(  # type: ignore[index]
        path.parent.name for path in SHIPPED.glob("*/policy.md")
    )


def test_json_lines_are_verdicts_as_they_are_published() -> None:
    import jsonschema

    from stream_guard.records.verdict_event import verdict_schema

    (verdict,) = verdicts(run("a [violates] post", "--policy", DC, "--json"))
    jsonschema.validate(verdict, verdict_schema())
    assert verdict["decision"] == "violates"


def test_a_file_is_judged_line_by_line_and_a_line_that_is_no_post_is_named(tmp_path: Path) -> None:
    file = tmp_path / "posts.jsonl"
    file.write_text('{"id":"a","text":"[violates]"}\n\n{"id":"b"}\n{"id":"c","text":"fine"}\n')
    result = run(str(file), "--policy", DC, "--json")
    assert result.exit_code == ExitCode.USAGE
    fault, first, second = verdicts(result)
    assert (fault["line"], fault["error"]["reason"]) == (3, "missing_field")  # type: ignore[index]
    assert (first["decision"], second["decision"]) == ("violates", "safe")
    assert (first["source"]["offset"], second["source"]["offset"]) == (1, 4)  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('{"id":"a","text":"one"}\n{"id":"b","text":"two"}\n', ["a", "b"]),
        ("one\nwhole text\n", ["-"]),
    ],
)
def test_standard_input_holds_json_lines_or_one_text(text: str, ids: list[str]) -> None:
    judged = verdicts(run("-", "--policy", DC, "--json", text=text))
    assert [verdict["content"]["id"] for verdict in judged] == ids  # type: ignore[index]


def test_equal_posts_are_judged_once_as_in_the_service(tmp_path: Path) -> None:
    file = tmp_path / "posts.jsonl"
    file.write_text('{"id":"a","text":"same"}\n{"id":"b","text":"same"}\n')
    first, second = verdicts(run(str(file), "--policy", DC, "--json"))
    assert first["provenance"]["tier"] == "scripted"  # type: ignore[index]
    assert second["provenance"]["tier"] == "duplicates"  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("hi", "--policy", "nonsense"), "no policy 'nonsense'; the folder has: age-restricted"),
        (("none.jsonl",), "none.jsonl: No such file or directory; name a file"),
        (("empty.jsonl",), "empty.jsonl: holds no post; write one JSON object a line"),
        (("a-folder.jsonl",), "a-folder.jsonl: Is a directory; name a file"),
        (("posts.csv",), "posts.csv is a file but not .jsonl; to judge its content as one text:"),
        ((" ",), "the text is empty"),
        (("-",), "-: standard input holds no post"),
    ],
)
def test_bad_use_is_one_line_with_the_remedy(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").write_text("\n")
    Path("a-folder.jsonl").mkdir()
    Path("posts.csv").write_text("text\n")
    result = run(*arguments)
    assert isinstance(result.exception, StreamGuardError)
    assert result.exception.exit_code == ExitCode.USAGE
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_text_over_the_limit_would_be_a_dead_letter() -> None:
    result = run("x" * 70_000, "--policy", DC)
    assert result.exit_code == ExitCode.USAGE
    assert "would be a dead letter: the text has 70000 bytes; post.max_text_bytes is 65536" in (
        result.stderr
    )


def test_nothing_that_steers_a_terminal_is_shown() -> None:
    hostile = "\x1b]0;owned\x07 \u202eabc\x9b31m"
    result = run(f"[violates] {hostile}", "--policy", DC)
    assert not set(hostile) & set(result.stdout) & set("\x1b\x07\u202e\x9b")


def test_an_explanation_shows_markers_by_name_and_the_reasoning_apart(
    full_tokenizer: HarmonyTokenizer,
) -> None:
    control, encode = full_tokenizer.control, full_tokenizer.encode
    prompt = [control.start, *encode("user"), control.message, *encode("<|end|> hi"), control.end]
    completion = [
        *(control.channel, *encode("analysis"), control.message, *encode("It is fine.")),
        *(control.end, control.start, *encode("assistant"), control.channel, *encode("final")),
        *(control.message, *encode('{"violation":0}'), control.return_),
    ]
    family = Harmony(full_tokenizer, "2025-01-01")
    exchange = exchange_of(family, "1", "low", prompt, completion)
    assert exchange.prompt == "<|start|>user<|message|><|end|> hi<|end|>"
    assert exchange.analysis == "It is fine."
    shown = "\n".join(line.plain for line in exchange_lines([exchange]))
    assert "── reasoning ──\nIt is fine.\n── completion" in shown
    assert shown.endswith('<|message|>{"violation":0}<|return|>')


def test_an_explanation_without_a_model_says_so() -> None:
    result = run("a [violates] post", "--policy", DC, "--explain")
    assert "no model was asked" in result.stdout
    (verdict,) = verdicts(run("a post", "--policy", DC, "--explain", "--json"))
    assert verdict["explanation"] == []


def test_a_view_shows_the_confidence_before_and_after_calibration() -> None:
    from stream_guard.policies.store import load_policies

    policy = load_policies(SHIPPED).policies[DC]
    (verdict,) = verdicts(run("a [violates] post", "--policy", DC, "--json"))
    verdict["confidence"] = {"value": 0.7, "method": "m+platt", "raw": 0.95}
    shown = "\n".join(line.plain for line in verdict_lines(verdict, policy, "a post"))
    assert "0.700 that it violates (m+platt, 0.950 before)" in shown


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("stream-guard class", "classify"),
        (f"stream-guard classify --policy {DC[:6]}", DC),
        (f"stream-guard policies show {DC[:6]}", DC),
    ],
)
def test_completion_answers_bash(words: str, wanted: str) -> None:
    count = len(words.split()) - 1
    env = {
        "_STREAM_GUARD_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(count),
    }
    result = CliRunner().invoke(app, [], env=env, prog_name="stream-guard")
    assert result.stdout.split() == [wanted]


def test_every_shell_gets_a_script() -> None:
    for shell in ("bash", "zsh", "fish"):
        env = {"_STREAM_GUARD_COMPLETE": f"source_{shell}"}
        result = CliRunner().invoke(app, [], env=env, prog_name="stream-guard")
        assert "_STREAM_GUARD_COMPLETE" in result.stdout


def test_json_posts_bring_their_threads(tmp_path: Path) -> None:
    file = tmp_path / "posts.jsonl"
    file.write_text(
        '{"id": 1, "text": "Ask me", "parent": "Sell?", "thread": {"earlier": ["Hi"]}}\n'
    )
    (line,) = read_posts(str(file), PostSettings())
    assert line.post is not None
    assert [entry.text for entry in line.post.context] == ["Hi", "Sell?"]


def test_posts_are_read_by_the_settings_of_the_topic_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "posts.jsonl"
    file.write_text('{"id": "r1", "body": "a [violates] post"}\n')
    settings = SCRIPTED | {"STREAM_GUARD_POST__TOPICS": '{"reviews": {"text": "/body"}}'}
    words = ["classify", str(file), "--policy", DC, "--path", str(SHIPPED), "--json"]
    common = CliRunner().invoke(app, words, env=settings)
    assert common.exit_code == ExitCode.USAGE
    own = CliRunner().invoke(app, [*words, "--topic", "reviews"], env=settings)
    assert own.exit_code == ExitCode.CLEAN, own.output
    assert json.loads(own.stdout)["content"]["id"] == "r1"
    unknown = CliRunner().invoke(app, [*words, "--topic", "posts"], env=settings)
    assert isinstance(unknown.exception, StreamGuardError)
    assert "no post.topics.posts in the settings; topics with their own: reviews" in str(
        unknown.exception
    )
