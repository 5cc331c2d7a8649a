"""Native policies: the policy is the developer message, and its own answer format is allowed, and read, exactly."""

# ruff: noqa: ANN401 - untyped libraries' objects

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.judging.contract import Answer
from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.harmony.family import Harmony
from stream_guard.policies.policy import Policy, make_policy
from stream_guard.records.post import Post
from tests.unit.judging.test_engine_grammar import FINAL, THOUGHT, Grammar, info, walk

if TYPE_CHECKING:
    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer

__all__ = ["info"]

SHAPES = Path(__file__).parents[2] / "data" / "policies"
LIMITS = Budget(reasoning_tokens_max=20, rationale_tokens_max=8)
JSON = (
    b'Answer with JSON: {"violation": 1, "policy_category": "AB1"} for a violation, or '
    b'{"violation": 0, "policy_category": null}.\n\n## Violates (AB1 - Bad)\n- AB1.a worst\n'
)
FULL = (
    b'Return {"violation": 1, "policy_category": "H2", "rule_ids": ["H2.a"], "confidence": "high", '
    b'"rationale": "..."}, where violation is 0 or 1.\n\n## Violates (H2 - Bad)\n- H2.a a\n- H2.b b\n'
)
CODES = (
    b"Return only the category code.\n\n## Bad (C1 - Bad)\n\n## Unclear (C9 - x)\nOutput: ESCALATE\n\n"
    b"## Fine (C0 - Fine)\n"
)


def native(text: bytes | str, metadata: bytes | None = None) -> Policy:
    content = (SHAPES / text / "policy.md").read_bytes() if isinstance(text, str) else text
    return make_policy("p", content, answer="native", metadata=metadata)


@pytest.fixture(scope="module")
def family(full_tokenizer: HarmonyTokenizer) -> Harmony:
    return Harmony(full_tokenizer, "2025-01-01")


@pytest.fixture
def encode(harmony_encoding: Any) -> Any:
    return lambda text: harmony_encoding.encode(text, allowed_special="all")


def test_the_policy_is_the_whole_developer_message_and_a_bare_post_the_users(
    family: Harmony,
) -> None:
    policy = native(b"Return 1 or 0.\r\n\r\n  Tabs\tand {braces}, \xc3\xa9.  \n")
    prefix = family.prefix(policy, "low")
    ids = family.prompt(Post(id="1", text="Buy now.", sha256="", text_bytes=8), prefix)
    shown = family.show(ids)
    assert (
        f"<|start|>developer<|message|>{policy.text}<|end|><|start|>user<|message|>Buy now.<|end|>"
        in shown
    )
    assert policy.text.encode() == policy.files["policy.md"]
    rendered = family.template.render(policy, "2025-01-01")
    assert (rendered["developer"], rendered["answer"]) == (policy.text, "native")
    assert family.prefix_of(rendered, "low", "p") == prefix
    structured = make_policy("p", policy.files["policy.md"])
    assert family.prefix(structured, "low").sha256 != prefix.sha256


@pytest.mark.parametrize(
    ("policy", "text", "answer"),
    [
        (native("binary-template"), "1", Answer("violates")),
        (native("binary-template"), "0", Answer("safe")),
        (native("label-when"), "1", Answer("violates")),
        (native("three-outcomes"), "REMOVE", Answer("violates", labels=("REMOVE",))),
        (
            native("three-outcomes"),
            "ESCALATE",
            Answer("undetermined", labels=("ESCALATE",), needs_review=True),
        ),
        (native("respond-with"), "Not Violating", Answer("safe")),
        (native("japanese"), "\u9055\u53cd", Answer("violates")),
        (native(CODES), "C1", Answer("violates", "C1", labels=("violates",))),
        (native(CODES), "C0", Answer("safe", "C0", labels=("safe",))),
        (native("words-by-heading"), "HATE", Answer("violates", "HATE")),
        (native("lettered"), "C", Answer("safe", "C")),
        (native(JSON), '{"violation": 1, "policy_category": "AB1"}', Answer("violates", "AB1")),
        (
            native(JSON),
            '{"violation": 1, "policy_category": "AB1.a"}',
            Answer("violates", "AB1", ("AB1.a",)),
        ),
        (native(JSON), '{"violation": 0, "policy_category": null}', Answer("safe")),
        (
            native(FULL),
            (
                '{"violation": 1, "policy_category": "H2", "rule_ids": ["H2.a", "H2.b"], "confidence": "high", '
                '"rationale": "It hits."}'
            ),
            Answer("violates", "H2", ("H2.a", "H2.b"), "It hits."),
        ),
        (native("json-or"), '{"label": "MISINFO"}', Answer("violates")),
        (
            native("word-categories"),
            '{"label": "unsafe", "category": "harassment/threat"}',
            Answer("violates", "harassment/threat"),
        ),
        (
            native("two-labels-an-item"),
            "D-SP2, R-SP0",
            Answer("violates", "SP2", labels=("D-SP2", "R-SP0")),
        ),
        (
            native("two-labels-an-item"),
            "D-SP0, R-SP4",
            Answer("violates", "SP4", labels=("D-SP0", "R-SP4"), needs_review=True),
        ),
    ],
)
def test_an_answer_in_the_policys_format_is_allowed_and_exact(
    policy: Policy,
    text: str,
    answer: Answer,
    family: Harmony,
    info: Any,
    vocabulary: list[bytes],
    encode: Any,
) -> None:
    sampling = family.sampling(policy, LIMITS)
    assert sampling.constraint is not None
    ids = encode(f"{THOUGHT}{FINAL}{text}<|return|>")
    assert Grammar(info, str(sampling.constraint.value), vocabulary).accepts(ids)
    assert len(ids) <= sampling.tokens_max
    assert family.read(ids, policy, complete=True).answer == answer


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (native("binary-template"), "2"),
        (native("binary-template"), '{"violation"'),
        (native("three-outcomes"), "KEEP"),
        (native(CODES), "C2"),
        (native(CODES), "violates"),
        (native(JSON), '{"violation": 0, "policy_category": "AB1"'),
        (native(JSON), '{"violation": 1, "policy_category": null'),
        (native(JSON), '{"violation": 1, "policy_category": "AB1", "rationale"'),
        (native("two-labels-an-item"), "SP2"),
        (native("two-labels-an-item"), "D-SP2<|return|>"),
    ],
)
def test_an_answer_outside_the_policys_format_is_not_allowed(
    policy: Policy, text: str, family: Harmony, info: Any, vocabulary: list[bytes], encode: Any
) -> None:
    sampling = family.sampling(policy, LIMITS)
    assert sampling.constraint is not None
    grammar = Grammar(info, str(sampling.constraint.value), vocabulary)
    assert not grammar.accepts(encode(f"{THOUGHT}{FINAL}{text}"))


@pytest.mark.parametrize(
    "policy", [native(FULL), native(CODES), native("two-labels-an-item"), native("word-categories")]
)
def test_every_completion_of_a_native_policy_is_read_as_ok(
    policy: Policy, family: Harmony, info: Any, vocabulary: list[bytes]
) -> None:
    sampling = family.sampling(policy, LIMITS)
    assert sampling.constraint is not None
    grammar = Grammar(info, str(sampling.constraint.value), vocabulary)
    for seed in range(4):
        ids = walk(grammar, seed)
        assert len(ids) <= sampling.tokens_max
        assert family.read(ids, policy, complete=True).answer.parse_status == "ok"


@pytest.mark.parametrize(
    ("policy", "text", "decision"),
    [
        (native("binary-template"), "Answer: 1", "violates"),
        (native("binary-template"), '{"violation":1,"category":"x"}', "violates"),
        (native("three-outcomes"), "Label: escalate", "undetermined"),
        (native(JSON), "```json\n{'violation': 1, 'policy_category': 'AB1'}\n```", "violates"),
        (native("two-labels-an-item"), "D-SP0 and R-SP2", "violates"),
    ],
)
def test_other_forms_are_read_leniently(
    policy: Policy, text: str, decision: str, family: Harmony, encode: Any
) -> None:
    answer = family.read(encode(f"{FINAL}{text}<|return|>"), policy, complete=True).answer
    assert answer.decision == decision
    assert answer.parse_status in {"repaired", "category_dropped"}


@pytest.mark.parametrize(
    ("policy", "text", "token"),
    [
        (native("binary-template"), "1", "1"),
        (native("binary-template"), "0", "0"),
        (native("codes-in-brackets"), "INVALID", "IN"),
        (native(JSON), '{"violation": 1, "policy_category": "AB1"}', "1"),
        (native("three-outcomes"), "REMOVE", None),
        (native(CODES), "C1", None),
    ],
)
def test_the_confidence_is_that_of_the_label_where_two_tokens_tell_it(
    policy: Policy, text: str, token: str | None, family: Harmony, encode: Any
) -> None:
    ids = encode(f"{THOUGHT}{FINAL}{text}<|return|>")
    reading = family.read(ids, policy, complete=True)
    if token is None:
        assert reading.label_position is None
        return
    assert reading.label_position is not None
    assert family.decode([ids[reading.label_position]]).startswith(token[:1])
    labels = reading.label_tokens or family.labels
    assert labels is not None
    violates = reading.answer.decision == "violates"
    assert ids[reading.label_position] == labels[violates]
