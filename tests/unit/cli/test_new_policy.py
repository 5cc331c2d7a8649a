"""``stream-guard policies new`` makes a policy that lints clean, judges, and overwrites nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stream_guard.cli.main import app
from stream_guard.core.errors import PolicyError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.policies.store import load_policies

ROOT = Path(__file__).parents[3]


def run(folder: Path, *words: str) -> Result:
    env = {"STREAM_GUARD_ENGINE__KIND": "scripted"}
    return CliRunner().invoke(app, [*words, "--path", str(folder)], env=env)


@pytest.mark.parametrize(
    "slug", ["ticket-touting", "spam", "X", "a-very-long-name.of_many-words-2"]
)
def test_the_new_policy_has_no_finding_at_all(slug: str, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    made = run(folder, "policies", "new", slug)
    assert made.exit_code == ExitCode.CLEAN, made.output
    assert f"wrote {folder / slug / 'policy.md'}" in made.stdout
    linted = run(folder, "policies", "lint", "--strict")
    assert linted.stdout == "0 errors, 0 warnings, 0 notes\n"
    policies = load_policies(folder)
    assert [policy.id for policy in policies.route(slug)] == [slug]
    codes = policies.policies[slug].taxonomy.categories
    assert {category.code[-1]: category.violates for category in codes} == {
        "0": False,
        "1": True,
        "2": True,
    }


def test_the_new_golden_set_can_be_judged_at_once(tmp_path: Path) -> None:
    run(tmp_path, "policies", "new", "touting", "--topic", "forum.posts")
    report = run(tmp_path, "eval", "--policy", "touting", "--out", str(tmp_path / "out"), "--json")
    assert json.loads(report.stdout)["figures"]["rows"] == 6


def test_a_route_joins_those_that_there_are(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(ROOT / "policies", folder)
    before = (folder / "routes.yaml").read_text()
    assert run(folder, "policies", "new", "touting", "--topic", "market").exit_code == 0
    after = (folder / "routes.yaml").read_text()
    assert after.replace("  market: [touting]\n", "") == before
    assert [policy.id for policy in load_policies(folder).route("market")] == ["touting"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    run(tmp_path, "policies", "new", "touting")
    (tmp_path / "touting" / "policy.md").write_text("mine")
    result = run(tmp_path, "policies", "new", "touting")
    assert isinstance(result.exception, PolicyError)
    assert "touting: exists already; edit it, or choose another id" in str(result.exception)
    assert (tmp_path / "touting" / "policy.md").read_text() == "mine"


@pytest.mark.parametrize("slug", ["../up", "a/b", ".hidden", "_draft", "", "naïve"])
def test_an_id_that_is_none_is_refused(slug: str, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    result = run(folder, "policies", "new", slug)
    assert isinstance(result.exception, PolicyError)
    assert "is no policy id" in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("routes", "slug", "says"),
    [
        ("default: [old]\ntopics: {posts: [old]}\n", "touting", "routes.yaml:"),
        ("default: [old]\ntopics:\n  touting: [old]\n", "touting", "has a route already"),
        ("default: [old]\n", "OLD", "differ only in case"),
    ],
)
def test_what_cannot_be_added_leaves_the_folder_as_it_was(
    routes: str, slug: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "policy.md").write_text("Be kind. Answer `YES` or `NO`.")
    (tmp_path / "routes.yaml").write_text(routes)
    result = run(tmp_path, "policies", "new", slug)
    assert isinstance(result.exception, PolicyError), result.output
    assert says in str(result.exception)
    assert str(tmp_path) in str(result.exception)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["old", "routes.yaml"]
    assert (tmp_path / "routes.yaml").read_text() == routes
