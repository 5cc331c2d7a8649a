"""What bare policy texts say about their own labels is read, whatever their words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stream_guard.policies.taxonomy import Taxonomy, infer_taxonomy

if TYPE_CHECKING:
    from stream_guard.policies.taxonomy import What

POLICIES = Path(__file__).parents[3] / "policies"


def published(slug: str) -> Taxonomy:
    return infer_taxonomy((POLICIES / slug / "policy.md").read_text(encoding="utf-8"))


def violating(taxonomy: Taxonomy) -> dict[str, bool]:
    return {category.code: category.violates for category in taxonomy.categories}


def test_published_age_restricted_policy_is_read_unmodified() -> None:
    taxonomy = published("age-restricted-goods-and-services")
    assert (taxonomy.violates_label, taxonomy.safe_label) == ("INVALID", "VALID")
    assert violating(taxonomy) == {"ARS0": False, "ARS1": True, "ARS2": True}
    assert [c.title for c in taxonomy.categories] == [
        "Informational or safety context",
        "Promotion",
        "Facilitation or instruction",
    ]
    assert taxonomy.rule_ids == (
        *("ARS0.a", "ARS0.b", "ARS0.c", "ARS0.d"),
        *("ARS1.a", "ARS1.b", "ARS1.c", "ARS1.d"),
        *("ARS2.a", "ARS2.b", "ARS2.c"),
    )


def test_published_dangerous_content_policy_is_read_unmodified() -> None:
    taxonomy = published("dangerous-content")
    assert (taxonomy.violates_label, taxonomy.safe_label) == ("INVALID", "VALID")
    assert violating(taxonomy) == {"DC0": False, "DC1": True, "DC2": True, "DC3": True}
    assert len(taxonomy.rule_ids) == 20
    assert taxonomy.rule_ids[-1] == "DC3.e"


@pytest.mark.parametrize(
    ("what", "value", "line"),
    [
        ("category", "ARS1", 31),
        ("violates", "ARS1", 42),
        ("rule_id", "ARS2.b", 51),
        ("violates_label", "INVALID", 42),
        ("safe_label", "VALID", 29),
    ],
)
def test_where_each_thing_was_found_is_kept(what: What, value: str, line: int) -> None:
    found = published("age-restricted-goods-and-services").where(what, value)
    assert found is not None
    assert found.line == line


@pytest.mark.parametrize("text", ["Be kind to each other.", "", "# Rules\n\nNo rudeness.\n"])
def test_text_that_names_nothing_falls_back(text: str) -> None:
    taxonomy = infer_taxonomy(text)
    assert (taxonomy.violates_label, taxonomy.safe_label) == ("violates", "safe")
    assert taxonomy.categories == ()
    assert taxonomy.rule_ids == ()
    assert all(found.line == 0 for found in taxonomy.found)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("Answer with VIOLATES or SAFE, in one word.", ("VIOLATES", "SAFE")),
        ("Return 1 if it breaks a rule and 0 when it does not.", ("1", "0")),
        ('Return JSON: `{"violation": 1, "policy_category": "H2"}`', ("1", "0")),
        ('Respond with {"label": "unsafe" | "safe"}.', ("unsafe", "safe")),
        ('```json\n{"flagged": true}\n```', ("true", "false")),
        (
            "Reply `REMOVE` if it violates the rules, `KEEP` where it is allowed.",
            ("REMOVE", "KEEP"),
        ),
        ("## Answer\n\n- 0: the post is allowed\n- 1: the post violates\n", ("1", "0")),
        (
            "## Erlaubt\n\nAusgabe: `SAUBER`\n\n## Verboten\n\nAusgabe: `SCHMUTZIG`\n",
            ("SCHMUTZIG", "SAUBER"),
        ),
        ("次のどちらかを出力する: 「違反」または「安全」", ("違反", "安全")),
    ],
)
def test_labels_are_read_in_many_manners(text: str, pair: tuple[str, str]) -> None:
    taxonomy = infer_taxonomy(text)
    assert (taxonomy.violates_label, taxonomy.safe_label) == pair


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "## SAFE\n- **H0**: news\n\n## VIOLATES\n- **H1**: slurs\n- **H2**: threats\n",
            {"H0": False, "H1": True, "H2": True},
        ),
        (
            "## Categories\n| Code | Meaning |\n|---|---|\n| SP0 | not spam |\n| SP1 | adverts |\n",
            {"SP0": False, "SP1": True},
        ),
        (
            "## Categories\n- `harassment/threat`: threats\n- `clean`: all else\n",
            {"harassment/threat": True},
        ),
        (
            "### Permitted (N3 - satire)\ntext\n### Banned (N1 - lies)\ntext\n",
            {"N3": False, "N1": True},
        ),
        ("Rules:\n- R1.1 no insults\n- R1.2 no slurs\n", {"R1": True}),
    ],
)
def test_categories_are_read_in_many_manners(text: str, expected: dict[str, bool]) -> None:
    assert violating(infer_taxonomy(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "## COVID-19 misinformation\n\nThe U.S. and the F1 season, in MP3.\n",
        "## Definitions\n\n- MP3: a format of audio files\n",
        "Treat threats as H2 and slurs as H2.a in doubt.\n",
        "```\n- Z1.a not a rule, but an example's text\n```\n",
    ],
)
def test_what_is_only_mentioned_is_no_category(text: str) -> None:
    taxonomy = infer_taxonomy(text)
    assert taxonomy.categories == ()
    assert taxonomy.rule_ids == ()


def test_every_rule_belongs_to_a_category() -> None:
    taxonomy = infer_taxonomy("- Q7.a one\n- Q7.b two\n- X1.1 three\n")
    assert {rule.partition(".")[0] for rule in taxonomy.rule_ids} <= {
        c.code for c in taxonomy.categories
    }


@pytest.mark.parametrize(
    "unit",
    [
        "# #",
        "## H{n} - a\n",
        "- Q{n}.a x\n",
        "`a` ",
        "not ",
        "| a ",
        "(",
        "*",
        '"label": "',
        "1. ",
        "Output: ",
    ],
)
def test_hostile_text_is_read_in_linear_time(unit: str) -> None:
    """A pattern that backtracks would keep this test from ever ending."""
    text = "".join(unit.format(n=n % 1000) for n in range(200_000 // len(unit))) + "x"
    assert infer_taxonomy(text).violates_label
    assert infer_taxonomy("Answer " + text.replace("\n", " ")).violates_label


WRITTEN = Path(__file__).parents[2] / "data" / "policies"
EXPECTED: dict[str, tuple[str, str, dict[str, bool], int]] = {
    # folder: violates label, safe label, categories and whether they violate, number of rule ids
    "json-output": ("1", "0", {"H2": True, "H3": True, "H0": False}, 5),
    "numeric-labels": ("1", "0", {}, 0),
    "prose-only": ("violates", "safe", {}, 0),
    "german": ("VERSTOSS", "ERLAUBT", {"B0": False, "B1": True}, 3),
    "japanese": ("違反", "安全", {"S1": True, "S2": True, "S0": False}, 0),
    "table": ("violates", "safe", {"SH0": False, "SH1": True, "SH2": True}, 3),
    "word-categories": (
        "unsafe",
        "safe",
        {"harassment": True, "harassment/threat": True, "self-promotion": True, "off_topic": False},
        0,
    ),
    "capitals": ("VIOLATES", "SAFE", {"C1": True, "C2": True, "C0": False}, 0),
    "french": ("infraction", "autorisé", {"A1": True, "A2": True, "A0": False}, 0),
    "russian": ("нарушение", "допустимо", {"M1": True, "M0": False}, 3),
    "keep-or-remove": ("REMOVE", "KEEP", {"R1": True, "R2": True}, 0),
    "two-labels-an-item": (
        "INVALID",
        "VALID",
        {"SP0": False, "SP2": True, "SP3": True, "SP4": True},
        5,
    ),
    "binary-template": ("1", "0", {}, 0),
    "labels-in-headings": ("1", "0", {}, 0),
    "json-forms": ("1", "0", {"H2": True, "H3": True, "H0": False}, 3),
    "dotted-codes": (
        "violates",
        "safe",
        {"ARSN1": True, "ARSN2": True, "ARSN0": False, "ARSN.01": False},
        0,
    ),
    "flags-by-code": ("1", "0", {"N": True, "RU": True, "N2": True}, 0),
    "includes-excludes": ("violates", "safe", {"MK": True}, 0),
    "codes-in-brackets": (
        "INVALID",
        "VALID",
        {"MIN1": True, "CRH": True, "DRUGS": True, "OK0": False},
        0,
    ),
    "uncoded-section": ("INVALID", "VALID", {"W1": True, "W0": False}, 0),
    "conditions-in-bold": ("INVALID", "VALID", {"FW1": True, "FW2": True, "FW0": False}, 0),
    "respond-with": ("Violating", "Not Violating", {}, 0),
    "verdict-column": ("REMOVE", "KEEP", {"DX1": True, "DX2": True, "DX3": False}, 0),
    "label-when": ("1", "0", {}, 0),
    "json-or": ("MISINFO", "OK", {}, 0),
    "german-words": ("VERSTOSS", "OK", {}, 0),
    "lettered": ("INVALID", "VALID", {"A": True, "B": True, "C": False}, 0),
    "lettered-parts": ("VIOLATES", "SAFE", {}, 0),
    "emoji-codes": ("INVALID", "VALID", {"FR1": True, "FR2": True, "FR0": False}, 0),
    "labelled-codes": (
        "INVALID",
        "VALID",
        {"FR1": True, "FR2": True, "FR3": True, "FR0": False},
        0,
    ),
    "front-matter": ("REMOVE", "KEEP", {"LF1": True, "LF0": False}, 1),
    "review-heading": ("REMOVE", "KEEP", {"TH1": True, "TH2": True, "TH0": False}, 2),
    "words-by-heading": (
        "violates",
        "safe",
        {"HATE": True, "FRAUD": True, "NONE_OF_THESE": False},
        0,
    ),
    "acronym": ("VIOLATES", "SAFE", {"PR1": True, "PR0": False}, 1),
    "three-outcomes": ("REMOVE", "ALLOW", {"FL1": True, "FL2": True, "FL0": False}, 0),
    "four-outcomes": (
        "REMOVE",
        "ALLOW",
        {"FM1": True, "FM2": True, "FM3": True, "FM0": False},
        0,
    ),
    "code-for-none": ("REMOVE", "ALLOW", {"W1": True, "W2": False, "W3": True, "W0": False}, 0),
    "codes-with-actions": (
        "violates",
        "safe",
        {"N0": False, "N1": True, "N2": True, "N3": True},
        0,
    ),
    "korean": ("위반", "정상", {}, 0),
    "labels-in-json": ("MISINFO", "OK", {}, 0),
    "lettered-items": ("violates", "safe", {"A": True, "B": True, "C": False, "D": True}, 0),
    "list-of-labels": ("SPAM", "NONE", {}, 0),
    "severity-scale": ("2", "0", {}, 0),
    "small-letters": ("reject", "approve", {}, 0),
    "title-acronym": ("violates", "safe", {"DRG1": True, "DRG0": False}, 3),
    "true-or-false": ("true", "false", {}, 0),
    "yes-if-fine": ("No", "Yes", {}, 0),
    "zero-violates": ("0", "1", {}, 0),
}


def test_every_written_policy_is_expected_something_of() -> None:
    assert {path.name for path in WRITTEN.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_policies_written_in_quite_different_ways_are_read(name: str) -> None:
    violates, safe, categories, rules = EXPECTED[name]
    taxonomy = infer_taxonomy((WRITTEN / name / "policy.md").read_bytes().decode())
    assert (taxonomy.violates_label, taxonomy.safe_label) == (violates, safe)
    assert violating(taxonomy) == categories
    assert len(taxonomy.rule_ids) == rules


def test_line_numbers_are_those_of_an_editor_whatever_the_line_ends() -> None:
    text = (WRITTEN / "keep-or-remove" / "policy.md").read_bytes().decode()
    found = infer_taxonomy(text).where("category", "R2")
    assert found is not None
    assert found.line == 13
