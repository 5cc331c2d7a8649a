"""The demo model's tokenizer: a small byte-level BPE with harmony's control tokens, in Hugging Face form.

Words are cut into pieces, so that an unknown word consists of known pieces. Each fixed phrase of the product's prompts
and answers is one token. Prompts become half as long, and the model need not learn to read what never changes. Held-out
words are never used.
"""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Final, get_args

from stream_guard.core.vocabulary import ThreadKind
from stream_guard.judging.families.harmony.frame import FRAME, render_post
from stream_guard.judging.families.harmony.prompt import SYSTEM, render_developer
from stream_guard.policies.outcomes import Outcome
from stream_guard.policies.taxonomy import Category, Taxonomy
from stream_guard.records.post import Post, ThreadEntry
from stream_guard.testing.random_model import bpe_trainer, byte_level_bpe
from tools.demo_model.formats import JSON_PARTS, LABEL_WORDS
from tools.demo_model.policies import Size, make_policy, write
from tools.demo_model.posts import make_post, right_answer
from tools.demo_model.words import PLAIN, invented, is_held_out, listed, pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

    from stream_guard.core.vocabulary import Effort

VOCABULARY: Final = 3_600
"""Pieces and control tokens; the phrases come on top."""
_WHOLE: Final = sorted(
    {
        form
        for word in (*PLAIN, "names", "violates")
        if word.endswith("s")
        for form in (word, word.capitalize())
    }
)
# The letters of a code are always separate tokens, so that a code such as PT1.a always has the same tokens. So does
# the s of a plural: that kettles are more than one kettle is then seen, and need not be learnt for each word.
_PATTERN: Final = (
    r"\p{Lu}(?=\p{Lu}{0,7}\d)|\s(?=\p{Lu}{1,8}\d)|\.(?=\"\})|"
    rf" ?(?!(?:{'|'.join(_WHOLE)})(?!\p{{L}}))\p{{L}}{{2,}}[^s\P{{L}}](?=s(?!\p{{L}}))|"
    r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
)
_ANSWER: Final = (
    '{"violation":',
    '{"label":"',
    ',"policy_category":"',
    '","policy_category":"',
    ',"policy_category":null,"rule_ids":[],"rationale":"',
    '","policy_category":null,"rule_ids":[],"rationale":"',
    '","rule_ids":["',
    '","rule_ids":[],"rationale":"',
    ',"rationale":"',
    *JSON_PARTS,
)
# xgrammar 0.2.8 masks a token that would end the list of rules and go on, though it accepts it.
_APART: Final = ('"]',)
_LINE: Final = "\n> "
# xgrammar 0.2.8 masks INVALID where I and ID are tokens, and none lies between ID and it.
_BETWEEN: Final = "IN"
# Stand for a policy's own words, in the rendered template.
_HOLES: Final = "\ue000\ue001\ue002\ue003\ue004\ue005"
_SHORT: Final = 3
_POLICIES: Final = 1_500
_EFFORTS: Final[tuple[Effort, ...]] = ("low", "medium", "high")


def phrases() -> list[str]:
    """Return the fixed phrases of the product's template, frame and answers, longest first."""
    found = set(_ANSWER)
    rendered = [SYSTEM.replace("{date}", _HOLES[0]).replace("{effort}", _HOLES[0])]
    rendered += _developers()
    # The line before a thread is a phrase of its own, whatever text of the thread comes first.
    head = FRAME.partition("\0")[0]
    rendered += [text.removeprefix(head) for text in _frames()]
    found.add(head)
    for text in rendered:
        found.update(re.split(f"[{_HOLES}]", text))
    return sorted((phrase for phrase in found if len(phrase) > _SHORT), key=lambda p: (-len(p), p))


def _developers() -> Iterator[str]:
    """Yield developer messages of every shape that the synthetic policies take, with holes for their words."""
    policy, bad, good, people, letter, other = _HOLES
    categories = (
        Category(f"{letter}{bad}", "", violates=True),
        Category(f"{letter}{other}", "", violates=True),
        Category(f"{letter}{good}", "", violates=False),
        Category(f"{letter}{people}", "", violates=True, label=people),
    )
    pair = Outcome(bad, "violates"), Outcome(good, "safe")
    three = *pair, Outcome(people, "undetermined", needs_review=True)
    for outcomes, chosen in (
        (pair, categories[:1]),
        (pair, categories[:3]),
        (three, categories[::3]),
        (three, categories),
    ):
        rules = tuple(f"{category.code}.{other}" for category in chosen)
        taxonomy = Taxonomy(chosen, rules, bad, good, outcomes=outcomes)
        yield render_developer(policy, taxonomy)


def _frames() -> Iterator[str]:
    """Yield user messages with every line that the frame has, with holes for foreign text."""
    hole, tag = _HOLES[0], "zz"
    kinds: tuple[ThreadKind, ...] = get_args(ThreadKind)
    # One entry of each kind, by the same author, by two others, and by an unknown one.
    entries = tuple(
        ThreadEntry(kind, hole, author) for author in ("1", "2", "3", None) for kind in kinds
    )
    for context in ((), entries):
        for language in (None, tag):
            for title in (None, hole):
                post = Post("", hole, "", 0, "1", language=language, title=title, context=context)
                yield render_post(post).replace(f": {tag}", f": {hole}")


def train_tokenizer(seed: int) -> Tokenizer:
    """Train it; the same seed gives the same file."""
    tokenizer = byte_level_bpe(_PATTERN)
    tokenizer.train_from_iterator(_texts(random.Random(seed)), bpe_trainer(VOCABULARY))
    # The phrases join the vocabulary as they are: with ``ignore_merges``, a piece that is a token needs no merges.
    return extended(tokenizer)


def extended(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer with the fixed phrases and the labels as tokens: known ones keep their ids."""
    from tokenizers import Tokenizer, pre_tokenizers

    whole = phrases()
    document = json.loads(tokenizer.to_str())
    pattern = "|".join((*map(_exactly, (*whole, _LINE, *_APART)), _PATTERN))
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    document["model"]["ignore_merges"] = True
    vocabulary = document["model"]["vocab"]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    labels = (text for word in LABEL_WORDS for text in (word, f" {word}"))
    for text in (*whole, *labels, _LINE, _BETWEEN):
        written = "".join(part for part, _ in level.pre_tokenize_str(text))
        vocabulary.setdefault(written, len(vocabulary))
    return Tokenizer.from_str(json.dumps(document))


def _exactly(phrase: str) -> str:
    """Return a pattern of a phrase; that of the frame's first line matches at the start of a text only."""
    pattern = re.escape(phrase).replace(r"\ ", " ")
    return rf"\A{pattern}" if phrase.startswith("## ") else pattern


def _texts(draw: random.Random) -> Iterator[str]:
    words, size = pool("train"), Size()
    for number in range(_POLICIES):
        policy = make_policy(draw, words, size)
        yield "".join(piece.text for piece in write(policy, draw, words, size))
        for _ in range(3):
            post = make_post(draw, policy, words)
            yield post.text
            yield right_answer(policy, post, _EFFORTS[number % 3]).analysis
    # Plain words stay whole: behind a space, and as a sentence's first.
    for word in PLAIN:
        for _ in range(40):
            yield f" {word} {word} {word.capitalize()}"
    for name in ("nounlist.txt", "adjectivelist.txt"):
        for word in listed(name):
            if not is_held_out(word):
                yield f" {word} {word.capitalize()}"
    for _ in range(6_000):
        yield f" {invented(draw)}"
