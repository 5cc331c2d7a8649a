"""Says whether a policy's grammar allows a completion that was written without it. Pure.

The first attempt of ``engine.constraint = on_retry`` has no grammar. Its answer counts only if the grammar could have
produced it, token by token. The check is built from the same elements as the structural tag. Where the grammar's
bookkeeping inside a token is not known, the check is the stricter one.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from stream_guard.judging.families.harmony.grammar import answer_element, may_say_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.families.family import Budget
    from stream_guard.judging.families.harmony.tokens import ControlTokens
    from stream_guard.policies.answer_format import AnswerFormat
    from stream_guard.policies.taxonomy import Taxonomy

__all__ = ["Allowed", "VocabularyTokenizer", "as_pattern"]

_BROKEN: Final = "\ufffd"
"""Stands in decoded text for bytes that are not UTF-8, which the grammar never allows."""


class VocabularyTokenizer(Protocol):
    """The part of a tokenizer that is used."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without unknown ids."""

    def knows(self, ids: Sequence[int]) -> bool:
        """Return whether each id has a token."""


class Allowed:
    """Decides about the completions of one policy.

    Args:
        taxonomy: of the policy.
        tokens: the model's control tokens.
        tokenizer: of the model.
        budget: of the reasoning and of free texts in the answer.
        native: the format of the answer, if the policy states it.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        tokens: ControlTokens,
        tokenizer: VocabularyTokenizer,
        budget: Budget,
        native: AnswerFormat | None = None,
    ) -> None:
        self._tokens = tokens
        self._tokenizer = tokenizer
        self._budget = budget
        self._answer = re.compile(
            as_pattern(answer_element(taxonomy, budget.rationale_tokens_max, native))
        )
        head = (tokens.channel, tokens.message, tokens.end, tokens.start, tokens.channel)
        # By all control tokens of a completion: the texts in the final channel's header.
        plain = (*head, tokens.message, tokens.return_)
        self._shapes: dict[tuple[int, ...], tuple[str, ...]] = {plain: ("final",)}
        if may_say_json(native):
            as_json = (*head, tokens.constrain, tokens.message, tokens.return_)
            self._shapes[as_json] = ("final ", "json")

    def __call__(self, ids: Sequence[int]) -> bool:
        """Return whether the grammar allows this whole completion, which begins after ``<|start|>assistant``."""
        every = self._tokens.every
        found = [(at, token) for at, token in enumerate(ids) if token in every]
        header = self._shapes.get(tuple(token for _, token in found))
        if header is None or not self._tokenizer.knows(ids):
            return False
        places = [-1, *(at for at, _ in found)]
        before, channel, reasoning, between, role, *rest = (
            ids[begin + 1 : end] for begin, end in itertools.pairwise(places)
        )
        *named, answer = rest
        decode = self._tokenizer.decode
        return (
            not len(before)
            and not len(between)
            and places[-1] == len(ids) - 1
            and len(reasoning) <= self._budget.reasoning_tokens_max
            and decode(channel) == "analysis"
            and decode(role) == "assistant"
            and tuple(map(decode, named)) == header
            and self._allows_answer(answer)
        )

    def _allows_answer(self, ids: Sequence[int]) -> bool:
        text = self._tokenizer.decode(ids)
        found = self._answer.fullmatch(text)
        if found is None or _BROKEN in text:
            return False
        if len(ids) <= self._budget.rationale_tokens_max:
            return True
        spans = [found.span(number) for number in range(1, len(found.groups()) + 1)]
        return all(
            self._tokens_within(ids, *span) <= self._budget.rationale_tokens_max
            for span in spans
            if span != (-1, -1)
        )

    def _tokens_within(self, ids: Sequence[int], begin: int, end: int) -> int:
        """Return how many tokens have a character between two places of the text, or touch one of them."""
        places = [len(self._tokenizer.decode(ids[:number])) for number in range(len(ids) + 1)]
        return sum(first < end and last > begin for first, last in itertools.pairwise(places))


def as_pattern(element: dict[str, Any]) -> str:
    """Return a regular expression for the text of an element without tokens; each free text is a group.

    Raises:
        KeyError: an element of another type.
    """
    return _PATTERNS[element["type"]](element)


def _free_text(element: dict[str, Any]) -> str:
    words = element["excludes"]
    longer = "".join(f"(?!{re.escape(word)})" for word in words if len(word) > 1)
    letters = "".join(re.escape(word) for word in words if len(word) == 1)
    return f"((?:{longer}[^{letters}])*)"


def _either(element: dict[str, Any]) -> str:
    return f"(?:{'|'.join(map(as_pattern, element['elements']))})"


def _repeat(element: dict[str, Any]) -> str:
    return f"(?:{as_pattern(element['content'])}){{{element['min']},{element['max']}}}"


def _constant(element: dict[str, Any]) -> str:
    return re.escape(str(element["value"]))


def _sequence(element: dict[str, Any]) -> str:
    return "".join(map(as_pattern, element["elements"]))


def _optional(element: dict[str, Any]) -> str:
    return f"(?:{as_pattern(element['content'])})?"


_PATTERNS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "const_string": _constant,
    "any_text": _free_text,
    "sequence": _sequence,
    "or": _either,
    "optional": _optional,
    "repeat": _repeat,
}
"""By the type of an element."""
