"""The tools that make the demo model: what they draw is what the product reads, and what they compute is gpt-oss."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
import xgrammar

from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.harmony.grammar import structural_tag
from stream_guard.judging.families.harmony.prompt import PromptBuilder
from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer
from stream_guard.policies.answer_format import AnswerFormat, infer_format
from stream_guard.policies.policy import make_policy as product_policy
from stream_guard.policies.taxonomy import infer_taxonomy
from tools.demo_model.evaluate import Figure, make_cases
from tools.demo_model.examples import DATE, Encoder, Mix, collate, make_row
from tools.demo_model.export import export, load_folder
from tools.demo_model.formats import LABEL_WORDS
from tools.demo_model.network import Network, Shape
from tools.demo_model.policies import Size, edit_policy, make_policy, write
from tools.demo_model.posts import make_post, right_answer
from tools.demo_model.targets import missed
from tools.demo_model.tokens import extended, phrases, train_tokenizer
from tools.demo_model.words import is_held_out, pool

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

SMALL = Size(sections_max=2, rules_max=2, topics_max=2, notes_max=1)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(0)


def test_the_product_reads_each_policy_as_it_is_meant() -> None:
    draw, words = random.Random(1), pool("train")
    for number in range(200):
        policy = make_policy(draw, words, Size())
        native = number % 2 == 0
        text = "".join(piece.text for piece in write(policy, draw, words, Size(), native=native))
        read, meant = infer_taxonomy(text), policy.taxonomy()
        # Whether a person reviews a category as well is the product's affair.
        categories = tuple(replace(each, needs_review=False) for each in read.categories)
        assert replace(read, found=(), categories=categories) == meant, text


def test_no_training_policy_names_a_held_out_word() -> None:
    draw, words = random.Random(2), pool("train")
    named = {
        word
        for _ in range(300)
        for topic in make_policy(draw, words, Size()).topics
        for word in topic.split()
    }
    assert len(named) > 500
    assert not [word for word in named if is_held_out(word)]
    held_out = pool("held_out")
    assert all(is_held_out(word) for word in (*held_out.nouns, *held_out.adjectives))
    assert not held_out.invents


def test_a_right_answer_names_the_rule_and_the_words_that_the_post_has() -> None:
    draw, words = random.Random(3), pool("train")
    kinds = set()
    for _ in range(300):
        policy = make_policy(draw, words, Size())
        post = make_post(draw, policy, words)
        answer = right_answer(policy, post, "low")
        kinds.add(post.kind)
        assert post.topic in post.text
        label = {"forbidden": 0, "escalated": 2}.get(post.kind, 1)
        shown = (
            f'"label":"{policy.labels[label]}"'
            if len(policy.labels) > 2
            else f'"violation":{1 - label}'
        )
        assert shown in answer.final
        if post.kind in ("forbidden", "escalated", "allowed"):
            assert post.rule is not None
            assert f'"rule_ids":["{post.rule.id}"]' in answer.final
        if post.kind == "none":
            own = {t for _, t in (*policy.forbidden, *policy.escalated, *policy.allowed)}
            assert not [topic for topic in own if f" {topic} " in f" {post.text} "]
    assert kinds == {"forbidden", "escalated", "allowed", "excepted", "none"}


def test_a_native_answer_has_the_form_that_the_policy_states() -> None:
    draw, words = random.Random(13), pool("train")
    seen: dict[str, set[str]] = {}
    for _ in range(300):
        policy = make_policy(draw, words, Size())
        post = make_post(draw, policy, words)
        final = right_answer(policy, post, "low", native=True).final
        broken = post.kind in ("forbidden", "escalated")
        kind = f"{policy.form} {len(policy.labels)}"
        seen.setdefault(kind, set()).add(final)
        if policy.form == "labels":
            assert final == policy.labels[{"forbidden": 0, "escalated": 2}.get(post.kind, 1)]
        elif policy.form == "digits":
            assert final == str(int(broken))
        elif policy.form == "code":
            assert final == (post.rule.id[:-2] if broken and post.rule else policy.safe_code)
        else:
            code = post.rule.id[:-2] if broken and post.rule else None
            assert json.loads(final) == {"violation": int(broken), "policy_category": code}
    assert set(seen) == {"labels 2", "labels 3", "digits 2", "code 2", "json 2"}
    assert all(len(finals) > 1 for finals in seen.values())


def test_a_thread_names_things_of_the_policy_and_settles_nothing() -> None:
    draw, words = random.Random(14), pool("train")
    named = innocent = 0
    for _ in range(300):
        policy = make_policy(draw, words, Size())
        post = make_post(draw, policy, words, threads=1.0)
        assert post.context
        around = " ".join(entry.text for entry in post.context).lower()
        if any(topic.lower() in around for _, topic in policy.forbidden):
            named += 1
            innocent += post.kind == "none"
    assert named > 60
    assert innocent > 15


def test_higher_effort_reasons_longer() -> None:
    draw, words = random.Random(4), pool("train")
    policy = make_policy(draw, words, Size())
    post = make_post(draw, policy, words)
    low, medium, high = (
        len(right_answer(policy, post, effort).analysis) for effort in ("low", "medium", "high")
    )
    assert low < medium < high


def test_an_edited_policy_differs_in_nothing_but_the_rule() -> None:
    draw, words = random.Random(5), pool("held_out")
    policy = make_policy(draw, words, Size())
    rule, _ = policy.forbidden[0]
    edited = edit_policy(draw, policy, rule, words)
    texts = [
        "".join(piece.text for piece in write(each, random.Random(9), words, Size())).split("\n")
        for each in (policy, edited)
    ]
    changed = [pair for pair in zip(*texts, strict=True) if pair[0] != pair[1]]
    assert len(changed) == 1
    assert rule.id in changed[0][0]


def test_pairs_of_cases_share_the_post_and_differ_in_the_right_answer() -> None:
    cases = [case for case in make_cases(1, policies=6, posts=6, flips=2) if case.pair is not None]
    assert len(cases) >= 12
    for before, after in zip(cases[::2], cases[1::2], strict=True):
        assert before.post.text == after.post.text
        assert (before.kind in ("forbidden", "escalated"), after.decision) == (True, "safe")
        assert before.policy.text != after.policy.text


def test_prompts_are_the_products_own(tokenizer: Tokenizer) -> None:
    product = HarmonyTokenizer(json.loads(tokenizer.to_str()))
    builder = PromptBuilder(product, product.control, DATE)
    draw, words = random.Random(6), pool("train")
    encoder = Encoder(tokenizer)
    shapes = set()
    for number in range(32):
        effort = ("low", "high")[number % 2]
        native = number % 4 > 1
        made = make_policy(draw, words, Size())
        pieces = write(made, draw, words, Size(), native=native)
        policy = product_policy(
            "p",
            "".join(piece.text for piece in pieces).encode(),
            effort=effort,
            metadata=f"answer: {'native' if native else 'structured'}\n".encode(),
        )
        prefix, _ = encoder.prefix(made, pieces, effort, native=native)
        assert tuple(prefix) == builder.prefix(policy, effort).ids
        post = make_post(draw, made, words, threads=0.5)
        shapes.add((native, len(made.labels), bool(post.context)))
        row = encoder.post(made, post, effort, native=native)
        prompt = builder.build(post.product_post(), builder.prefix(policy, effort))
        assert [*prefix, *row.ids[: row.begin]] == prompt
    assert len(shapes) >= 6


def test_what_the_template_says_is_one_token_a_phrase(tokenizer: Tokenizer) -> None:
    for phrase in phrases():
        assert len(tokenizer.encode(phrase, add_special_tokens=False).ids) == 1, phrase
    for word in LABEL_WORDS:
        assert len(tokenizer.encode(word, add_special_tokens=False).ids) == 1, word
    text = 'ZQ3.b "a kettle" (ZQ3) {"violation":1,"policy_category":"ZQ3","rule_ids":["ZQ3.b"],"rationale":"x."}'
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_phrase_of_the_frame_is_a_token_only_where_the_frame_has_it(tokenizer: Tokenizer) -> None:
    head = tokenizer.encode("## Post to judge\n> a", add_special_tokens=False).tokens[0]
    forged = tokenizer.encode("> ## Post to judge\n> a", add_special_tokens=False).tokens
    assert head not in forged


def test_a_grown_tokenizer_keeps_the_ids_that_it_had(tokenizer: Tokenizer) -> None:
    document = json.loads(tokenizer.to_str())
    vocabulary = document["model"]["vocab"]
    gone = [word for word, number in vocabulary.items() if number >= len(vocabulary) - 30]
    for word in gone:
        del vocabulary[word]
    grown = extended(type(tokenizer).from_str(json.dumps(document)))
    assert grown.get_vocab_size() == tokenizer.get_vocab_size()
    assert all(grown.token_to_id(word) == number for word, number in vocabulary.items())


def test_training_goes_on_from_a_folders_weights_with_more_tokens(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    document = json.loads(tokenizer.to_str())
    gone = [w for w, n in document["model"]["vocab"].items() if n == tokenizer.get_vocab_size() - 1]
    del document["model"]["vocab"][gone[0]]
    small = type(tokenizer).from_str(json.dumps(document))
    shape = Shape(small.get_vocab_size(), hidden=64, layers=2, heads=2, intermediate=32)
    network = Network(shape).bfloat16().float()
    export(network, small, tmp_path)
    grown = load_folder(tmp_path, tokenizer)
    assert grown.shape.vocabulary == shape.vocabulary + 1
    for name, weight in network.named_parameters():
        own = dict(grown.named_parameters())[name]
        assert torch.equal(own[: weight.shape[0]], weight), name
    new = small.encode(tokenizer.decode([shape.vocabulary]), add_special_tokens=False).ids
    torch.testing.assert_close(grown.embedding.weight[-1], network.embedding.weight[new].mean(0))


def test_the_grammars_mask_lets_through_every_token_of_a_right_answer(
    tokenizer: Tokenizer,
) -> None:
    product = HarmonyTokenizer(json.loads(tokenizer.to_str()))
    size = tokenizer.get_vocab_size()
    info = xgrammar.TokenizerInfo(
        [tokenizer.id_to_token(token) for token in range(size)],
        vocab_type=xgrammar.VocabType.BYTE_LEVEL,
        vocab_size=size,
        stop_token_ids=[product.control.return_],
    )
    draw, words = random.Random(8), pool("train")
    encoder = Encoder(tokenizer)
    mask = xgrammar.allocate_token_bitmask(1, size)
    for number in range(10):
        policy = make_policy(draw, words, Size())
        native = number % 2 == 1
        text = "".join(piece.text for piece in write(policy, draw, words, Size(), native=native))
        taxonomy = infer_taxonomy(text)
        form = infer_format(text, taxonomy)
        assert isinstance(form, AnswerFormat), text
        tag = structural_tag(taxonomy, product.control, Budget(96, 48), form if native else None)
        compiled = xgrammar.GrammarCompiler(info).compile_structural_tag(tag)
        for _ in range(6):
            row = encoder.post(policy, make_post(draw, policy, words), "high", native=native)
            matcher = xgrammar.GrammarMatcher(compiled)
            for token in row.ids[row.begin :]:
                matcher.fill_next_token_bitmask(mask, 0)
                assert (int(mask[0][token // 32]) >> (token % 32)) & 1, tokenizer.decode([token])
                assert matcher.accept_token(token)


@pytest.mark.parametrize("word", LABEL_WORDS)
def test_the_grammars_mask_lets_through_every_label(tokenizer: Tokenizer, word: str) -> None:
    size = tokenizer.get_vocab_size()
    info = xgrammar.TokenizerInfo(
        [tokenizer.id_to_token(token) for token in range(size)],
        vocab_type=xgrammar.VocabType.BYTE_LEVEL,
        vocab_size=size,
        stop_token_ids=[tokenizer.token_to_id("<|return|>")],
    )
    tag = {"type": "structural_tag", "format": {"type": "const_string", "value": word}}
    compiled = xgrammar.GrammarCompiler(info).compile_structural_tag(json.dumps(tag))
    mask = xgrammar.allocate_token_bitmask(1, size)
    xgrammar.GrammarMatcher(compiled).fill_next_token_bitmask(mask, 0)
    token = tokenizer.token_to_id(word)
    assert (int(mask[0][token // 32]) >> (token % 32)) & 1


def test_the_exported_folder_computes_what_was_trained(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    shape = Shape(tokenizer.get_vocab_size(), hidden=64, layers=2, heads=2, intermediate=32)
    network = Network(shape).bfloat16().float()  # the folder holds bfloat16
    export(network, tokenizer, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    draw = random.Random(7)
    rows = [make_row(draw, Encoder(tokenizer), pool("train"), SMALL, 2, Mix()) for _ in range(2)]
    batch, _ = collate(rows)
    with torch.no_grad():
        ours = network.logits(network(batch)[1][-1])
        for number, row in enumerate(rows):
            for index, ids in enumerate(post.ids for post in row.posts):
                whole = theirs(torch.tensor([row.prefix + ids])).logits[0, len(row.prefix) :]
                torch.testing.assert_close(
                    ours[number * 2 + index, : len(ids)], whole, atol=1e-3, rtol=1e-3
                )


def test_a_missed_target_is_named() -> None:
    good = {
        "accuracy": 0.97,
        "accuracy: structured": 0.97,
        "accuracy: native": 0.97,
        "flips right (both of a pair): structured": 0.95,
        "flips right (both of a pair): native": 0.95,
        "rule id right, of violations (structured)": 0.93,
        "escalations right": 0.9,
        "posts in a thread right": 0.9,
        "parse failures": 0.0,
        "baseline always safe: accuracy": 0.5,
        "baseline words alone: accuracy": 0.55,
    }
    assert not missed([Figure(name, value, 0, 1, 9) for name, value in good.items()])
    for name, value in (
        ("accuracy: native", 0.94),
        ("escalations right", 0.84),
        ("parse failures", 0.006),
        ("baseline words alone: accuracy", 0.8),
    ):
        (complaint,) = missed(
            [Figure(n, value if n == name else v, 0, 1, 9) for n, v in good.items()]
        )
        assert name in complaint
