"""The answer format of a native policy is read from its text, shown, declared, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_guard.core.errors import PolicyError
from stream_guard.policies.describe import describe_policy, show_lines
from stream_guard.policies.lint import lint_policy
from stream_guard.policies.policy import Policy, make_policy

SHAPES = Path(__file__).parents[2] / "data" / "policies"
CODED = "# P\n\n{top}\n\n## Bad (C1 - Bad)\n- C1.a worst\n\n## Fine (C0 - Fine)\n"


def shape(name: str, *, answer: bool = True) -> Policy:
    text = (SHAPES / name / "policy.md").read_bytes()
    return make_policy(name, text, answer="native" if answer else "structured")


def read(text: str) -> tuple[str, tuple[str, ...]]:
    form = make_policy("p", text.encode()).answer_format
    if isinstance(form, str):
        return "none", ()
    return form.kind, form.choices or tuple(f"{key.name}:{key.value}" for key in form.keys)


@pytest.mark.parametrize(
    ("text", "kind", "choices"),
    [
        ("Return exactly one character: 0 or 1.", "words", ("1", "0")),
        ("Answer with one word: `INVALID` or `VALID`.", "words", ("INVALID", "VALID")),
        ("Answer `REMOVE`, `ALLOW` or `ESCALATE`.", "words", ("REMOVE", "ALLOW", "ESCALATE")),
        ("Antworte mit VERSTOSS oder OK.", "words", ("VERSTOSS", "OK")),
        (
            "## A (C1 - a)\nOutput: INVALID + ESCALATE\n## B (C0 - b)\nOutput: VALID\n",
            "words",
            ("INVALID", "VALID", "INVALID + ESCALATE"),
        ),
        (CODED.format(top="Return only the category code."), "codes", ("C1", "C0")),
        (
            CODED.format(top="Answer with the code of the category that fits, such as `C1`."),
            "codes",
            ("C1", "C0"),
        ),
        (
            CODED.format(top='Return {"violation": 1, "policy_category": "C1"} as JSON.'),
            "json",
            ("violation:digit", "policy_category:string"),
        ),
        (
            (
                'Return {"violation": 1, "policy_category": "H2", "rule_ids": ["H2.a"], "confidence": "high", '
                '"rationale": "..."}'
            ),
            "json",
            (
                "violation:digit",
                "policy_category:string",
                "rule_ids:list",
                "confidence:string",
                "rationale:string",
            ),
        ),
        ('Reply {"label": "HOAX"} or {"label": "NOT_HOAX"}', "json", ("label:string",)),
        (
            'Reply {"violates": true, "reason": "why"}',
            "json",
            ("violates:boolean", "reason:string"),
        ),
        ("Be kind to each other.", "none", ()),
        ('Return JSON: {"score": 0, "tone": "x"}', "none", ()),
    ],
)
def test_the_format_of_a_text_is_read(text: str, kind: str, choices: tuple[str, ...]) -> None:
    assert read(text) == (kind, choices)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("binary-template", "words"),
        ("two-labels-an-item", "labels"),
        ("json-forms", "json"),
        ("json-output", "json"),
        ("json-or", "json"),
        ("lettered", "codes"),
        ("words-by-heading", "codes"),
        ("three-outcomes", "words"),
        ("german", "words"),
    ],
)
def test_published_shapes_have_a_format(name: str, kind: str) -> None:
    policy = shape(name)
    assert policy.native is not None
    assert policy.native.kind == kind
    assert policy.native.line > 0
    assert any(f"policy.md:{policy.native.line} (" in line for line in show_lines(policy))


@pytest.mark.parametrize("name", ["prose-only", "flags-by-code", "dotted-codes"])
def test_a_policy_whose_format_cannot_be_read_is_not_used_natively(name: str) -> None:
    with pytest.raises(PolicyError, match="declare answer_format in policy"):
        shape(name)
    described = describe_policy(shape(name, answer=False))["answer_format"]
    assert (described["kind"], described["unread"] is None) == (None, False)


def test_the_linter_says_why_a_format_cannot_be_read() -> None:
    (finding,) = (f for f in lint_policy(shape("flags-by-code", answer=False)) if f.code == "SG123")
    assert "the JSON in line 7 has the key 'N', which is not known" in finding.message


def test_a_format_can_be_declared() -> None:
    text = (SHAPES / "dotted-codes" / "policy.md").read_bytes()
    policy = make_policy("p", text, metadata=b"answer: native\nanswer_format: codes\n")
    assert policy.native is not None
    assert policy.native.choices == ("ARSN1", "ARSN2", "ARSN0", "ARSN.01")
    with pytest.raises(PolicyError, match="the text shows no JSON answer"):
        make_policy("p", text, metadata=b"answer: native\nanswer_format: json\n")


def test_policy_yaml_wins_over_the_setting() -> None:
    text = b"Answer BAD or GOOD. BLOCK or ALLOW."
    assert make_policy("p", text, answer="native", metadata=b"answer: structured").native is None
    assert make_policy("p", text, metadata=b"answer: native").native is not None


def test_a_further_label_that_is_stated_once_is_noted() -> None:
    once = make_policy("p", b"Answer `REMOVE`, `ALLOW` or `ESCALATE`.")
    twice = make_policy(
        "p", b"Answer `REMOVE`, `ALLOW` or `ESCALATE`.\n\nIf unsure, answer `ESCALATE`."
    )
    assert [f.code for f in lint_policy(once) if f.code == "SG124"] == ["SG124"]
    assert not any(f.code == "SG124" for f in lint_policy(twice))
