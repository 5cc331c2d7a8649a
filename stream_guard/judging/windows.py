"""Fits posts into the model's context: with less of their thread, else in overlapping windows. Pure.

Nothing of a post is left out. Its worst window decides: a violation counts before an open question, and that before
a safe window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.core.errors import PromptError
from stream_guard.judging.contract import Judgement
from stream_guard.judging.families.family import hash_ids
from stream_guard.judging.graphemes import cut_after, cut_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_guard.judging.contract import JudgeRequest, Provenance
    from stream_guard.judging.families.family import Family, Prefix
    from stream_guard.records.post import Post

__all__ = ["Fitted", "fit_post", "merge_windows"]

_DROPPED_FIRST: Final = ("earlier", "title", "quoted", "parent")
_OVERLAP_SHARE_MAX: Final = 4
"""The overlap is at most a quarter of what a window has room for."""


class Fitted(NamedTuple):
    """A post as the model sees it.

    Attributes:
        posts: one for each window.
        prompts: their token ids.
        context_dropped: how many texts of the thread were left out.
    """

    posts: tuple[Post, ...]
    prompts: tuple[list[int], ...]
    context_dropped: int


def fit_post(
    post: Post, prefix: Prefix, family: Family, tokens_max: int, overlap_tokens: int
) -> Fitted:
    """Return a post whole, if it fits with less of its thread, else in windows without the thread.

    Args:
        post: to fit.
        prefix: the policy's part of the prompt.
        family: of the model.
        tokens_max: of a prompt.
        overlap_tokens: about how many tokens neighbouring windows share.

    Raises:
        PromptError: not even one character fits, or the post's text yields a control token.
    """
    order = sorted(
        range(len(post.context)), key=lambda at: (_DROPPED_FIRST.index(post.context[at].kind), at)
    )

    def without(dropped: int) -> tuple[Post, list[int]]:
        gone = frozenset(order[:dropped])
        kept = tuple(entry for at, entry in enumerate(post.context) if at not in gone)
        less = replace(post, context=kept)
        return less, family.prompt(less, prefix)

    low, high = 0, len(order)
    bare, prompt = without(high)
    if len(prompt) > tokens_max:
        return _in_windows(bare, prefix, family, tokens_max, overlap_tokens)._replace(
            context_dropped=high
        )
    while low < high:
        middle = (low + high) // 2
        if len(without(middle)[1]) <= tokens_max:
            high = middle
        else:
            low = middle + 1
    fitting, prompt = without(high)
    return Fitted((fitting,), (prompt,), high)


def _in_windows(
    post: Post, prefix: Prefix, family: Family, tokens_max: int, overlap_tokens: int
) -> Fitted:
    def build(text: str) -> tuple[Post, list[int]]:
        window = replace(post, text=text)
        return window, family.prompt(window, prefix)

    if post.title is not None:
        untitled = len(family.prompt(replace(post, title=None, text=""), prefix))
        if 2 * (len(build("")[1]) - untitled) > tokens_max - untitled:
            # The title alone fills most of a window.
            post = replace(post, title=None, text=f"{post.title}\n\n{post.text}")
    framing = len(build("")[1])
    room = tokens_max - framing
    built: list[tuple[Post, list[int]]] = []

    def size(text: str) -> int:
        built.append(build(text))
        return len(built[-1][1]) - framing

    found: list[tuple[Post, list[int]]] = []
    for _ in _split(post.text, room, min(overlap_tokens, room // _OVERLAP_SHARE_MAX), size):
        found.append(built[-1])
        built.clear()
    return Fitted(tuple(each for each, _ in found), tuple(ids for _, ids in found), 0)


def _split(text: str, room: int, overlap: int, size: Callable[[str], int]) -> Iterator[str]:
    """Yield overlapping windows of a text, each as it was last given to ``size``.

    Args:
        text: to split.
        room: tokens of a window.
        overlap: tokens that neighbours share.
        size: returns the tokens of a window.
    """
    characters_per_token = len(text) / max(1, size(text))
    start = ended = 0
    while ended < len(text):
        end = min(len(text), start + max(1, int(room * characters_per_token)))
        cut = end if end == len(text) else cut_before(text, start, end)
        while (tokens := size(text[start:cut])) > room:
            if cut - start == 1:
                message = (
                    f"the policy leaves {room} tokens for a post, less than one character needs; "
                    "raise engine.max_model_len, or shorten the policy"
                )
                raise PromptError(message)
            end = start + max(1, int((min(cut, end) - start) * 0.95 * room / tokens))
            cut = cut_before(text, start, end)
        if cut <= ended:
            # The overlap left no room for anything new.
            start = ended
            continue
        yield text[start:cut]
        ended = cut
        characters_per_token = (cut - start) / max(1, tokens)
        if ended < len(text):
            back = int(overlap * characters_per_token)
            start = cut_after(text, max(start + 1, ended - back), ended)


def merge_windows(
    request: JudgeRequest, fitted: Fitted, tokens_max: int, judgements: Sequence[Judgement]
) -> Judgement:
    """Return the judgement of a post from those of its windows.

    The worst window gives the answer and the confidence. Where all are safe, the confidence is that of the window
    that is most likely to violate. Tokens and attempts are summed.

    Args:
        request: of the post.
        fitted: its windows.
        tokens_max: of a prompt.
        judgements: one for each window, in order.
    """
    failed = next((each for each in judgements if each.error is not None), None)
    worst = failed or max(judgements, key=_badness)
    answer, provenance = worst.answer, worst.provenance
    confidence, method = worst.confidence, worst.confidence_method
    every = [each.provenance for each in judgements if each.provenance is not None]
    if answer is not None and answer.decision != "violates":
        answer = replace(answer, needs_review=any(_asks_person(each) for each in judgements))
    if provenance is not None:
        provenance = _total(provenance.copy(), every, fitted, tokens_max)
        if answer is not None and answer.decision != "violates":
            provenance.reasoning_cut = any(each.reasoning_cut for each in every)
    return Judgement(
        request,
        answer=answer,
        error=worst.error,
        provenance=provenance,
        confidence=confidence,
        confidence_method=method,
        started_ns=min(each.started_ns for each in judgements),
        finished_ns=max(each.finished_ns for each in judgements),
        thoughts=tuple(thought for each in judgements for thought in each.thoughts),
    )


def _badness(judgement: Judgement) -> tuple[int, bool, float]:
    """Return a key that is greatest for the window that decides; the first of equal ones does."""
    answer = judgement.answer
    assert answer is not None, "windows with an error are handled before"
    severity = ("safe", "undetermined", "violates").index(answer.decision)
    # Of open questions, one that the model asks counts before an answer that could not be read.
    asked = answer.decision == "undetermined" and answer.parse_status == "ok"
    return severity, asked, -1.0 if judgement.confidence is None else judgement.confidence


def _asks_person(judgement: Judgement) -> bool:
    return judgement.answer is not None and judgement.answer.needs_review


def _total(
    provenance: Provenance, every: Sequence[Provenance], fitted: Fitted, tokens_max: int
) -> Provenance:
    provenance.prompt_tokens = sum(each.prompt_tokens for each in every)
    provenance.cached_tokens = sum(each.cached_tokens for each in every)
    provenance.output_tokens = sum(each.output_tokens for each in every)
    provenance.attempts = sum(each.attempts for each in every)
    provenance.prompt_ids_sha256 = hash_ids([token for ids in fitted.prompts for token in ids])
    provenance.windows = len(fitted.prompts)
    provenance.context_dropped = fitted.context_dropped
    provenance.prompt_tokens_max = tokens_max
    return provenance
