"""The grammar lets through every answer that a policy allows and nothing else, on the full vocabulary."""

# ruff: noqa: ANN401, FBT003 - untyped libraries' objects; drawn booleans; data by position

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xgrammar

from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.harmony.answer import read_answer
from stream_guard.judging.families.harmony.grammar import (
    combinations,
    completion_tokens_max,
    structural_tag,
)
from stream_guard.judging.families.harmony.prompt import example
from stream_guard.policies.outcomes import Outcome
from stream_guard.policies.policy import make_policy
from stream_guard.policies.taxonomy import Category, Taxonomy

if TYPE_CHECKING:
    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer

POLICIES = Path(__file__).parents[3] / "policies"
TAXONOMY = make_policy(
    "p", (POLICIES / "age-restricted-goods-and-services" / "policy.md").read_bytes()
).taxonomy
LIMITS = Budget(reasoning_tokens_max=20, rationale_tokens_max=8)
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"


class Grammar:
    """A compiled grammar over the full vocabulary."""

    def __init__(self, info: xgrammar.TokenizerInfo, tag: str, vocabulary: list[bytes]) -> None:
        self.compiled = xgrammar.GrammarCompiler(info).compile_structural_tag(tag)
        self.vocabulary = vocabulary
        self.mask = xgrammar.allocate_token_bitmask(1, len(vocabulary))

    def matcher(self) -> Any:
        """Return a matcher at the start."""
        return xgrammar.GrammarMatcher(self.compiled, override_stop_tokens=STOPS)

    def allowed(self, matcher: Any) -> list[int]:
        """Return the tokens that the mask lets through."""
        matcher.fill_next_token_bitmask(self.mask, 0)
        bits = np.unpackbits(self.mask[0].numpy().view(np.uint8), bitorder="little")
        allowed: list[int] = np.flatnonzero(bits[: len(self.vocabulary)]).tolist()
        return allowed

    def accepts(self, ids: list[int]) -> bool:
        """Return whether the mask lets each of these tokens through in turn."""
        matcher = self.matcher()
        for token in ids:
            matcher.fill_next_token_bitmask(self.mask, 0)
            if not (int(self.mask[0][token // 32]) >> (token % 32)) & 1:
                return False
            assert matcher.accept_token(token), "unmasked, then rejected"
        return True


STOPS = [200002, 199999, 200012]


@pytest.fixture(scope="session")
def info(vocabulary: list[bytes]) -> xgrammar.TokenizerInfo:
    return xgrammar.TokenizerInfo(
        vocabulary,
        vocab_type=xgrammar.VocabType.RAW,
        vocab_size=len(vocabulary),
        stop_token_ids=STOPS,
    )


def compile_for(
    taxonomy: Taxonomy, info: Any, tokenizer: HarmonyTokenizer, vocabulary: list[bytes]
) -> Grammar:
    return Grammar(info, structural_tag(taxonomy, tokenizer.control, LIMITS), vocabulary)


def walk(grammar: Grammar, seed: int) -> list[int]:
    """Return a completion of random tokens that the grammar allows."""
    chosen = random.Random(seed)  # noqa: S311 - a seeded walk
    matcher, ids = grammar.matcher(), []
    while not matcher.is_terminated():
        allowed = grammar.allowed(matcher)
        assert allowed, "a dead end"
        ids.append(chosen.choice(allowed))
        assert matcher.accept_token(ids[-1]), "unmasked, then rejected"
    return ids


@pytest.fixture(scope="session")
def grammar(info: Any, full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes]) -> Grammar:
    return compile_for(TAXONOMY, info, full_tokenizer, vocabulary)


@pytest.fixture
def encode(harmony_encoding: Any) -> Any:
    return lambda text: harmony_encoding.encode(text, allowed_special="all")


@pytest.mark.parametrize("header", [FINAL, "<|channel|>final <|constrain|>json<|message|>"])
@pytest.mark.parametrize(
    "answer",
    [
        '{"violation":0,"policy_category":"ARS0","rule_ids":[],"rationale":"A plain question."}',
        '{"violation":1,"policy_category":"ARS2","rule_ids":["ARS2.b"],"rationale":"Bypasses age checks"}',
        '{"violation":1,"policy_category":"ARS1","rule_ids":["ARS1.a","ARS1.c","ARS1.d"],"rationale":""}',
    ],
)
def test_an_answer_that_the_policy_allows_passes(
    grammar: Grammar, encode: Any, header: str, answer: str
) -> None:
    assert grammar.accepts(encode(f"{THOUGHT}{header}{answer}<|return|>"))


@pytest.mark.parametrize(
    "completion",
    [
        '{"violation":1}',
        f'{FINAL}{{"violation":1,',
        f"{THOUGHT}<|return|>",
        f'{THOUGHT}{FINAL}{{"violation":0,"policy_category":"ARS1"',
        f'{THOUGHT}{FINAL}{{"violation":1,"policy_category":"ARS9"',
        f'{THOUGHT}{FINAL}{{"violation":1,"policy_category":"ARS1","rule_ids":["ARS2.a"',
        f'{THOUGHT}{FINAL}{{"violation":1,"policy_category":"ARS1","rule_ids":["ARS1.a",]',
        f'{THOUGHT}{FINAL}{{"violation":1,"policy_category":"ARS1","rule_ids":["ARS1.a","ARS1.a","ARS1.a","ARS1.a"',
        f'{THOUGHT}{FINAL}{{"violation":1,"policy_category":"ARS1","rule_ids":[],"rationale":"a\n',
        f'{THOUGHT}{FINAL}{{"violation":1,"policy_category":"ARS1","rule_ids":[],"rationale":"a\\',
        f'{THOUGHT}{FINAL}{{"violation":1,"policy_category":"ARS1","rule_ids":[],"rationale":"<|end|>',
        f'{THOUGHT}{FINAL}{{"violation":1,"policy_category":"ARS1","rule_ids":[],"rationale":""}} ',
    ],
)
def test_what_the_policy_does_not_allow_does_not_pass(
    grammar: Grammar, encode: Any, completion: str
) -> None:
    assert not grammar.accepts(encode(completion))


def test_the_reasoning_budget_is_exact(
    grammar: Grammar, encode: Any, full_tokenizer: HarmonyTokenizer
) -> None:
    matcher = grammar.matcher()
    for token in encode("<|channel|>analysis<|message|>"):
        assert matcher.accept_token(token)
    (word,) = encode(" word")
    for _ in range(LIMITS.reasoning_tokens_max):
        allowed = grammar.allowed(matcher)
        assert word in allowed
        assert full_tokenizer.control.every & set(allowed) == {full_tokenizer.control.end}
        assert matcher.accept_token(word)
    assert grammar.allowed(matcher) == [full_tokenizer.control.end]


def test_the_rationale_is_bounded_and_holds_no_marker(
    grammar: Grammar, encode: Any, full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes]
) -> None:
    matcher = grammar.matcher()
    start = f'{THOUGHT}{FINAL}{{"violation":1,"policy_category":"ARS1","rule_ids":[],"rationale":"'
    for token in encode(start):
        assert matcher.accept_token(token)
    (word,) = encode(" word")
    for _ in range(LIMITS.rationale_tokens_max):
        allowed = grammar.allowed(matcher)
        assert word in allowed
        assert full_tokenizer.control.every.isdisjoint(allowed)
        assert matcher.accept_token(word)
    assert all(vocabulary[token].startswith(b'"') for token in grammar.allowed(matcher))


@pytest.mark.parametrize(
    "taxonomy",
    [
        TAXONOMY,
        make_policy("p", (POLICIES / "dangerous-content" / "policy.md").read_bytes()).taxonomy,
        Taxonomy(),
        Taxonomy((Category("HATE", "", True), Category('a"b\\c\u00e9', "", True)), ("HATE.1",)),
        Taxonomy((Category("OK", "", False),)),
    ],
)
def test_every_completion_that_passes_is_read_as_ok(
    taxonomy: Taxonomy, info: Any, full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes]
) -> None:
    grammar = compile_for(taxonomy, info, full_tokenizer, vocabulary)
    tokens_max = completion_tokens_max(taxonomy, LIMITS)
    pairs = {(pair.outcome.decision, pair.category) for pair in combinations(taxonomy)}
    for seed in range(12):
        ids = walk(grammar, seed)
        assert len(ids) <= tokens_max
        answer = read_answer(
            ids, taxonomy, full_tokenizer.control, full_tokenizer, complete=True
        ).answer
        assert answer.parse_status == "ok"
        assert (answer.decision, answer.category) in pairs
        assert all(rule.startswith(f"{answer.category}.") for rule in answer.rule_ids)


def test_a_label_without_a_category_of_its_own_comes_with_null() -> None:
    pairs = combinations(Taxonomy((Category("S1", "", True),), ("S1.a",)))
    assert [(pair.outcome.decision, pair.category) for pair in pairs] == [
        ("violates", "S1"),
        ("safe", None),
    ]


def test_the_tag_is_small_since_every_request_carries_it(full_tokenizer: HarmonyTokenizer) -> None:
    control = full_tokenizer.control
    tag = json.loads(structural_tag(TAXONOMY, control, LIMITS))
    excluded = tag["format"]["elements"][3].pop("exclude_tokens")
    assert set(excluded) == control.every
    assert len(json.dumps(tag)) < 6_000


REMOVE, ALLOW, ESCALATE, GATE = (
    Outcome("REMOVE", "violates"),
    Outcome("ALLOW", "safe"),
    Outcome("ESCALATE", "undetermined", needs_review=True),
    Outcome("AGE_GATE", "violates", "age_gate"),
)
BAD, WORSE, FINE = Category("C1", "", True), Category("C2", "", True), Category("C0", "", False)
SHAPES = {
    "no categories": Taxonomy(),
    "two": TAXONOMY,
    "incomplete": Taxonomy((BAD,), complete=False),
    "incomplete, with rules": Taxonomy((BAD, FINE), ("C1.a", "C0.a"), complete=False),
    "three outcomes": Taxonomy((), (), "REMOVE", "ALLOW", outcomes=(REMOVE, ALLOW, ESCALATE)),
    "a category for each of four outcomes": Taxonomy(
        (BAD, FINE, Category("C9", "", True, label="ESCALATE"), replace(WORSE, label="AGE_GATE")),
        ("C1.a", "C1.b", "C2.a"),
        "REMOVE",
        "ALLOW",
        outcomes=(REMOVE, ALLOW, ESCALATE, GATE),
    ),
    "an outcome without a category": Taxonomy(
        (BAD,), (), "REMOVE", "ALLOW", complete=False, outcomes=(REMOVE, ALLOW, ESCALATE)
    ),
    "two labels": Taxonomy((BAD, WORSE, FINE), label_kinds=("D", "R")),
    "two labels, with rules": Taxonomy((BAD, FINE), ("C1.a", "C0.a"), label_kinds=("D", "R")),
    "two labels, no safe category": Taxonomy((BAD, WORSE), label_kinds=("D", "R")),
    "two labels, three outcomes": Taxonomy(
        (BAD, FINE, Category("C9", "", True, label="ESCALATE")),
        (),
        "REMOVE",
        "ALLOW",
        label_kinds=("D", "R"),
        outcomes=(REMOVE, ALLOW, ESCALATE),
    ),
    "no violating category": Taxonomy((FINE,)),
}


@pytest.mark.parametrize("taxonomy", SHAPES.values(), ids=SHAPES)
def test_every_example_of_the_prompt_is_an_answer(
    taxonomy: Taxonomy,
    info: Any,
    full_tokenizer: HarmonyTokenizer,
    vocabulary: list[bytes],
    encode: Any,
) -> None:
    grammar = compile_for(taxonomy, info, full_tokenizer, vocabulary)
    for outcome in taxonomy.outcomes:
        text = example(taxonomy, outcome)
        ids = encode(f"{THOUGHT}{FINAL}{text}<|return|>")
        assert grammar.accepts(ids), text
        answer = read_answer(
            ids, taxonomy, full_tokenizer.control, full_tokenizer, complete=True
        ).answer
        assert (answer.parse_status, answer.decision) == ("ok", outcome.decision), text
        assert len(ids) <= completion_tokens_max(taxonomy, LIMITS)


@pytest.mark.parametrize("taxonomy", SHAPES.values(), ids=SHAPES)
def test_every_completion_of_every_shape_is_read_as_ok(
    taxonomy: Taxonomy, info: Any, full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes]
) -> None:
    grammar = compile_for(taxonomy, info, full_tokenizer, vocabulary)
    tokens_max = completion_tokens_max(taxonomy, LIMITS)
    for seed in range(6):
        ids = walk(grammar, seed)
        assert len(ids) <= tokens_max
        answer = read_answer(
            ids, taxonomy, full_tokenizer.control, full_tokenizer, complete=True
        ).answer
        assert answer.parse_status == "ok"
        assert len(answer.labels) in {0, len(taxonomy.label_kinds) or 1}


@pytest.mark.parametrize(
    "start",
    [
        '{"label":"REMOVE","policy_category":"C0"',
        '{"label":"ALLOW","policy_category":"C1"',
        '{"label":"ESCALATE","policy_category":null',
        '{"label":"MAYBE"',
        '{"violation":1',
    ],
)
def test_a_category_comes_with_its_own_outcome_alone(
    start: str, info: Any, full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes], encode: Any
) -> None:
    taxonomy = SHAPES["a category for each of four outcomes"]
    grammar = compile_for(taxonomy, info, full_tokenizer, vocabulary)
    assert not grammar.accepts(encode(f"{THOUGHT}{FINAL}{start}"))
