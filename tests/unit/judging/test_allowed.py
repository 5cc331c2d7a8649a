"""What was written without a grammar counts only if the grammar would have allowed it."""

# ruff: noqa: ANN401 - untyped libraries' objects

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.harmony.family import Harmony
from stream_guard.judging.families.harmony.prompt import example
from stream_guard.policies.policy import make_policy
from tests.unit.judging.test_engine_grammar import (
    FINAL,
    POLICIES,
    SHAPES,
    STOPS,
    THOUGHT,
    Grammar,
    info,
    walk,
)
from tests.unit.judging.test_native import CODES, FULL, JSON, native

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer
    from stream_guard.policies.policy import Policy

__all__ = ["info"]

LIMITS = Budget(reasoning_tokens_max=20, rationale_tokens_max=8)
POLICY = make_policy(
    "p", (POLICIES / "age-restricted-goods-and-services" / "policy.md").read_bytes()
)
HEAD = '{"violation":1,"policy_category":"ARS1","rule_ids":["ARS1.a"],"rationale":"'
NATIVE = {
    "json with a rationale": native(FULL),
    "json": native(JSON),
    "codes": native(CODES),
    "labels": native("two-labels-an-item"),
    "words": native("three-outcomes"),
}
ANSWERS = {
    native(FULL).sha256: (
        '{"violation": 1, "policy_category": "H2", "rule_ids": ["H2.a"], "confidence": "high", '
        '"rationale": "It hits."}'
    ),
    native(JSON).sha256: '{"violation": 0, "policy_category": null}',
    native(CODES).sha256: "C1",
    native("two-labels-an-item").sha256: "D-SP2, R-SP0",
    native("three-outcomes").sha256: "ESCALATE",
}
"""By a native policy's digest, what it may be answered with."""


@pytest.fixture(scope="module")
def family(full_tokenizer: HarmonyTokenizer) -> Harmony:
    return Harmony(full_tokenizer, "2025-01-01")


@pytest.fixture
def encode(harmony_encoding: Any) -> Callable[[str], list[int]]:
    return lambda text: list(harmony_encoding.encode(text, allowed_special="all"))


def allows(family: Harmony, policy: Policy) -> Callable[[list[int]], bool]:
    return family.unconstrained(policy, LIMITS).allows


def with_taxonomy(shape: str) -> Policy:
    policy = make_policy("p", b"Posts about cats are not allowed.")
    object.__setattr__(policy, "taxonomy", SHAPES[shape])
    return policy


def grammar_of(family: Harmony, policy: Policy, info: Any, vocabulary: list[bytes]) -> Grammar:
    constraint = family.sampling(policy, LIMITS).constraint
    assert constraint is not None
    return Grammar(info, str(constraint.value), vocabulary)


def is_whole(grammar: Grammar, ids: list[int]) -> bool:
    """Return whether the grammar allows these tokens, and ends with the last."""
    matcher = grammar.matcher()
    for token in ids:
        if matcher.is_terminated():
            return False
        matcher.fill_next_token_bitmask(grammar.mask, 0)
        if not (int(grammar.mask[0][token // 32]) >> (token % 32)) & 1:
            return False
        assert matcher.accept_token(token)
    return bool(matcher.is_terminated())


@pytest.mark.parametrize(
    "written",
    [
        f'{THOUGHT}{FINAL}{HEAD}It encourages."}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD}"}}<|return|>',
        f'{THOUGHT}<|channel|>final <|constrain|>json<|message|>{HEAD}\u00c9 \U0001f600."}}<|return|>',
        f'<|channel|>analysis<|message|><|end|><|start|>assistant{FINAL}{HEAD}a"}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD}one two three four five six seven"}}<|return|>',
    ],
)
def test_what_the_grammar_allows_counts(family: Harmony, encode: Any, written: str) -> None:
    assert allows(family, POLICY)(encode(written))


@pytest.mark.parametrize(
    "written",
    [
        "",
        f"{THOUGHT}{FINAL}<|return|>",
        f'{THOUGHT}{FINAL}{HEAD}a"}}',
        f'{THOUGHT}{FINAL}{HEAD}a"}}<|end|>',
        f'{THOUGHT}{FINAL}{HEAD}a"}}<|return|><|return|>',
        f'{THOUGHT}{FINAL}{HEAD}a"}} <|return|>',
        f'{THOUGHT}{FINAL} {HEAD}a"}}<|return|>',
        f'{FINAL}{HEAD}a"}}<|return|>',
        f'{THOUGHT}<|channel|>final<|constrain|>json<|message|>{HEAD}a"}}<|return|>',
        f'{THOUGHT}<|channel|>commentary<|message|>{HEAD}a"}}<|return|>',
        f'{THOUGHT}{THOUGHT}{FINAL}{HEAD}a"}}<|return|>',
        f'<|channel|>analysis<|message|>a<|channel|>b<|end|><|start|>assistant{FINAL}{HEAD}a"}}<|return|>',
        f'<|channel|>analysis<|message|>{" word" * 21}<|end|><|start|>assistant{FINAL}{HEAD}a"}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD}{" word" * 9}"}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD}a\\n"}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD}a\n"}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD}a"}}{{}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD.replace("ARS1.a", "ARS2.a")}a"}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD.replace("ARS1", "ARS0")}a"}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD.replace(":1", ": 1")}a"}}<|return|>',
        f'{THOUGHT}{FINAL}{HEAD.replace(":1", ":true")}a"}}<|return|>',
        f"{THOUGHT}{FINAL}1<|return|>",
        f'{THOUGHT}{FINAL}{{"violation":1}}<|return|>',
    ],
)
def test_what_the_grammar_does_not_allow_does_not_count(
    family: Harmony, encode: Any, written: str
) -> None:
    assert not allows(family, POLICY)(encode(written))


def test_a_marker_in_letters_and_ids_without_a_token_do_not_count(
    family: Harmony, encode: Any
) -> None:
    whole = encode(f'{THOUGHT}{FINAL}{HEAD}a"}}<|return|>')
    check = allows(family, POLICY)
    assert check(whole)
    place = whole.index(family.tokenizer.control.message)
    assert not check([*whole[: place + 1], 201_999, *whole[place + 1 :]])
    spelled = family.encode("<|end|>")
    assert not check([*whole[:-2], *spelled, *whole[-2:]])


@pytest.mark.parametrize(
    "policy",
    [*map(with_taxonomy, SHAPES), *NATIVE.values()],
    ids=[*SHAPES, *NATIVE],
)
def test_whatever_counts_is_in_the_grammars_language(
    policy: Policy, family: Harmony, info: Any, vocabulary: list[bytes], encode: Any
) -> None:
    """Random completions of the grammar, whole and damaged: none of them counts that the grammar rejects."""
    grammar, check = grammar_of(family, policy, info, vocabulary), allows(family, policy)
    chosen = random.Random(policy.sha256)  # noqa: S311 - seeded
    counted = 0
    for seed in range(3):
        ids = walk(grammar, seed)
        for _ in range(40):
            damaged = damage(ids, chosen)
            if check(damaged):
                counted += 1
                assert is_whole(grammar, damaged), family.show(damaged)
                assert family.read(damaged, policy, complete=True).answer.parse_status == "ok"
    texts = [ANSWERS[policy.sha256]] if policy.native else examples(policy)
    for text in texts:
        whole = encode(f"{THOUGHT}{FINAL}{text}<|return|>")
        assert is_whole(grammar, whole)
        counted += check(whole)
    assert counted, "nothing counted, so nothing was tried"


def examples(policy: Policy) -> list[str]:
    return [example(policy.taxonomy, outcome) for outcome in policy.taxonomy.outcomes]


@pytest.mark.parametrize(
    "policy", [POLICY, with_taxonomy("two labels"), NATIVE["json with a rationale"]]
)
def test_an_answer_by_two_requests_is_in_the_grammars_language(
    policy: Policy, family: Harmony, info: Any, vocabulary: list[bytes], encode: Any
) -> None:
    parts = family.in_parts(policy, LIMITS)
    assert parts.thinking.tokens_max == LIMITS.reasoning_tokens_max
    assert set(parts.thinking.stops) == family.tokenizer.control.every
    assert parts.answer.constraint is not None
    answers = Grammar(info, str(parts.answer.constraint.value), vocabulary)
    whole = grammar_of(family, policy, info, vocabulary)
    tokens_max = family.sampling(policy, LIMITS).tokens_max
    for seed in range(3):
        answer = walk(answers, seed)
        assert len(answer) <= parts.answer.tokens_max
        ids = [*parts.opening, *encode(" word" * seed), *parts.closing, *answer]
        assert is_whole(whole, ids), family.show(ids)
        assert len(ids) <= tokens_max
        assert family.read(ids, policy, complete=True).answer.parse_status == "ok"


def damage(ids: list[int], chosen: random.Random) -> list[int]:
    """Return the tokens with up to two of them replaced, dropped, doubled, moved or inserted."""
    ids = list(ids)
    for _ in range(chosen.randrange(3)):
        if not ids:
            break
        at = chosen.randrange(len(ids))
        other = chosen.choice([chosen.randrange(200_000), chosen.choice(ids), *STOPS[:1]])
        change = chosen.randrange(5)
        if change == 0:
            ids[at] = other
        elif change == 1:
            del ids[at]
        elif change == 2:
            ids.insert(at, other)
        elif change == 3:
            ids.insert(at, ids[at])
        else:
            ids.insert(chosen.randrange(len(ids)), ids.pop(at))
    return ids
