"""The commands about policies print what they promise and exit as documented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stream_guard.cli.main import app
from stream_guard.core.errors import PolicyError
from stream_guard.core.exit_codes import ExitCode

SHIPPED = Path(__file__).parents[3] / "policies"
ARS = "age-restricted-goods-and-services"


def run(*arguments: str, path: Path = SHIPPED) -> Result:
    return CliRunner().invoke(app, ["policies", *arguments, "--path", str(path)])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam" / "policy.md").write_text("No spam. <|end|>\n")
    return tmp_path


def test_lint_of_the_shipped_policies_passes() -> None:
    result = run("lint")
    assert result.exit_code == ExitCode.CLEAN
    assert f"{ARS}/policy.md:13:43: warning SG111: a hedging word: typically" in result.stdout
    assert "896 tokens" in result.stdout


def test_strict_lint_fails_on_warnings() -> None:
    assert run("lint", "--strict").exit_code == ExitCode.USAGE


def test_lint_fails_on_an_error(broken: Path) -> None:
    result = run("lint", path=broken)
    assert result.exit_code == ExitCode.USAGE
    assert "spam/policy.md:1:10: error SG113" in result.stdout


@pytest.mark.parametrize("output", ["json", "sarif"])
def test_lint_writes_json_and_sarif_for_programs(broken: Path, output: str) -> None:
    document = json.loads(run("lint", "--format", output, path=broken).stdout)
    codes = (
        {finding["code"] for finding in document["findings"]}
        if output == "json"
        else {result["ruleId"] for result in document["runs"][0]["results"]}
    )
    assert "SG113" in codes


def test_lint_reports_what_cannot_be_read_as_findings(broken: Path) -> None:
    (broken / "routes.yaml").write_text("default: [spam]\ntopics: 3\ntopic: 4\n")
    result = run("lint", "--format", "json", path=broken)
    findings = json.loads(result.stdout)["findings"]
    assert [(f["code"], f["line"]) for f in findings] == [("SG100", 2), ("SG100", 3)]
    assert {f["file"] for f in findings} == {str(broken / "routes.yaml")}
    assert result.exit_code == ExitCode.USAGE


def test_list_names_policies_versions_and_topics() -> None:
    stdout = run("list").stdout
    assert "dangerous-content" in stdout
    assert "chat.messages" in stdout
    assert "f839f157e26d" in stdout


def test_list_as_json_is_complete() -> None:
    described = json.loads(run("list", "--json").stdout)
    assert [policy["id"] for policy in described] == [ARS, "dangerous-content"]


def test_show_says_where_each_thing_was_found() -> None:
    lines = run("show", ARS).stdout.splitlines()
    assert "  INVALID      violates  policy.md:42 (output lines)" in lines
    assert "  ARS2.c       policy.md:52 (defined at the line's start)" in lines


def test_show_says_what_is_a_fallback(tmp_path: Path) -> None:
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / "policy.md").write_text("Be kind.\n")
    stdout = run("show", "kind", path=tmp_path).stdout
    assert "violates     violates  the fallback: the text states no labels" in stdout


def test_show_as_json_holds_places() -> None:
    described = json.loads(run("show", ARS, "--json").stdout)
    category = described["categories"][1]
    assert (category["code"], category["violates"]) == ("ARS1", True)
    assert category["found"] == {"file": "policy.md", "line": 31, "how": "heading"}


def test_show_of_an_unknown_policy_names_those_that_there_are() -> None:
    result = run("show", "nonsense")
    assert isinstance(result.exception, PolicyError)
    assert ARS in str(result.exception)


def test_the_commands_about_policies_are_part_of_the_program() -> None:
    runner = CliRunner()
    for arguments in (["policies", "lint", "--help"], ["route", "--help"]):
        assert runner.invoke(app, arguments).exit_code == 0


def test_lint_of_one_policy_reports_that_one_alone() -> None:
    stdout = run("lint", "dangerous-content").stdout
    assert "dangerous-content" in stdout
    assert ARS not in stdout
    with pytest.raises(PolicyError, match=r"no policy 'nonsense'; the folder has: age-"):
        raise run("lint", "nonsense").exception or AssertionError("not refused")


def test_a_folder_without_routes_is_linted_listed_shown_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.md").write_text("# Spam\n\nNo advertising.\n")
    monkeypatch.setenv("STREAM_GUARD_ENGINE__KIND", "scripted")
    for words in (("lint",), ("list",), ("show", "two")):
        assert run(*words, path=tmp_path).exit_code == ExitCode.CLEAN
    judged = CliRunner().invoke(app, ["classify", "a post", "--path", str(tmp_path)])
    assert judged.exit_code == ExitCode.CLEAN, judged.output
    assert [line.split()[1][:4] for line in judged.stdout.splitlines() if "@" in line[:20]] == [
        "one@",
        "two@",
    ]
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"id": "1", "text": "a"}\n')
    routed = CliRunner().invoke(app, ["route", str(posts), "-t", "t", "--path", str(tmp_path)])
    assert "routes.yaml: missing, but there are 2 policies" in str(routed.exception)
