"""The demo model's tokenizer: a small byte-level BPE with harmony's control tokens, in Hugging Face form.

Words are cut into pieces, so that an unknown word consists of known pieces. Each fixed phrase of the product's prompts
and answers is one token. Prompts become half as long, and the model need not learn to read what never changes. Held-out
words are never used.
"""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Final

from stream_guard.judging.families.harmony.prompt import SYSTEM, render_developer
from stream_guard.policies.taxonomy import Category, Taxonomy
from stream_guard.testing.random_model import bpe_trainer, byte_level_bpe, split_by
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
    ',"category":"',
    ',"category":null,"rule_ids":[],"rationale":"',
    '","rule_ids":["',
    '","rule_ids":[],"rationale":"',
    ',"rationale":"',
)
# xgrammar 0.2.8 masks a token that would end the list of rules and go on, though it accepts it.
_APART: Final = ('"]',)
_HOLE: Final = "\x00"
_SHORT: Final = 3
_POLICIES: Final = 1_500
_EFFORTS: Final[tuple[Effort, ...]] = ("low", "medium", "high")


def phrases() -> list[str]:
    """Return the fixed phrases of the product's template and answers, longest first."""
    found = set(_ANSWER) | set(
        SYSTEM.replace("{date}", _HOLE).replace("{effort}", _HOLE).split(_HOLE)
    )
    bad, good = Category(_HOLE, "", violates=True), Category(_HOLE, "", violates=False)
    for categories in ((bad,), (bad, good), ()):
        for rule_ids in ((_HOLE,), ()):
            taxonomy = Taxonomy(categories, rule_ids if categories else (), _HOLE, _HOLE)
            found.update(render_developer(_HOLE, taxonomy).split(_HOLE))
    return sorted((phrase for phrase in found if len(phrase) > _SHORT), key=lambda p: (-len(p), p))


def train_tokenizer(seed: int) -> Tokenizer:
    """Train it; the same seed gives the same file."""
    from tokenizers import Tokenizer, pre_tokenizers

    tokenizer = byte_level_bpe(_PATTERN)
    tokenizer.train_from_iterator(_texts(random.Random(seed)), bpe_trainer(VOCABULARY))
    # The phrases join the vocabulary as they are: with ``ignore_merges``, a piece that is a token needs no merges.
    whole = phrases()
    tokenizer.pre_tokenizer = split_by(
        "|".join((*(re.escape(p).replace(r"\ ", " ") for p in (*whole, *_APART)), _PATTERN))
    )
    document = json.loads(tokenizer.to_str())
    document["model"]["ignore_merges"] = True
    vocabulary = document["model"]["vocab"]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for phrase in whole:
        written = "".join(part for part, _ in level.pre_tokenize_str(phrase))
        vocabulary.setdefault(written, len(vocabulary))
    return Tokenizer.from_str(json.dumps(document))


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
