"""``policy.yaml`` declares what a text does not say, and is refused where it makes no sense."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.errors import PolicyError
from stream_guard.policies.describe import describe_policy, show_lines
from stream_guard.policies.policy import CATEGORIES_MAX, RULE_IDS_MAX, Policy, make_policy
from stream_guard.policies.store import load_policies

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (
    b"# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n- S1.a bulk\n\n"
    b"Answer `BAD` or `GOOD`.\n"
)


def declared(yaml: str, text: bytes = TEXT) -> Policy:
    return make_policy("spam", text, metadata=yaml.encode())


def test_without_metadata_the_sha256_is_that_of_the_text() -> None:
    assert make_policy("spam", TEXT).sha256 == hashlib.sha256(TEXT).hexdigest()


def test_metadata_changes_the_sha256_and_so_the_version() -> None:
    assert declared("effort: low").sha256 != declared("effort: high").sha256


def test_declarations_win_over_the_settings_and_the_text() -> None:
    policy = declared(
        "version: '2025-03'\nlabels: {violates: X, safe: Y}\neffort: high\n"
        "reasoning_tokens_max: 7\naction: hide\ntiers: [rules, safeguard]\n"
        "thresholds: {safe_below: 0.1, violates_above: 0.9}\n"
        "undetermined: fail_closed\n"
    )
    assert policy.version == "2025-03"
    assert (policy.taxonomy.violates_label, policy.taxonomy.safe_label) == ("X", "Y")
    assert (policy.effort, policy.reasoning_tokens_max, policy.action) == ("high", 7, "hide")
    assert policy.tiers == ("rules", "safeguard")
    assert policy.thresholds is not None
    assert (policy.thresholds.safe_below, policy.thresholds.violates_above) == (0.1, 0.9)
    assert policy.undetermined == "fail_closed"


def test_defaults_hold_where_nothing_is_declared() -> None:
    policy = make_policy("spam", TEXT, metadata=b"version: v1")
    assert (policy.effort, policy.reasoning_tokens_max, policy.action) == ("low", 512, "review")
    assert (policy.tiers, policy.thresholds, policy.undetermined) == (None, None, "hold")


def test_categories_are_corrected_added_and_dropped() -> None:
    policy = declared(
        "categories:\n  S0: null\n  S1: {severity: high, action: remove}\n  S2: {title: scams}\n"
    )
    codes = [(c.code, c.title, c.violates, c.severity) for c in policy.taxonomy.categories]
    assert codes == [("S1", "adverts", True, "high"), ("S2", "scams", True, None)]
    assert policy.taxonomy.rule_ids == ("S1.a",)


def test_rules_of_a_dropped_category_are_dropped() -> None:
    policy = declared("categories:\n  S1: null\n  S2: {title: scams}\n")
    assert policy.taxonomy.rule_ids == ()


@pytest.mark.parametrize(("code", "action"), [("S1", "remove"), ("S0", "hide"), (None, "hide")])
def test_category_names_the_action_else_the_policy(code: str | None, action: str) -> None:
    policy = declared("action: hide\ncategories:\n  S1: {action: remove}\n")
    assert policy.action_for(code) == action


@pytest.mark.parametrize(
    ("what", "value", "place"),
    [
        ("violates_label", "X", ("policy.yaml", 1)),
        ("violates", "S1", ("policy.yaml", 3)),
        ("category", "S0", ("policy.md", 3)),
    ],
)
def test_where_each_thing_stands_is_kept(what: str, value: str, place: tuple[str, int]) -> None:
    policy = declared("labels: {violates: X, safe: Y}\ncategories:\n  S1: {violates: true}\n")
    found = next(f for f in policy.taxonomy.found if f.what == what and f.value == value)
    assert (found.file, found.line) == place


@pytest.mark.parametrize(
    ("yaml", "line", "wanted"),
    [
        ("effort: low\nefort: low", 2, "efort: unknown key (did you mean effort?)"),
        ("labels: {violates: X, saef: Y}", 1, "saef: unknown key (did you mean safe?)"),
        (
            "categories:\n  S1: {severty: high}",
            2,
            "S1.severty: unknown key (did you mean severity?)",
        ),
        ("limits:\n- {acton: a, actions_max: 5}", 2, "acton: unknown key (did you mean action?)"),
        ("outcomes:\n  A: {decison: safe}", 2, "decison: unknown key (did you mean decision?)"),
        ("effort: hgih", 1, "'low', 'medium' or 'high' (did you mean high?)"),
        ("version: 1.0", 1, "put it in quotes"),
        ("version: 'a b'", 1, "match pattern"),
        ("effort: extreme", 1, "'low', 'medium' or 'high'"),
        ("effort: low\nreasoning_tokens_max: 0", 2, "greater than or equal to 1"),
        ("reasoning_tokens_max: '5'", 1, "valid integer"),
        ("labels: {violates: X, safe: x}", 1, "are the same"),
        ("labels: {violates: X}", 1, "safe: Field required"),
        ("labels: {violates: 1, safe: 0}", 1, "put it in quotes"),
        (
            "thresholds:\n  safe_below: 0.9\n  violates_above: 0.1",
            1,
            "is greater than violates_above",
        ),
        ("thresholds:\n  safe_below: 2", 2, "less than or equal to 1"),
        ("tiers: [rules, magic]", 1, "'duplicates', 'rules', 'classifier' or 'safeguard'"),
        ("tiers: [rules, rules]", 1, "duplicate tier"),
        ("tiers: [safeguard, rules]", 1, "must be the last tier"),
        ("tiers: []", 1, "at least 1 item"),
        ("undetermined: shrug", 1, "'fail_open', 'fail_closed' or 'hold'"),
        ("categories:\n  S1: {severity: awful}", 2, "'low', 'medium', 'high' or 'critical'"),
        ("categories:\n  S1: {violates: maybe}", 2, "valid boolean"),
        ("categories:\n  'S 1': {}", 2, "match pattern"),
        ("action: x\ncategories:\n  S1: {violates: false}", 2, "no category violates"),
        ("golden_set: ../../etc/passwd", 1, "own folder"),
        ("limits: [{action: remove}]", 1, "set at least one"),
        ("limits:\n  - actions_max: 5\n    policy: spam", 3, "unknown key"),
        ("limits: [{window: week, actions_max: 5}]", 1, "'hour' or 'day'"),
        ("gates:\n  min_f: 0.9", 2, "gates.min_f: unknown key (did you mean min_f1?)"),
        ("gate: {min_f1: 0.9}", 1, "gate: unknown key (did you mean gates?)"),
        ("gates: {max_flips: 2}", 1, "less than or equal to 1"),
        ("gates: {max_flips: 2%}", 1, "valid number"),
        ("- a", 1, "must be a mapping"),
        ("effort: [", 1, "not valid YAML"),
    ],
)
def test_bad_metadata_is_named_with_its_line(yaml: str, line: int, wanted: str) -> None:
    with pytest.raises(PolicyError) as caught:
        declared(yaml)
    assert str(caught.value).startswith(f"spam/policy.yaml:{line}: ")
    assert wanted in str(caught.value)


def test_golden_set_must_lie_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "spam"
    folder.mkdir()
    (folder / "policy.md").write_bytes(TEXT)
    (folder / "policy.yaml").write_text("effort: low\ngolden_set: golden.csv\n")
    with pytest.raises(PolicyError, match=r"policy\.yaml:2: golden_set: no file 'golden\.csv'"):
        load_policies(tmp_path)
    (folder / "golden.csv").write_text("text,label\n")
    assert load_policies(tmp_path).policies["spam"].golden_set == "golden.csv"


@pytest.mark.parametrize(
    ("line", "limit", "what"),
    [("- **Q{}**: x\n", CATEGORIES_MAX, "categories"), ("- Q1.{} x\n", RULE_IDS_MAX, "rule ids")],
)
def test_too_many_categories_or_rules_are_refused(line: str, limit: int, what: str) -> None:
    letters = "ABCDEFGHIJ"
    many = (
        "".join(f"- Q{i // 900}.{i % 900} x\n" for i in range(limit + 1))
        if what == "rule ids"
        else "".join(line.replace("Q", letters[i // 900]).format(i % 900) for i in range(limit + 1))
    )
    with pytest.raises(PolicyError, match=f"{limit + 1} {what}, over the limit of {limit}"):
        make_policy("spam", many.encode())


def test_gates_are_read_and_shown() -> None:
    policy = declared("gates: {min_f1: 0.9, max_flips: 0}")
    assert policy.gates.model_dump() == {"min_f1": 0.9, "max_flips": 0.0, "min_agreement": None}
    assert describe_policy(policy)["gates"] == {"min_f1": 0.9, "max_flips": 0.0}
    assert f"{'gates':<21} {{'min_f1': 0.9, 'max_flips': 0.0}}" in show_lines(policy)
    assert describe_policy(declared("effort: low"))["gates"] is None
