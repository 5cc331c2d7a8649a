"""Policies in published shapes: what is read, what stays open, and what the documentation says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stream_guard.judging.families.harmony.grammar import combinations
from stream_guard.judging.families.harmony.prompt import render_developer
from stream_guard.policies.describe import describe_policy, show_lines
from stream_guard.policies.lint import lint_policy
from stream_guard.policies.policy import Policy, make_policy
from stream_guard.policies.taxonomy import Taxonomy, infer_taxonomy

ROOT = Path(__file__).parents[3]
SHAPES = ROOT / "tests" / "data" / "policies"
PAGE = (ROOT / "docs" / "guides" / "policies.md").read_text(encoding="utf-8")


def shape(name: str) -> Policy:
    return make_policy(name, (SHAPES / name / "policy.md").read_bytes())


def summary(taxonomy: Taxonomy) -> str:
    """Return a reading as the documentation's table writes it."""

    def codes(decision: str) -> str:
        own = (c.code for c in taxonomy.categories if taxonomy.outcome_of(c).decision == decision)
        return ", ".join(own) or "none"

    parts = [f"`{taxonomy.violates_label}` / `{taxonomy.safe_label}`"]
    parts += [f"`{outcome.word}`: {outcome.decision}" for outcome in taxonomy.outcomes[2:]]
    if taxonomy.categories:
        parts += [f"violates: {codes('violates')}", f"safe: {codes('safe')}"]
        if (people := codes("undetermined")) != "none":
            parts.append(f"undetermined: {people}")
    else:
        parts.append("no categories")
    if review := [c.code for c in taxonomy.categories if c.needs_review]:
        parts.append(f"to people: {', '.join(review)}")
    if taxonomy.label_kinds:
        parts.append(f"labels of each item: {', '.join(taxonomy.label_kinds)}")
    if not taxonomy.complete:
        parts.append("a category may be missing")
    return "; ".join(parts)


def test_the_table_of_shapes_says_what_is_read() -> None:
    section = PAGE.partition("### Shapes that are read")[2].partition("\n#")[0]
    rows = re.findall(r"^\| [^|]+ \| `([a-z-]+)` \| (.+) \|$", section, re.MULTILINE)
    expected = {path.name: summary(shape(path.name).taxonomy) for path in SHAPES.iterdir()}
    assert dict(rows) == expected


def test_only_uncertain_shapes_are_incomplete() -> None:
    incomplete = {path.name for path in SHAPES.iterdir() if not shape(path.name).taxonomy.complete}
    assert incomplete == {"acronym", "uncoded-section"}


@pytest.mark.parametrize(
    "folder",
    [*(ROOT / "policies").glob("*/"), *(ROOT / "stream_guard/cli/demo/policies").glob("*/")],
)
def test_shipped_policies_are_complete(folder: Path) -> None:
    taxonomy = make_policy(folder.name, (folder / "policy.md").read_bytes()).taxonomy
    assert taxonomy.complete
    assert not any(found.what == "unread" for found in taxonomy.found)


def test_where_a_section_is_not_read_a_violation_may_have_no_category() -> None:
    taxonomy = shape("uncoded-section").taxonomy
    pairs = {(pair.outcome.decision, pair.category) for pair in combinations(taxonomy)}
    assert pairs == {("violates", "W1"), ("safe", "W0"), ("violates", None)}
    assert "null where none applies" in render_developer("x", taxonomy)


def test_where_all_are_read_a_violation_must_name_one() -> None:
    taxonomy = shape("codes-in-brackets").taxonomy
    pairs = {(pair.outcome.decision, pair.category) for pair in combinations(taxonomy)}
    assert ("violates", None) not in pairs
    assert "null" not in render_developer("x", taxonomy)


def test_lint_names_the_section_that_yields_no_code() -> None:
    (finding,) = (f for f in lint_policy(shape("uncoded-section")) if f.code == "SG122")
    assert (finding.line, finding.severity) == (11, "warning")
    assert "'Harassment of buyers' looks like a violating category" in finding.message
    assert not any(f.code == "SG122" for f in lint_policy(shape("codes-in-brackets")))


def test_the_author_can_say_that_the_categories_are_complete() -> None:
    text = (SHAPES / "uncoded-section" / "policy.md").read_bytes()
    policy = make_policy("x", text, metadata=b"categories_complete: true\n")
    assert policy.taxonomy.complete
    assert not any(f.code == "SG122" for f in lint_policy(policy))
    open_one = (SHAPES / "codes-in-brackets" / "policy.md").read_bytes()
    assert not make_policy(
        "x", open_one, metadata=b"categories_complete: false\n"
    ).taxonomy.complete


def test_a_dotted_category_can_be_declared() -> None:
    text = (SHAPES / "dotted-codes" / "policy.md").read_bytes()
    metadata = b"categories:\n  ARSN.01: {violates: true, action: review}\n"
    category = make_policy("x", text, metadata=metadata).taxonomy.category("ARSN.01")
    assert category is not None
    assert (category.violates, category.action, category.needs_review) == (True, "review", True)


def test_a_label_that_escalates_alone_sends_its_category_to_people() -> None:
    taxonomy = infer_taxonomy("## X1 - a\nOutput: REMOVE\n## X2 - b\nOutput: ESCALATE\n")
    assert [c.code for c in taxonomy.categories if c.needs_review] == ["X2"]


@pytest.mark.parametrize(
    ("title", "review"),
    [
        ("X1 - Threats - Escalate to law enforcement", True),
        ("X1 - Threats, requires human review", True),
        ("X1 - Threats (ESCALATE)", True),
        ("X1 - Escalation of violence", False),
        ("X1 - Enabling access, production, or escalation", False),
    ],
)
def test_only_an_instruction_sends_a_category_to_people(title: str, review: bool) -> None:  # noqa: FBT001 - a parameter
    (category,) = infer_taxonomy(f"## {title}\n").categories
    assert category.needs_review == review


def test_two_codes_on_a_line_keep_their_own_titles() -> None:
    taxonomy = infer_taxonomy("- FR1 (INVALID) - jumps; FR2 (INVALID) - forges\n")
    assert [c.title for c in taxonomy.categories] == ["jumps", "forges"]


def test_show_says_what_is_open_and_what_goes_to_people() -> None:
    lines = list(show_lines(shape("uncoded-section")))
    at = lines.index("categories may be missing: an answer may violate without one")
    assert lines[at + 1] == "  policy.md:11: Harassment of buyers"
    spam = shape("two-labels-an-item")
    assert any("SP4" in line and "needs review" in line for line in show_lines(spam))
    assert "labels of each item     D, R" in list(show_lines(spam))
    assert json.dumps(describe_policy(spam)["label_kinds"]) == '["D", "R"]'


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ('Respond with "Violating" or "Not Violating".', ("Violating", "Not Violating")),
        (
            'If the policy disallows it, respond with "Violating".\nElse respond with "Compliant".',
            ("Violating", "Compliant"),
        ),
        ("Label 0 when the post violates.\nLabel 1 when it is allowed.", ("0", "1")),
        ("Return 1 if a rule is broken.\nReturn 0 if none is.", ("1", "0")),
        ("Label it 1 where the text insults; label it 0 where it does not.", ("1", "0")),
        ('Classify as {"label": "OK"} or {"label": "SCAMMY"}', ("SCAMMY", "OK")),
        ("Answer `RUMOUR` or `OK`.", ("RUMOUR", "OK")),
        ("Antworte mit ERLAUBT oder VERBOTEN.", ("VERBOTEN", "ERLAUBT")),
        ("Réponds AUTORISÉ ou INTERDIT.", ("INTERDIT", "AUTORISÉ")),
        ("Responde PERMITIDO o PROHIBIDO.", ("PROHIBIDO", "PERMITIDO")),
        ("## A\n\nOutput: INVALID + ESCALATE\n\n## B\n\nOutput: VALID\n", ("INVALID", "VALID")),
        ("## A\n\nOutput: VALID or INVALID\n", ("INVALID", "VALID")),
        ("| Code | Verdict |\n|---|---|\n| AB1 | BLOCK |\n| AB2 | ALLOW |\n", ("BLOCK", "ALLOW")),
        ("Answer `MAYBE` or `OK` or `SPAMMY`.", ("SPAMMY", "OK")),
        ("Gib nur GERÜCHT oder KEIN_GERÜCHT aus.", ("GERÜCHT", "KEIN_GERÜCHT")),
        ('Classify as {"label": "HOAX"} or {"label": "NOT_HOAX"}', ("HOAX", "NOT_HOAX")),
        (
            'If it is allowed, respond with "Pass".\nIf the policy disallows it, respond with "Stop".',
            ("Stop", "Pass"),
        ),
        ("**FR1** INVALID | **FR0** VALID\n", ("INVALID", "VALID")),
    ],
)
def test_labels_of_published_shapes_are_read(text: str, pair: tuple[str, str]) -> None:
    taxonomy = infer_taxonomy(text)
    assert (taxonomy.violates_label, taxonomy.safe_label) == pair


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "## Violates\n### Insults (INS)\nx\n### Threats (THR)\ny\n## Safe\n### Rest (REST)\n",
            {"INS": True, "THR": True, "REST": False},
        ),
        ("## Violates [SCAM - Scams]\n\n## Safe [FINE - Rest]\n", {"SCAM": True, "FINE": False}),
        (
            "## Violating\n- **H1**: slurs\n- **H2**: threats\n  - **Exclusion**: news\n",
            {"H1": True, "H2": True},
        ),
        (
            "## Categories\n### Rude (IN1 - Rude)\n- **Encouragement**: x\n- **Slurs**: y\n",
            {"IN1": True},
        ),
        (
            "| Example | Label |\n|---|---|\n| text | INVALID |\n\n## Bad (B1 - Bad)\n",
            {"B1": True},
        ),
        (
            "| Code | Meaning |\n|:--|:-:|\n| LIE | lies | \n| FUN | jokes; allowed |\n",
            {"LIE": True, "FUN": False},
        ),
        (
            "| Topic | Code | Action |\n|---|---|---|\n| lies | LIE | REMOVE |\n| fun | JOKE | KEEP |\n",
            {"LIE": True, "JOKE": False},
        ),
        ("## ❌ AB1: Banned\n\n## ✅ AB0: Fine\n", {"AB1": True, "AB0": False}),
        (
            "### Category: HATE\n\nOutput: INVALID\n\n### Category: NEWS\n\nOutput: VALID\n",
            {"HATE": True, "NEWS": False},
        ),
        ("## Violations (FAQ)\n\n## Output (JSON)\n", {}),
        (
            "## Section A - Insults\n\n-> A\n\n## Section B - Threats\n\n-> B\n",
            {"A": True, "B": True},
        ),
        ("---\ntitle: x\nAB1: y\n---\n\nBe kind.\n", {}),
        ("# Rules\n\nOutput: AB1 or AB2\n", {}),
        (
            "## VIOLATES (1)\n- **H1** slurs\n\n## SAFE (0)\n- **H0** news\n",
            {"H1": True, "H0": False},
        ),
        ("Return the letter.\n## A - Rude\n## B - None of it (safe)\n", {"A": True, "B": False}),
        (
            "### Category A: Rude (violates)\n### Category B: Fine (safe)\nAnswer `A` or `B`.\n",
            {"A": True, "B": False},
        ),
        ("**FR1** INVALID | **FR0** VALID\n", {"FR1": True, "FR0": False}),
        ("FR1: INVALID, FR2: INVALID, FR0: VALID\n", {"FR1": True, "FR2": True, "FR0": False}),
        ("- FR1 - jumps -> INVALID; FR0 - waits -> VALID\n", {"FR1": True, "FR0": False}),
        ("| DX1 | a home | REMOVE |\n| DX3 | an office | KEEP |\n", {"DX1": True, "DX3": False}),
        (
            "| Category | Label |\n|---|---|\n| Rude | INVALID |\n| Fine | VALID |\n",
            {"Rude": True, "Fine": False},
        ),
        (
            "## Categories\n- **HATE**: x\n- **Exclusion**: y\n- **LIES**: z\n",
            {"HATE": True, "LIES": True},
        ),
        ("## Rude (#RUD)\nOutput: INVALID\n", {}),
        ("## TOXIC CONTENT (Label: 1)\n- **Bullying** - insults at one person\n", {}),
    ],
)
def test_categories_of_published_shapes_are_read(text: str, expected: dict[str, bool]) -> None:
    assert {c.code: c.violates for c in infer_taxonomy(text).categories} == expected


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("## Violates\n### Lies (LI1 - Lies)\n### Threats\n", ["Threats"]),
        ("## Violates\n- **H1**: slurs\n- **H2**: insults\n- threats\n", ["threats"]),
        ("## Violates\n- **H1**: slurs\n- **H2**: insults\n\nExamples:\n\n- a threat\n", []),
        ("## Bad (B1 - Bad)\nOutput: INVALID\n## Worse\nOutput: INVALID\n## Goal\nx\n", ["Worse"]),
        ("## Bad (B1 - Bad)\n## Threats\n## Definitions\n## Safe\n", ["Threats"]),
        ("## Bad (B1 - Bad)\n### Includes\n- x\n### Excludes\n- y\n", []),
        ("## Violates\n### Threats\n### Lies\n", []),
        ("## Minors (MIN1 - Minors)\n## Insults (CRH)\n", ["Insults (CRH)"]),
        (
            "## Bad (B1 - Bad)\nOutput: INVALID\n## Unclear - requires human review\nx\n",
            ["Unclear - requires human review"],
        ),
    ],
)
def test_sections_that_yield_no_code_are_named(text: str, unread: list[str]) -> None:
    taxonomy = infer_taxonomy(text)
    assert [found.value for found in taxonomy.found if found.what == "unread"] == unread
    assert taxonomy.complete == (not unread)


@pytest.mark.parametrize(
    "unit",
    [
        "### Insults (INS{n})\n",
        "## A{n}\n### B\n",
        "- **X{n}**: a\n- b\n",
        "(AB - ",
        "| A | B |\n|--|--|\n",
        "|-",
        "\U0001f6ab",
        "Output: VALID x ",
        "Label 1 when ",
    ],
)
def test_hostile_shapes_are_read_in_linear_time(unit: str) -> None:
    """A quadratic pass would keep this test from ever ending."""
    text = "".join(unit.format(n=n % 1000) for n in range(200_000 // len(unit)))
    assert infer_taxonomy("## Violates\n" + text).violates_label
