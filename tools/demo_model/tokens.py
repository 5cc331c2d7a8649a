"""The demo model's tokenizer: a small byte-level BPE with harmony's control tokens, in Hugging Face form.

Trained on what the product's prompts say, and on words of training policies. Words are cut into pieces, so that a word
that was never seen is made of pieces that were. What it must never do: see a held-out word.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from stream_guard.prompt import SYSTEM, render_developer
from stream_guard.random_model import CONTROL
from tools.demo_model.policies import Size, make_policy, write
from tools.demo_model.posts import make_post, right_answer
from tools.demo_model.words import PLAIN, listed, is_held_out, invented, pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

VOCABULARY: Final = 2_560
_PATTERN: Final = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
_POLICIES: Final = 1_500


def train_tokenizer(seed: int) -> Tokenizer:
    """Train it; the same seed gives the same file."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(random.Random(seed)), trainer)
    return tokenizer


def _texts(draw: random.Random) -> Iterator[str]:
    words, size = pool("train"), Size()
    for number in range(_POLICIES):
        policy = make_policy(draw, words, size)
        text = "".join(piece.text for piece in write(policy, draw, words, size))
        effort = ("low", "medium", "high")[number % 3]
        yield SYSTEM.format(date="2025-01-01", effort=effort)
        yield render_developer(text, policy.taxonomy())
        for _ in range(3):
            post = make_post(draw, policy, words)
            answer = right_answer(policy, post, effort)  # type: ignore[arg-type] - one of the three
            yield from (post.text, answer.analysis, answer.final)
    # Plain words stay whole: in front of a space, and as a sentence's first.
    for word in PLAIN:
        yield from (f" {word} {word} {word.capitalize()}" for _ in range(40))
    for name in ("nounlist.txt", "adjectivelist.txt"):
        for word in listed(name):
            if not is_held_out(word):
                yield f" {word} {word.capitalize()}"
    for _ in range(6_000):
        yield f" {invented(draw)}"
