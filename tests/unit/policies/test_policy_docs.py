"""What docs/guides/policies.md teaches is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stream_guard.policies.lint import CODES, Code, lint_policy
from stream_guard.policies.lint.tokens import token_counter
from stream_guard.policies.lint.words import FINDINGS_MAX, TOKENS_MAX
from stream_guard.policies.metadata import PolicyMeta
from stream_guard.policies.policy import CATEGORIES_MAX, POLICY_BYTES_MAX, RULE_IDS_MAX, make_policy
from stream_guard.policies.routes_file import RULES_MAX, read_routes
from stream_guard.policies.rules import compile as rules_build
from stream_guard.policies.rules import spec as rules_file
from stream_guard.policies.rules.disguise import unmask
from stream_guard.policies.rules.normalise import normalise
from stream_guard.policies.rules.ruleset import hash_text
from stream_guard.policies.store import POLICIES_MAX
from stream_guard.policies.yaml_document import YAML_BYTES_MAX, YAML_VALUES_MAX, read_yaml

PAGE = (Path(__file__).parents[3] / "docs" / "guides" / "policies.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(# (\S+)\n.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.code)
def test_each_code_is_documented_as_it_is(code: Code) -> None:
    assert f"| `{code.code}` | {code.severity} | {code.summary} | {code.remedy} |" in PAGE


def test_no_code_is_documented_that_there_is_not() -> None:
    assert set(re.findall(r"SG\d{3}", PAGE)) == set(CODES)


def example() -> str:
    found = re.search(r"````markdown\n(.*?)````", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_example_policy_has_nothing_said_against_it() -> None:
    policy = make_policy("touting", example().encode())
    assert lint_policy(policy, count_tokens=token_counter()) == []
    assert policy.taxonomy.rule_ids[0] == "TT1.a"
    assert [c.violates for c in policy.taxonomy.categories] == [True, True, False]


def test_example_metadata_is_valid_and_shows_every_key() -> None:
    (block,) = (text for text, name in BLOCKS if name == "policy.yaml")
    document = read_yaml(block.encode(), "policy.yaml")
    assert document.check(PolicyMeta).version == "2025-03"
    assert set(document.value) == set(PolicyMeta.model_fields)


def test_example_routes_are_valid() -> None:
    known = ("touting", "spam", "touting-de", "touting-next")
    blocks = [text for text, name in BLOCKS if name == "routes.yaml"]
    made = [read_routes(read_yaml(block.encode(), "routes.yaml"), known) for block in blocks]
    assert [len(routing.rules) for routing in made] == [0, 2]


def test_example_rules_work_as_they_are_described() -> None:
    (block,) = (text for text, name in BLOCKS if name == "rules.yaml")
    files = {
        "rules.yaml": block.encode(),
        "touts.txt": b"# known touts\nfrontrowfrank\n",
        "notices.sha256": hash_text("Doors open at 7. Tout Brothers are banned.").encode(),
    }
    policy = make_policy("touting", example().encode(), rules=files)
    assert lint_policy(policy, count_tokens=token_counter()) == []
    rules = policy.rules
    assert rules is not None
    for text, rule in (
        ("Doors open at 7. Tout Brothers are BANNED.", "our-own-notices"),
        ("Ask Tout Brothers!", "known-touts"),
        ("FrontRowFrank sells", "known-touts"),
        ("Tout Brothers are crooks", None),
        ("Nothing under 200", "over-face-value"),
        ("Billettes", "stems"),
        ("hi\u202e there", "hidden-direction"),
    ):
        hit = rules.first(text, language="en-GB")
        assert (hit.rule.id if hit else None) == rule, text


def test_disguises_come_off_as_the_table_says() -> None:
    page, _, behind = PAGE.partition("| Written | Read as |")
    rows = re.findall(r"^\| `([^`]+)`(?: \([^)]*\))? \| `([^`]+)` \| ", page, re.MULTILINE)
    assert len(rows) >= 5
    assert [normalise(written) for written, _ in rows] == [normal for _, normal in rows]
    disguised = re.findall(r"^\| (`.+`) \| (`.+`) \|$", behind, re.MULTILINE)
    cells = [[re.findall(r"`([^`]+)`", cell) for cell in row] for row in disguised]
    pairs = [pair for written, read in cells for pair in zip(written, read, strict=True)]
    assert len(pairs) >= 5
    for written, read in pairs:
        assert any(read in form for form in unmask(written)), written


@pytest.mark.parametrize(
    "limit",
    [
        rules_file.RULES_BYTES_MAX,
        rules_file.RULES_MAX,
        rules_build.BANKS_BYTES_MAX,
        rules_build.BANK_BYTES_MAX,
        rules_build.INSTRUCTIONS_MAX,
        rules_build.PATTERNS_MAX,
        rules_build.PATTERN_CHARACTERS_MAX,
        rules_build.TERMS_MAX,
        rules_build.TERMS_CHARACTERS_MAX,
        rules_build.TERM_CHARACTERS_MAX,
        rules_build.HASHES_MAX,
        POLICY_BYTES_MAX,
        TOKENS_MAX,
        YAML_BYTES_MAX,
        YAML_VALUES_MAX,
        POLICIES_MAX,
        RULES_MAX,
        CATEGORIES_MAX,
        RULE_IDS_MAX,
        FINDINGS_MAX,
    ],
)
def test_limits_are_those_of_the_code(limit: int) -> None:
    assert f"{limit:,}" in PAGE.partition("## Limits")[2]
