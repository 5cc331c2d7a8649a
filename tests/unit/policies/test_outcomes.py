"""Labels beyond violating and safe: inferred from the text, overridden in ``policy.yaml``, shown and compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_guard.core.errors import PolicyError
from stream_guard.policies.describe import describe_policy, show_lines
from stream_guard.policies.diff import diff_policies
from stream_guard.policies.outcomes import Outcome
from stream_guard.policies.policy import Policy, PolicySet, make_policy
from stream_guard.policies.taxonomy import infer_taxonomy

SHAPES = Path(__file__).parents[2] / "data" / "policies"
TABLE = b"""Answer REMOVE or ALLOW.

## Codes
- **C1**: adverts
- **C2**: scams
- **C0**: anything else; allowed
"""


def declared(yaml: str, text: bytes = TABLE) -> Policy:
    return make_policy("p", text, metadata=yaml.encode())


def words(text: str) -> list[tuple[str, str, str | None]]:
    return [(o.word, o.decision, o.action) for o in infer_taxonomy(text).outcomes]


@pytest.mark.parametrize(
    ("text", "further"),
    [
        (
            "Classify each post as `REMOVE`, `ALLOW` or `ESCALATE`.",
            [("ESCALATE", "undetermined", None)],
        ),
        ("Return only REMOVE, ALLOW or ESCALATE.", [("ESCALATE", "undetermined", None)]),
        (
            'Answer with one word: "reject", "approve" or "review".',
            [("review", "undetermined", None)],
        ),
        ('{"label": "REMOVE" | "ALLOW" | "ESCALATE"}', [("ESCALATE", "undetermined", None)]),
        (
            "Answer BLOCK or ALLOW.\nIf unsure, return `ESCALATE`.",
            [("ESCALATE", "undetermined", None)],
        ),
        (
            "- REMOVE: breaks a rule\n- ALLOW: breaks none\n- ESCALATE: a person decides\n",
            [("ESCALATE", "undetermined", None)],
        ),
        (
            "Answer ALLOW, REMOVE, ESCALATE or AGE_GATE.",
            [("ESCALATE", "undetermined", None), ("AGE_GATE", "violates", "age_gate")],
        ),
        (
            "Antworte mit ENTFERNEN, BEHALTEN oder ESKALIEREN.",
            [("ESKALIEREN", "undetermined", None)],
        ),
        (
            "Antworte mit VERSTOSS oder OK. Im Zweifel antworte PRÜFEN.",
            [("PRÜFEN", "undetermined", None)],
        ),
        ("Réponds INTERDIT, AUTORISÉ ou ESCALADER.", [("ESCALADER", "undetermined", None)]),
        ("Responde PROHIBIDO, PERMITIDO o REVISAR.", [("REVISAR", "undetermined", None)]),
        # A label that also asks for a person is no label of its own.
        ("Answer INVALID or VALID.\n\n## A1 - a\nOutput: INVALID + ESCALATE\n", []),
        ("Answer VIOLATES or SAFE. People review our decisions later, and some escalate.", []),
        ("Return 1 for INVALID, or 0 for VALID content; block nothing.", []),
        ("Answer REMOVE or KEEP.\n\n## REVIEW\nWe review posts. LIMIT your words.", []),
    ],
)
def test_further_labels_of_a_text_are_read(
    text: str, further: list[tuple[str, str, str | None]]
) -> None:
    assert sorted(words(text)[2:]) == sorted(further)


def test_the_label_of_a_section_is_that_of_its_category() -> None:
    taxonomy = make_policy("p", (SHAPES / "three-outcomes" / "policy.md").read_bytes()).taxonomy
    by_code = {c.code: taxonomy.outcome_of(c).word for c in taxonomy.categories}
    assert by_code == {"FL1": "REMOVE", "FL2": "ESCALATE", "FL0": "ALLOW"}


def test_the_label_in_a_tables_verdict_column_is_that_of_its_category() -> None:
    taxonomy = make_policy("p", (SHAPES / "four-outcomes" / "policy.md").read_bytes()).taxonomy
    by_code = {c.code: taxonomy.outcome_of(c).word for c in taxonomy.categories}
    assert by_code == {"FM1": "REMOVE", "FM2": "AGE_GATE", "FM3": "ESCALATE", "FM0": "ALLOW"}


def test_a_label_behind_a_code_is_that_of_its_category() -> None:
    taxonomy = infer_taxonomy("- FR1 (REMOVE) - jumps\n- FR2 (ESCALATE) - forged\n- FR0 (ALLOW)\n")
    assert [taxonomy.outcome_of(c).word for c in taxonomy.categories][:2] == ["REMOVE", "ESCALATE"]


def test_outcomes_are_declared_overridden_and_removed() -> None:
    policy = declared(
        "outcomes:\n  HOLD_BACK: {decision: undetermined}\n"
        "  LIMIT: {decision: violates, action: limit}\n"
        "  REMOVE: {decision: violates, action: remove}\n"
        "categories:\n  C1: {label: LIMIT}\n  C2: {label: HOLD_BACK}\n"
    )
    taxonomy = policy.taxonomy
    assert taxonomy.outcomes == (
        Outcome("REMOVE", "violates", "remove"),
        Outcome("ALLOW", "safe"),
        Outcome("HOLD_BACK", "undetermined", needs_review=True),
        Outcome("LIMIT", "violates", "limit"),
    )
    assert [taxonomy.outcome_of(c).word for c in taxonomy.categories] == [
        "LIMIT",
        "HOLD_BACK",
        "ALLOW",
    ]
    removed = declared("outcomes: {ESCALATE: null}", b"Answer REMOVE, ALLOW or ESCALATE.")
    assert [o.word for o in removed.taxonomy.outcomes] == ["REMOVE", "ALLOW"]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("outcomes: {REMOVE: {decision: safe}}", "'REMOVE' is the policy's label for violating"),
        ("outcomes: {ALLOW: null}", "'ALLOW' is the policy's label for safe"),
        (
            "categories: {C1: {label: LATER}}",
            "'LATER' is not an outcome; use one of: REMOVE, ALLOW",
        ),
        ("outcomes: {LATER: {decision: perhaps}}", "policy.yaml:1"),
        (
            "outcomes:\n" + "".join(f"  W{n}: {{decision: violates}}\n" for n in range(11)),
            "13 outcomes, over the limit of 12",
        ),
    ],
)
def test_outcomes_that_make_no_sense_are_rejected(yaml: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message.replace("|", r"\|")):
        declared(yaml)


def test_show_lists_every_outcome_with_its_place() -> None:
    policy = make_policy("p", (SHAPES / "four-outcomes" / "policy.md").read_bytes())
    lines = list(show_lines(policy))
    at = lines.index("labels")
    assert lines[at + 3 : at + 5] == [
        "  ESCALATE     undetermined policy.md:3 (list of labels) (needs review)",
        "  AGE_GATE     violates  policy.md:3 (list of labels) (age_gate)",
    ]
    described = describe_policy(policy)
    assert [o["label"] for o in described["outcomes"]] == [
        "REMOVE",
        "ALLOW",
        "ESCALATE",
        "AGE_GATE",
    ]
    assert [c["label"] for c in described["categories"]] == [
        "REMOVE",
        "AGE_GATE",
        "ESCALATE",
        "ALLOW",
    ]


def test_diff_says_which_outcomes_differ() -> None:
    before, after = (
        declared("version: a"),
        declared(
            "version: b\noutcomes: {LATER: {decision: undetermined}}\ncategories: {C1: {label: LATER}}"
        ),
    )
    diff = diff_policies(PolicySet({"p": before}), PolicySet({"p": after}))
    changed = {change.field: change.after for change in diff.policies[0].metadata}
    assert changed["outcomes.LATER.decision"] == "undetermined"
    assert changed["categories.C1.label"] == "LATER"


def test_the_shape_of_the_guides_spam_policy_is_read() -> None:
    taxonomy = make_policy("p", (SHAPES / "two-labels-an-item" / "policy.md").read_bytes()).taxonomy
    assert [c.code for c in taxonomy.categories] == ["SP0", "SP2", "SP3", "SP4"]
    assert taxonomy.label_kinds == ("D", "R")
    assert [c.code for c in taxonomy.categories if c.needs_review] == ["SP4"]
    assert len(taxonomy.outcomes) == 2
