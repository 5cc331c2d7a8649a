"""The prompt keeps what the model was taught: one order of answers, three outcomes, right readings, told cuts."""

# ruff: noqa: ANN401 - untyped libraries' objects

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.judging.contract import Provenance
from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.harmony.answer import read_answer
from stream_guard.judging.families.harmony.family import Harmony
from stream_guard.judging.families.harmony.grammar import structural_tag
from stream_guard.judging.families.harmony.prompt import example, render_developer
from stream_guard.judging.verdict import recommended_action, review_reasons
from stream_guard.policies.policy import make_policy
from tests.unit.judging.test_engine_grammar import FINAL, THOUGHT, Grammar, info

if TYPE_CHECKING:
    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer

__all__ = ["info"]

SHAPES = Path(__file__).parents[2] / "data" / "policies"
BINARY = (SHAPES / "binary-template" / "policy.md").read_bytes()
THREE = (SHAPES / "three-outcomes" / "policy.md").read_bytes()
SPAM = (SHAPES / "two-labels-an-item" / "policy.md").read_bytes()
CUT = Budget(reasoning_tokens_max=4, rationale_tokens_max=8)


def test_no_contradicting_order_stands_beside_the_policys_own() -> None:
    """Two contradictory orders: the structured format says that it replaces the policy's own."""
    policy = make_policy("p", BINARY)
    before, text, after = render_developer(policy.text, policy.taxonomy).partition(policy.text)
    assert text
    assert "It replaces the output format that the policy asks for." in before
    assert "whatever output format the policy asks for" in after
    for outcome in policy.taxonomy.outcomes:
        literal = example(policy.taxonomy, outcome)
        assert literal in before
        assert literal in after
        assert set(json.loads(literal)) == {"violation", "rationale"}


def test_a_native_policy_is_the_only_order(full_tokenizer: HarmonyTokenizer) -> None:
    """Two contradictory orders: natively there is none beside the policy."""
    policy = make_policy("p", BINARY, answer="native")
    family = Harmony(full_tokenizer, "2025-01-01")
    shown = family.show(family.prefix(policy, "low").ids)
    developer = shown.partition("<|start|>developer<|message|>")[2].partition("<|end|>")[0]
    assert developer.encode() == BINARY


@pytest.mark.parametrize("answer", ["structured", "native"])
def test_a_third_outcome_is_allowed_read_and_sent_to_people(
    answer: Any,
    full_tokenizer: HarmonyTokenizer,
    info: Any,
    vocabulary: list[bytes],
    harmony_encoding: Any,
) -> None:
    """No third outcome: ESCALATE was one of two labels, and the grammar let 0 and 1 alone through."""
    policy = make_policy("p", THREE, answer=answer, metadata=b"undetermined: fail_open\n")
    family = Harmony(full_tokenizer, "2025-01-01")
    text = (
        '{"label":"ESCALATE","policy_category":"FL2","rationale":"It names a home."}'
        if answer == "structured"
        else "ESCALATE"
    )
    ids = harmony_encoding.encode(f"{THOUGHT}{FINAL}{text}<|return|>", allowed_special="all")
    constraint = family.sampling(policy, Budget(20, 8)).constraint
    assert constraint is not None
    assert Grammar(info, str(constraint.value), vocabulary).accepts(ids)
    found = family.read(ids, policy, complete=True).answer
    assert (found.decision, found.labels, found.parse_status) == (
        "undetermined",
        ("ESCALATE",),
        "ok",
    )
    assert recommended_action(found, policy) == "review"
    assert "label" in review_reasons(found, Provenance("safeguard", "m"), policy)


def test_the_spam_policys_shape_is_read_allowed_and_judged(
    full_tokenizer: HarmonyTokenizer, info: Any, vocabulary: list[bytes], harmony_encoding: Any
) -> None:
    """Readings of published policies: no category Example, two labels an item, an escalation for the worst."""
    policy = make_policy("spam", SPAM)
    taxonomy = policy.taxonomy
    assert [category.code for category in taxonomy.categories] == ["SP0", "SP2", "SP3", "SP4"]
    assert "Example" not in render_developer("", taxonomy)
    text = '{"labels":["D-SP2","R-SP4"],"rule_ids":["SP4.a"],"rationale":"A forged notice."}'
    ids = harmony_encoding.encode(f"{THOUGHT}{FINAL}{text}<|return|>", allowed_special="all")
    tag = structural_tag(taxonomy, full_tokenizer.control, Budget(20, 8))
    assert Grammar(info, tag, vocabulary).accepts(ids)
    answer = read_answer(
        ids, taxonomy, full_tokenizer.control, full_tokenizer, complete=True
    ).answer
    assert (answer.decision, answer.category, answer.labels) == (
        "violates",
        "SP4",
        ("D-SP2", "R-SP4"),
    )
    assert answer.parse_status == "ok"
    assert review_reasons(answer, Provenance("safeguard", "m"), policy) == ["label", "category"]


def test_reasoning_that_reached_its_budget_is_told(
    full_tokenizer: HarmonyTokenizer, harmony_encoding: Any
) -> None:
    """A cut of the reasoning passed for an answer: now its length is known, and a cut asks for a person."""
    policy = make_policy("p", BINARY)
    text = "<|channel|>analysis<|message|>one two three four<|end|><|start|>assistant"
    answer = example(policy.taxonomy, policy.taxonomy.outcomes[0])
    ids = harmony_encoding.encode(f"{text}{FINAL}{answer}<|return|>", allowed_special="all")
    reading = Harmony(full_tokenizer, "2025-01-01").read(ids, policy, complete=True)
    assert reading.answer.parse_status == "ok"
    assert reading.reasoning_tokens >= CUT.reasoning_tokens_max
    cut = Provenance("safeguard", "m", reasoning_cut=True)
    assert review_reasons(reading.answer, cut, policy) == ["reasoning_cut"]
