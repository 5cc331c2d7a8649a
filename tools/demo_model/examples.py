"""Turns policies, posts and answers into token ids, with two targets per token: the next token, and its meaning.

A test compares the prompts' token ids with the product's own ``PromptBuilder``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Final

import torch

from stream_guard.judging.families.harmony.frame import quote, render_post
from stream_guard.judging.families.harmony.prompt import SYSTEM, render_developer
from tools.demo_model.network import Batch
from tools.demo_model.policies import Piece, edit_policy, make_policy, write
from tools.demo_model.posts import make_post, right_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer
    from torch import Tensor

    from stream_guard.core.vocabulary import Effort
    from tools.demo_model.policies import Size, SyntheticPolicy
    from tools.demo_model.posts import Answer, SyntheticPost
    from tools.demo_model.words import Pool

DATE: Final = "2025-01-01"
EFFORTS: Final[tuple[Effort, ...]] = ("low", "medium", "high")
_ROLES: Final = {"": 0, "forbidden": 1, "allowed": 2, "excepted": 3, "label": 4}
IGNORED: Final = -100
_BROKEN: Final = ("forbidden", "escalated")
"""Kinds of posts that break a rule."""
_QUOTE: Final = "> "
DECISION_WEIGHT: Final = 4.0
ID_WEIGHT: Final = 3.0
OUTCOME_WEIGHT: Final = 2.5
"""Of the part of the answer that decides, or all of a native answer."""
LABEL_WEIGHT: Final = 10.0
"""Of one label of three, in reasoning: few posts have it, and it has to be looked up."""
_JSON_WEIGHT: Final = 0.6


@dataclass(slots=True, frozen=True)
class Asked:
    """The meaning of a token: role, category's number, rule's place in it; each is ``IGNORED`` if it has no target."""

    role: int = 0
    category: int = IGNORED
    rule: int = IGNORED


NOTHING: Final = Asked()
SKIPPED: Final = Asked(role=IGNORED)


@dataclass(slots=True)
class Row:
    """One policy's prefix and its posts.

    Attributes:
        prefix, asked: token ids, and what each is asked.
        posts: of this policy.
    """

    prefix: list[int]
    asked: list[Asked]
    posts: list[RowPost]


@dataclass(slots=True)
class RowPost:
    """One post with its answer.

    Attributes:
        ids, asked: token ids, and what each is asked.
        begin: position of the answer's first token.
        weights: of the answer's tokens.
        kinds: what figures it counts for.
    """

    ids: list[int]
    asked: list[Asked]
    begin: int
    weights: list[float]
    kinds: tuple[str, ...]


@dataclass(slots=True)
class Targets:
    """The targets of a batch, as tensors like its ids: ``[..., 3]`` for roles, categories and rules."""

    prefix: Tensor
    posts: Tensor
    next_tokens: Tensor
    weights: Tensor


class Encoder:
    """Writes prompts and answers as ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

        def token(word: str) -> int:
            found = tokenizer.token_to_id(word)
            assert found is not None, f"the tokenizer does not know {word}"
            return found

        self._start, self._message, self._end = (
            token(f"<|{name}|>") for name in ("start", "message", "end")
        )
        self._channel, self._return = token("<|channel|>"), token("<|return|>")
        self._assistant = self.ids("assistant")

    def ids(self, text: str) -> list[int]:
        """Return the ids of plain text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def prefix(
        self,
        policy: SyntheticPolicy,
        pieces: Sequence[Piece],
        effort: Effort,
        *,
        native: bool = False,
    ) -> tuple[list[int], list[Asked]]:
        """Return the policy's part of the prompt; ``native`` leaves the policy alone."""
        text = "".join(piece.text for piece in pieces)
        developer = text if native else render_developer(text, policy.taxonomy())
        ids, asked = self._encode(developer, pieces, developer.index(text))
        head = [
            *(self._start, *self.ids("system"), self._message),
            *self.ids(SYSTEM.format(date=DATE, effort=effort)),
            *(self._end, self._start, *self.ids("developer"), self._message),
        ]
        tail = [self._end, self._start, *self.ids("user"), self._message]
        return (
            [*head, *ids, *tail],
            [*(SKIPPED for _ in head), *asked, *(SKIPPED for _ in tail)],
        )

    def post(
        self,
        policy: SyntheticPolicy,
        post: SyntheticPost,
        effort: Effort,
        *,
        native: bool = False,
    ) -> RowPost:
        """Return the post's part, the answer with it."""
        content = render_post(post.product_post(), native=native)
        pieces = post.pieces
        if content != post.text:
            pieces = tuple(
                replace(piece, text=quote(piece.text).removeprefix(_QUOTE)) for piece in pieces
            )
        own = sum(len(piece.text) for piece in pieces)
        ids, asked = self._encode(content, pieces, len(content) - own)
        suffix = [self._end, self._start, *self._assistant]
        answer = right_answer(policy, post, effort, native=native)
        three = len(policy.labels) > 2
        label = answer.outcome if three else ""
        analysis, weights = self._analysis(answer.analysis, post, label)
        final, final_weights = self._final(answer)
        before = [self._channel, *self.ids("analysis"), self._message]
        between = [
            self._end,
            self._start,
            *self._assistant,
            self._channel,
            *self.ids("final"),
            self._message,
        ]
        completion = [*before, *analysis, *between, *final, self._return]
        every = [
            *(_JSON_WEIGHT for _ in before),
            *weights,
            *(_JSON_WEIGHT for _ in between),
            *final_weights,
            _JSON_WEIGHT,
        ]
        kinds = [f"native {policy.form}" if native else "structured"]
        kinds += ["three"] if three else []
        kinds += ["escalated"] if post.kind == "escalated" else []
        kinds += ["thread"] if post.context else []
        begin = len(ids) + len(suffix)
        asked = [*asked, *(SKIPPED for _ in (*suffix, *completion))]
        if answer.code and LABEL_WEIGHT in weights:
            # Just before the label, a reader has to know which category's label it is.
            place = begin + len(before) + weights.index(LABEL_WEIGHT) - 1
            asked[place] = Asked(_ROLES["label"], _number(answer.code))
        return RowPost(
            [*ids, *suffix, *completion],
            asked,
            begin,
            every,
            tuple(kinds),
        )

    def _analysis(
        self, text: str, post: SyntheticPost, label: str
    ) -> tuple[list[int], list[float]]:
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        begin = text.index(post.rule.id) if post.rule is not None else -1
        end = begin + len(post.rule.id) if post.rule is not None else -1
        said = text.rindex(label) if label else len(text)
        weights = [
            DECISION_WEIGHT
            if first == 0
            else ID_WEIGHT
            if first < end and last > begin
            else LABEL_WEIGHT
            if first < said + len(label) and last > said
            else 1.0
            for first, last in encoded.offsets
        ]
        return encoded.ids, weights

    def _final(self, answer: Answer) -> tuple[list[int], list[float]]:
        encoded = self._tokenizer.encode(answer.final, add_special_tokens=False)
        begin = answer.final.index(answer.outcome)
        end = begin + len(answer.outcome)
        return encoded.ids, [
            OUTCOME_WEIGHT if first < end and last > begin else _JSON_WEIGHT
            for first, last in encoded.offsets
        ]

    def _encode(
        self, text: str, pieces: Sequence[Piece], begin: int
    ) -> tuple[list[int], list[Asked]]:
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        spans = []
        for piece in pieces:
            end = begin + len(piece.text)
            if piece.role:
                spans.append((begin, end, piece))
            begin = end
        asked = [NOTHING] * len(encoded.ids)
        for first, last, piece in spans:
            own = [
                index
                for index, (a, b) in enumerate(encoded.offsets)
                if b > first and a < last and text[a:b].strip()
            ]
            category, _, rule = piece.rule_id.partition(".")
            what = Asked(
                _ROLES[piece.role],
                _number(category),
                _place(rule) if rule else IGNORED,
            )
            for index in own:
                # All of them, though only at its last token does a reader know the whole word: to match a word's
                # first piece is the easy step on which the rest is built.
                asked[index] = what
        return encoded.ids, asked


def _number(code: str) -> int:
    return int(code.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


def _place(rule: str) -> int:
    return int(rule) - 1 if rule.isdigit() else ord(rule) - ord("a")


@dataclass(slots=True, frozen=True)
class Mix:
    """The shares of what is drawn, from 0 to 1.

    Attributes:
        hard: how often posts take the turns that make them hard.
        unrelated: how many more posts speak of a thing that no rule names.
        threads: how many posts have a thread around them.
        native: how many policies are used alone.
    """

    hard: float = 1.0
    unrelated: float = 0.0
    threads: float = 0.35
    native: float = 0.5


def make_row(
    random: Random,
    encoder: Encoder,
    pool: Pool,
    size: Size,
    posts: int,
    mix: Mix,
    effort: Effort | None = None,
) -> Row:
    """Draw a policy and posts under it."""
    policy = make_policy(random, pool, size)
    asked = random.choice(EFFORTS) if effort is None else effort
    native = random.random() < mix.native
    pieces = write(policy, random, pool, size, native=native)
    drawn = _draw_posts(random, policy, pool, posts, mix)
    return _row(encoder, policy, pieces, drawn, asked, native=native)


def make_pair(
    random: Random,
    encoder: Encoder,
    pool: Pool,
    size: Size,
    posts: int,
    mix: Mix,
    effort: Effort | None = None,
) -> tuple[Row, Row]:
    """Draw a policy and posts under it, and the same posts under an edited policy.

    About half of the broken rules name another topic in the edited policy. Nothing else differs, so only a reader of
    the rules can tell the answers apart.
    """
    policy = make_policy(random, pool, size)
    asked = random.choice(EFFORTS) if effort is None else effort
    native, style = random.random() < mix.native, random.randrange(1 << 30)
    drawn = _draw_posts(random, policy, pool, posts, mix)
    rules = {post.rule.id: post.rule for post in drawn if post.rule and post.kind in _BROKEN}
    excepted = {post.rule.id for post in drawn if post.rule and post.kind == "excepted"}
    edited, replaced = policy, set()
    for rule in rules.values():
        if rule.id not in excepted and random.random() < 0.6:
            edited = edit_policy(random, edited, rule, pool)
            replaced.add(rule.id)
    after = [_under_edited(post, replaced) for post in drawn]
    first, second = (
        _row(
            encoder,
            each,
            write(each, Random(style), pool, size, native=native),
            judged,
            asked,
            native=native,
        )
        for each, judged in ((policy, drawn), (edited, after))
    )
    return first, second


def _under_edited(post: SyntheticPost, replaced: set[str]) -> SyntheticPost:
    """Return the post as it is under a policy in which some rules name other topics."""
    pieces = tuple(
        Piece(piece.text) if piece.role == "forbidden" and piece.rule_id in replaced else piece
        for piece in post.pieces
    )
    if post.kind in _BROKEN and post.rule and post.rule.id in replaced:
        return replace(post, pieces=pieces, kind="none", rule=None, topic="")
    return replace(post, pieces=pieces)


def _draw_posts(
    random: Random, policy: SyntheticPolicy, pool: Pool, posts: int, mix: Mix
) -> list[SyntheticPost]:
    return [
        make_post(random, policy, pool, hard=mix.hard, unrelated=mix.unrelated, threads=mix.threads)
        for _ in range(posts)
    ]


def _row(
    encoder: Encoder,
    policy: SyntheticPolicy,
    pieces: Sequence[Piece],
    posts: Sequence[SyntheticPost],
    effort: Effort,
    *,
    native: bool,
) -> Row:
    prefix, asked = encoder.prefix(policy, pieces, effort, native=native)
    return Row(prefix, asked, [encoder.post(policy, post, effort, native=native) for post in posts])


def collate(rows: Sequence[Row]) -> tuple[Batch, Targets]:
    """Pad rows of as many posts each into one batch."""
    own = max(len(row.prefix) for row in rows)
    length = max(len(post.ids) for row in rows for post in row.posts)
    count = len(rows[0].posts)
    prefix = torch.zeros(len(rows), own, dtype=torch.long)
    posts = torch.zeros(len(rows), count, length, dtype=torch.long)
    ask_prefix = torch.full((len(rows), own, 3), IGNORED)
    ask_posts = torch.full((len(rows), count, length, 3), IGNORED)
    following = torch.full((len(rows), count, length), IGNORED)
    weights = torch.zeros(len(rows), count, length)
    for r, row in enumerate(rows):
        prefix[r, : len(row.prefix)] = torch.tensor(row.prefix)
        ask_prefix[r, : len(row.asked)] = torch.tensor(
            [(a.role, a.category, a.rule) for a in row.asked]
        )
        for p, post in enumerate(row.posts):
            ids, begin = post.ids, post.begin
            posts[r, p, : len(ids)] = torch.tensor(ids)
            ask_posts[r, p, : len(ids)] = torch.tensor(
                [(a.role, a.category, a.rule) for a in post.asked]
            )
            # The token before says the next one.
            following[r, p, begin - 1 : len(ids) - 1] = torch.tensor(ids[begin:])
            weights[r, p, begin - 1 : len(ids) - 1] = torch.tensor(post.weights)
    lengths = torch.tensor([len(row.prefix) for row in rows])
    return Batch(prefix, lengths, posts), Targets(ask_prefix, ask_posts, following, weights)
