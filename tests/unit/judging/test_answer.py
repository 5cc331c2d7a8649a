"""Answers are read leniently, never guessed, and never name what the policy does not have."""

# ruff: noqa: ANN401, FBT001, FBT003 - untyped libraries' objects; drawn booleans; data by position

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_guard.judging.contract import Answer
from stream_guard.judging.families.harmony.answer import (
    HarmonyReading,
    read_answer,
    violation_position,
)
from stream_guard.judging.families.harmony.fields import RATIONALE_CHARS_MAX
from stream_guard.judging.families.harmony.tokens import split_messages
from stream_guard.policies.outcomes import Outcome
from stream_guard.policies.taxonomy import Category, Taxonomy

if TYPE_CHECKING:
    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer

TAXONOMY = Taxonomy(
    (Category("S0", "Fine", False), Category("S1", "Scam", True), Category("S2", "Spam", True)),
    ("S0.a", "S1.a", "S1.b", "S2.a"),
    "INVALID",
    "VALID",
)
BARE = Taxonomy()
THOUGHT = "<|channel|>analysis<|message|>It is a scam.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
WHOLE = (
    '{"violation":1,"policy_category":"S1","rule_ids":["S1.a"],"rationale":"It asks for money."}'
)
SCAM = Answer("violates", "S1", ("S1.a",), "It asks for money.", "ok")


def ids_of(text: str, tokenizer: HarmonyTokenizer, vocabulary: list[bytes]) -> list[int]:
    """Encode a completion with its markers as markers."""
    markers = {vocabulary[token].decode(): token for token in sorted(tokenizer.control.every)}
    ids: list[int] = []
    for at, piece in enumerate(text.split("<|")):
        if at:
            name, _, piece = piece.partition("|>")  # noqa: PLW2901 - the rest of the piece
            ids.append(markers[f"<|{name}|>"])
        ids.extend(tokenizer.encode(piece))
    return ids


@pytest.fixture
def read(full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes]) -> Any:
    def read(text: str, taxonomy: Taxonomy = TAXONOMY, *, complete: bool = True) -> Answer:
        ids = ids_of(text, full_tokenizer, vocabulary)
        return read_answer(
            ids, taxonomy, full_tokenizer.control, full_tokenizer, complete=complete
        ).answer

    return read


@pytest.mark.parametrize("header", [FINAL, "<|channel|>final <|constrain|>json<|message|>"])
def test_what_was_asked_for_is_ok(read: Any, header: str) -> None:
    assert read(f"{THOUGHT}{header}{WHOLE}<|return|>") == SCAM


def test_a_safe_answer_is_ok(read: Any) -> None:
    text = '{"violation":0,"policy_category":"S0","rule_ids":[],"rationale":"A question."}'
    assert read(f"{THOUGHT}{FINAL}{text}<|return|>") == Answer(
        "safe", "S0", (), "A question.", "ok"
    )


def test_a_policy_without_categories_is_ok(read: Any) -> None:
    text = '{"violation":1,"rationale":"Rude."}'
    assert read(f"{THOUGHT}{FINAL}{text}<|return|>", BARE) == Answer(
        "violates", None, (), "Rude.", "ok"
    )


@pytest.mark.parametrize(
    "final",
    [
        f"{FINAL}Here it is: {WHOLE} I hope it helps.<|return|>",
        f"{FINAL}```json\n{WHOLE}\n```<|return|>",
        f"{FINAL}{WHOLE.replace(chr(34), chr(39))}<|return|>",
        f"{FINAL}{WHOLE.replace('1,', 'true,', 1)}<|return|>",
        f"{FINAL}{WHOLE.replace('1,', chr(34) + '1' + chr(34) + ',', 1)}<|return|>",
        f"{FINAL}{WHOLE.replace('1,', chr(34) + 'INVALID' + chr(34) + ',', 1)}<|return|>",
        f"{FINAL}{WHOLE.replace('policy_category', 'category')}<|return|>",
        f"{FINAL}{WHOLE[:-1]}<|return|>",
        f"<|channel|>final{WHOLE}<|return|>",
        f"<|channel|>final<|constrain|>json{WHOLE}<|return|>",
        f"<|channel|>final code<|message|>{WHOLE}<|call|>",
        f"<|channel|>final<|message|><|channel|>final<|message|>{WHOLE}<|return|>",
    ],
)
def test_a_clear_meaning_in_the_wrong_form_is_repaired(read: Any, final: str) -> None:
    answer = read(THOUGHT + final)
    assert (answer.decision, answer.category, answer.rule_ids) == ("violates", "S1", ("S1.a",))
    assert answer.rationale == "It asks for money."
    assert answer.parse_status in {"repaired", "ok"}
    if "final code" not in final:
        assert answer.parse_status == "repaired"


@pytest.mark.parametrize(
    ("text", "decision", "category"),
    [
        ("1", "violates", None),
        ("0", "safe", None),
        ("INVALID", "violates", None),
        ("`VALID`", "safe", None),
        ("Label: VALID.", "safe", None),
        ("S2", "violates", "S2"),
        ("**S0**", "safe", "S0"),
        ("S1.b", "violates", "S1"),
        ('{"category":"S2"}', "violates", "S2"),
        ('{"label":"S0"}', "safe", "S0"),
        ('{"violation":[1],"category":["S1"]}', "violates", "S1"),
        ("{'violation': 0, 'category': 'S0', 'rationale': 'it's fine'}", "safe", "S0"),
    ],
)
def test_labels_and_codes_alone_are_read(
    read: Any, text: str, decision: str, category: str | None
) -> None:
    answer = read(f"{THOUGHT}{FINAL}{text}<|return|>")
    assert (answer.decision, answer.category, answer.parse_status) == (
        decision,
        category,
        "repaired",
    )


def test_the_policys_own_words_come_before_the_common_ones(read: Any) -> None:
    upside_down = Taxonomy(violates_label="allowed", safe_label="unsafe")
    assert read(f"{FINAL}allowed<|return|>", upside_down).decision == "violates"
    assert read(f"{FINAL}unsafe<|return|>", upside_down).decision == "safe"


@pytest.mark.parametrize(
    ("text", "category", "rules"),
    [
        ('{"violation":1,"category":"X9","rule_ids":[],"rationale":"r"}', None, ()),
        (
            '{"violation":1,"category":"S1","rule_ids":["S1.z","S1.a"],"rationale":"r"}',
            "S1",
            ("S1.a",),
        ),
        ('{"violation":1,"category":"S1","rule_ids":["S1.a",7],"rationale":"r"}', "S1", ("S1.a",)),
        ("{'violation': 1, 'category': 'hate', 'rule_ids': ['S9.a']}", None, ()),
    ],
)
def test_what_the_policy_does_not_have_is_dropped(
    read: Any, text: str, category: str | None, rules: tuple[str, ...]
) -> None:
    answer = read(f"{THOUGHT}{FINAL}{text}<|return|>")
    assert answer.decision == "violates"
    assert (answer.category, answer.rule_ids, answer.parse_status) == (
        category,
        rules,
        "category_dropped",
    )


@pytest.mark.parametrize(
    "text",
    [
        "I cannot say.",
        "It is not safe and no scam either, yes.",
        '{"violation":2}',
        '{"violation":null}',
        '{"violation":0,"category":"S1"}',
        '{"violation":0}{"violation":1}',
        '{"violation":0,"violation":1}',
        "violation: 0 or violation: 1",
        "S1 or S2",
        "VALID INVALID",
        "[" * 5_000,
        '{"a":' * 3_000,
        '{"violation":' + "1" * 5_000 + "}",
        "\ufffd\ufffd",
        "x " * 30_000,
    ],
)
def test_nothing_is_guessed(read: Any, text: str) -> None:
    assert read(f"{THOUGHT}{FINAL}{text}<|return|>") == Answer(
        "undetermined", parse_status="malformed"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<|return|>",
        "<|channel|>analysis<|message|>INVALID S1<|return|>",
        '<|channel|>commentary<|message|>{"violation":1}<|return|>',
        f"{THOUGHT}{FINAL}<|return|>",
        f"{THOUGHT}{FINAL}  \n<|return|>",
        f"{THOUGHT}{FINAL}<|end|><|start|>assistant<|channel|>analysis<|message|>1<|return|>",
    ],
)
def test_without_a_final_channel_there_is_no_answer(read: Any, text: str) -> None:
    assert read(text) == Answer("undetermined", parse_status="empty")


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>analysis<|message|>hm",
        f"{THOUGHT}{FINAL}",
        f'{THOUGHT}{FINAL}{{"violation":1',
        f"{FINAL}S1",
    ],
)
def test_what_was_cut_off_is_truncated(read: Any, text: str) -> None:
    assert read(text, complete=False) == Answer("undetermined", parse_status="truncated")


def test_a_whole_answer_that_ran_on_is_repaired(read: Any) -> None:
    assert read(f"{THOUGHT}{FINAL}{WHOLE} and so", complete=False).parse_status == "repaired"


def test_text_without_any_channel_is_read(read: Any) -> None:
    assert read(f"{WHOLE}<|return|>").parse_status == "repaired"
    assert read(f"{THOUGHT}<|message|>{WHOLE}<|return|>").category == "S1"


def test_the_last_final_message_counts(read: Any) -> None:
    text = f'{FINAL}{{"violation":0}}<|end|><|start|>assistant{FINAL}{WHOLE}<|return|>'
    assert read(text).decision == "violates"


def test_a_rationale_is_one_short_line(read: Any) -> None:
    answer = read(f'{FINAL}{{"violation":1,"rationale":"a\n\tb\u2028c{"d" * 5_000}"}}<|return|>')
    assert answer.rationale is not None
    assert answer.rationale.startswith("a b c")
    assert len(answer.rationale) == RATIONALE_CHARS_MAX


def test_a_cut_character_is_replaced(
    full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes]
) -> None:
    half = (
        vocabulary.index("\U0001f9d1".encode()[:2])
        if "\U0001f9d1".encode()[:2] in vocabulary
        else vocabulary.index(b"\xf0")
    )
    ids = [
        *ids_of(f'{FINAL}{{"violation":0,"rationale":"', full_tokenizer, vocabulary),
        half,
        *ids_of('"}<|return|>', full_tokenizer, vocabulary),
    ]
    answer = read_answer(ids, BARE, full_tokenizer.control, full_tokenizer, complete=True).answer
    assert answer.rationale == "\ufffd"


def test_the_position_of_the_label_is_found(
    full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes]
) -> None:
    digits = (vocabulary.index(b"0"), vocabulary.index(b"1"))
    thought = "<|channel|>analysis<|message|>violation: 1, not 0<|end|><|start|>assistant"
    ids = ids_of(f"{thought}{FINAL}{WHOLE}<|return|>", full_tokenizer, vocabulary)
    reading = read_answer(ids, TAXONOMY, full_tokenizer.control, full_tokenizer, complete=True)
    position = violation_position(reading, digits, full_tokenizer)
    assert position is not None
    assert ids[position] == digits[1]
    assert full_tokenizer.decode(ids[:position]).endswith('{"violation":')


@pytest.mark.parametrize(
    ("after", "complete"),
    [
        (f"{FINAL}{WHOLE}<|return|>", True),
        (f"{FINAL}I cannot say.<|return|>", True),
        (f"{FINAL}<|return|>", True),
        (f"{FINAL}{'x ' * 30_000}", False),
        ("", False),
    ],
)
def test_the_tokens_of_the_reasoning_are_counted(
    full_tokenizer: HarmonyTokenizer,
    vocabulary: list[bytes],
    after: str,
    complete: bool,
) -> None:
    thought = "It asks for money, and for a password."
    text = f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant{after}"
    ids = ids_of(text, full_tokenizer, vocabulary)
    reading = read_answer(ids, TAXONOMY, full_tokenizer.control, full_tokenizer, complete=complete)
    assert reading.reasoning_tokens == len(full_tokenizer.encode(thought))


def test_without_reasoning_no_token_is_counted(
    full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes]
) -> None:
    ids = ids_of(f"{FINAL}{WHOLE}<|return|>", full_tokenizer, vocabulary)
    reading = read_answer(ids, TAXONOMY, full_tokenizer.control, full_tokenizer, complete=True)
    assert reading.reasoning_tokens == 0


def test_without_a_label_there_is_no_position(
    full_tokenizer: HarmonyTokenizer, vocabulary: list[bytes]
) -> None:
    digits = (vocabulary.index(b"0"), vocabulary.index(b"1"))
    empty = HarmonyReading(Answer("undetermined", parse_status="empty"))
    assert violation_position(empty, digits, full_tokenizer) is None
    ids = ids_of(f"{FINAL}S1 is 1<|return|>", full_tokenizer, vocabulary)
    reading = read_answer(ids, TAXONOMY, full_tokenizer.control, full_tokenizer, complete=True)
    assert violation_position(reading, digits, full_tokenizer) is None


MARKER_IDS = st.sampled_from([200002, 200003, 200005, 200006, 200007, 200008, 200012])
WORD_IDS = st.sampled_from(
    [
        "analysis",
        "final",
        "assistant",
        "json",
        '{"',
        "violation",
        '":',
        "1",
        "0",
        "S1",
        "'",
        "}",
        "[",
    ]
)


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), complete=st.booleans())
def test_no_tokens_whatever_make_the_reader_raise(
    full_tokenizer: HarmonyTokenizer, data: st.DataObject, complete: bool
) -> None:
    parts = data.draw(st.lists(MARKER_IDS | WORD_IDS | st.integers(0, 210_000), max_size=60))
    ids: list[int] = []
    for part in parts:
        ids.extend([part] if isinstance(part, int) else full_tokenizer.encode(part))
    answer = read_answer(
        ids, TAXONOMY, full_tokenizer.control, full_tokenizer, complete=complete
    ).answer
    assert answer.category is None or TAXONOMY.category(answer.category)
    assert set(answer.rule_ids) <= set(TAXONOMY.rule_ids)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(thought=TEXT, final=TEXT, commentary=st.none() | TEXT)
def test_well_formed_completions_split_as_the_official_parser_splits_them(
    full_tokenizer: HarmonyTokenizer,
    harmony_encoding: Any,
    thought: str,
    final: str,
    commentary: str | None,
) -> None:
    from openai_harmony import Role

    control = full_tokenizer.control
    header = full_tokenizer.encode("assistant")
    ids: list[int] = []
    parts = [
        ("analysis", thought),
        *([("commentary", commentary)] if commentary else []),
        ("final", final),
    ]
    for channel, text in parts:
        if ids:
            ids += [control.end, control.start, *header]
        ids += [
            control.channel,
            *full_tokenizer.encode(channel),
            control.message,
            *full_tokenizer.encode(text),
        ]
    ids.append(control.return_)
    official = harmony_encoding.parse_messages_from_completion_tokens(ids, Role.ASSISTANT)
    ours = split_messages(ids, control, full_tokenizer)
    assert [(m.channel, m.content[0].text) for m in official] == [
        (m.channel, full_tokenizer.decode(m.ids)) for m in ours
    ]
    assert all(message.whole for message in ours)


OUTCOMES = Taxonomy(
    (
        Category("C1", "Scam", True),
        Category("C0", "Fine", False),
        Category("C9", "Unclear", True, label="ESCALATE"),
        Category("C5", "Adult", True, label="AGE_GATE"),
    ),
    ("C1.a",),
    "REMOVE",
    "ALLOW",
    outcomes=(
        Outcome("REMOVE", "violates"),
        Outcome("ALLOW", "safe"),
        Outcome("ESCALATE", "undetermined", needs_review=True),
        Outcome("AGE_GATE", "violates"),
    ),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"label":"ESCALATE","policy_category":"C9","rule_ids":[],"rationale":"r"}',
            Answer("undetermined", "C9", (), "r", "ok", ("ESCALATE",), True),
        ),
        (
            '{"label":"AGE_GATE","policy_category":"C5","rule_ids":[],"rationale":"r"}',
            Answer("violates", "C5", (), "r", "ok", ("AGE_GATE",)),
        ),
        ("ESCALATE", Answer("undetermined", None, (), None, "repaired", ("ESCALATE",), True)),
        ("age_gate", Answer("violates", None, (), None, "repaired", ("AGE_GATE",))),
        ("1", Answer("violates", None, (), None, "repaired")),
        ("C5", Answer("violates", "C5", (), None, "repaired", ("AGE_GATE",))),
        (
            '{"violation":1,"policy_category":"C5"}',
            Answer("violates", "C5", (), None, "repaired", ("AGE_GATE",)),
        ),
        (
            '{"label":"ESCALATE","policy_category":"C1"}',
            Answer("undetermined", None, (), None, "category_dropped", ("ESCALATE",), True),
        ),
        (
            '{"label":"ALLOW","policy_category":"C1"}',
            Answer("undetermined", parse_status="malformed"),
        ),
        ("REMOVE or ALLOW", Answer("undetermined", parse_status="malformed")),
        ("AGE_GATE or REMOVE", Answer("undetermined", parse_status="malformed")),
    ],
)
def test_each_outcome_of_the_policy_is_read(read: Any, text: str, expected: Answer) -> None:
    assert read(f"{FINAL}{text}<|return|>", OUTCOMES) == expected


KINDS = Taxonomy(
    (
        Category("SP0", "Fine", False),
        Category("SP2", "Spam", True),
        Category("SP4", "Scam", True, needs_review=True),
    ),
    (),
    "INVALID",
    "VALID",
    label_kinds=("D", "R"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"labels":["D-SP2","R-SP0"],"rationale":"r"}',
            Answer("violates", "SP2", (), "r", "ok", ("D-SP2", "R-SP0")),
        ),
        (
            '{"labels":["D-SP0","R-SP4"],"rationale":"r"}',
            Answer("violates", "SP4", (), "r", "ok", ("D-SP0", "R-SP4"), True),
        ),
        (
            '{"labels":["D-SP2","R-SP4"],"rationale":"r"}',
            Answer("violates", "SP4", (), "r", "ok", ("D-SP2", "R-SP4"), True),
        ),
        ("D-SP0, R-SP0", Answer("safe", "SP0", (), None, "repaired", ("D-SP0", "R-SP0"))),
        ("`R-SP2`, `D-SP0`", Answer("violates", "SP2", (), None, "repaired", ("D-SP0", "R-SP2"))),
        ("D-SP2", Answer("violates", "SP2", (), None, "repaired", ("D-SP2",))),
        (
            '{"labels":["D-SP2","R-SP9"],"rationale":"r"}',
            Answer("violates", "SP2", (), "r", "category_dropped", ("D-SP2",)),
        ),
        ("D-SP2, D-SP0", Answer("undetermined", parse_status="malformed")),
        ("INVALID + ESCALATE", Answer("violates", None, (), None, "repaired", (), True)),
        (
            '{"violation":1,"policy_category":"SP2"}',
            Answer("violates", "SP2", (), None, "repaired"),
        ),
    ],
)
def test_of_the_labels_of_each_kind_the_worse_decides(
    read: Any, text: str, expected: Answer
) -> None:
    assert read(f"{FINAL}{text}<|return|>", KINDS) == expected


def test_the_words_of_an_author_are_read_in_any_script(read: Any) -> None:
    taxonomy = Taxonomy(violates_label="GERÜCHT", safe_label="Not Violating")
    assert read(f"{FINAL}GERÜCHT<|return|>", taxonomy).decision == "violates"
    assert read(f"{FINAL}Label: gerücht<|return|>", taxonomy).decision == "violates"
    assert read(f"{FINAL}not violating.<|return|>", taxonomy).decision == "safe"
