"""A diff names what came, went and changed: texts, metadata, routes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream_guard.cli.main import app
from stream_guard.policies.diff import FieldChange, diff_lines, diff_policies
from stream_guard.policies.policy import Policy, PolicySet, make_policy
from stream_guard.policies.routes_file import read_routes
from stream_guard.policies.yaml_document import read_yaml

SHIPPED = Path(__file__).parents[3] / "policies"
TEXT = "# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n- S1.a bulk\n"
ROUTES = """
default: [spam]
topics: {t: [spam]}
rules: [{name: r, when: {tenant: x}, policies: [spam]}]
canaries: [{policy: spam, candidate: next, percent: 5}]
shadows: [{policy: next}]
"""


def made(text: str = TEXT, yaml: str | None = None, routes: str = ROUTES) -> PolicySet:
    def policy(slug: str, words: str, declared: str | None = None) -> Policy:
        return make_policy(slug, words.encode(), metadata=declared.encode() if declared else None)

    policies = {"next": policy("next", "x"), "spam": policy("spam", text, yaml)}
    return PolicySet.of(policies, read_routes(read_yaml(routes.encode(), "routes.yaml"), policies))


def test_equal_sets_do_not_differ() -> None:
    difference = diff_policies(made(), made())
    assert not difference
    assert list(diff_lines(difference)) == ["no difference"]


def test_change_of_text_is_a_unified_diff() -> None:
    (change,) = diff_policies(made(), made(TEXT.replace("bulk", "mass"))).policies
    assert (change.id, change.kind) == ("spam", "changed")
    assert "-- S1.a bulk" in change.text
    assert "+- S1.a mass" in change.text
    assert change.metadata == ()


def test_change_of_a_space_is_shown() -> None:
    (change,) = diff_policies(made(), made(TEXT + "\n")).policies
    assert "+" in change.text


def test_categories_and_rules_that_come_and_go_are_shown() -> None:
    after = made(TEXT.replace("S1", "S2"))
    (change,) = diff_policies(made(), after).policies
    assert FieldChange("rule_ids", ["S1.a"], ["S2.a"]) in change.metadata
    assert FieldChange("categories.S1.title", "adverts", None) in change.metadata
    assert FieldChange("categories.S2.violates", None, after=True) in change.metadata


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("effort: high", FieldChange("effort", "low", "high")),
        ("action: hide", FieldChange("action", "review", "hide")),
        ("undetermined: fail_open", FieldChange("undetermined", "hold", "fail_open")),
        ("judge: thread", FieldChange("judge", "post", "thread")),
        ("tiers: [rules]", FieldChange("tiers", None, ("rules",))),
        ("labels: {violates: A, safe: B}", FieldChange("labels.safe", "safe", "B")),
        ("categories: {S1: {severity: high}}", FieldChange("categories.S1.severity", None, "high")),
        (
            "thresholds: {safe_below: 0.5}",
            FieldChange("thresholds", None, {"safe_below": 0.5, "violates_above": 1.0}),
        ),
    ],
)
def test_change_of_metadata_is_named(yaml: str, expected: FieldChange) -> None:
    (change,) = diff_policies(made(), made(yaml=yaml)).policies
    assert expected in change.metadata
    assert change.text == ()


def test_version_label_alone_is_a_change() -> None:
    (change,) = diff_policies(made(), made(yaml="version: v2")).policies
    assert change.versions[1] is not None
    assert change.versions[1].startswith("v2 (")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("default: [spam]", "default: [next]", FieldChange("default", ["spam"], ["next"])),
        ("{t: [spam]}", "{u: [spam]}", FieldChange("topics.t", ["spam"], None)),
        ("tenant: x", "tenant: y", FieldChange("rules.r.when", ["tenant is x"], ["tenant is y"])),
        ("name: r,", "name: q,", FieldChange("rules", ["r"], ["q"])),
        (
            "percent: 5",
            "percent: 9",
            FieldChange("canaries.spam", "next for 5 % by author", "next for 9 % by author"),
        ),
        (
            "{policy: next}",
            "{policy: next, beside: spam}",
            FieldChange("shadows.next", "100 % by id, beside all", "100 % by id, beside spam"),
        ),
    ],
)
def test_change_of_routes_is_named(old: str, new: str, expected: FieldChange) -> None:
    difference = diff_policies(made(), made(routes=ROUTES.replace(old, new)))
    assert expected in difference.routing
    assert difference.policies == ()


def test_policies_that_come_and_go_are_named() -> None:
    one = PolicySet({"a": make_policy("a", b"x")}, default=("a",))
    two = PolicySet({"b": make_policy("b", b"x")}, default=("b",))
    kinds = [(change.id, change.kind) for change in diff_policies(one, two).policies]
    assert kinds == [("a", "removed"), ("b", "added")]


def test_lines_for_people_hold_text_metadata_and_routing() -> None:
    after = made(TEXT + "more\n", "effort: high", ROUTES.replace("[spam]}\n", "[next]}\n", 1))
    lines = list(diff_lines(diff_policies(made(), after)))
    assert lines[0].startswith("changed spam: ")
    assert "  effort: low -> high" in lines
    assert "  +more" in lines
    assert lines[-2:] == ["routing", "  topics.t: [spam] -> [next]"]


def test_diff_command_compares_two_folders(tmp_path: Path) -> None:
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam" / "policy.md").write_text(TEXT)
    arguments = ["policies", "diff", str(SHIPPED), str(tmp_path)]
    assert "added spam: none -> " in CliRunner().invoke(app, arguments).stdout
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert {change["kind"] for change in document["policies"]} == {"removed", "added"}
