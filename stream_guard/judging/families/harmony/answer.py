"""Reads the answer from a completion's token ids, or says how it is malformed. Pure.

Reading is lenient: without a grammar, a model forgets markers, uses the wrong quotes, or wraps its JSON in words. No
tokens make it raise. Two contradicting answers are malformed. The reasoning is never read as an answer. Categories and
rule ids that the policy does not have are dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from stream_guard.judging.families.harmony.fields import read_json, read_text, settle, undetermined
from stream_guard.judging.families.harmony.native import is_native
from stream_guard.judging.families.harmony.tokens import split_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import Answer
    from stream_guard.judging.families.harmony.tokens import ControlTokens, Message, Tokenizer
    from stream_guard.policies.answer_format import AnswerFormat
    from stream_guard.policies.taxonomy import Taxonomy

ANSWER_CHARS_MAX: Final = 20_000
"""A longer text in the final channel is not an answer."""
_BEFORE_VIOLATION: Final = re.compile(r"""["']violation["']\s*:\s*$""")


@dataclass(slots=True, frozen=True)
class HarmonyReading:
    """The result of reading.

    Attributes:
        answer: ``undetermined``, with the reason as its parse status, if none could be read.
        final: the message that the answer was read from, or None.
        reasoning_tokens: length of the analysis channel, in tokens.
    """

    answer: Answer
    final: Message | None = None
    reasoning_tokens: int = 0


def read_answer(
    ids: Sequence[int],
    taxonomy: Taxonomy,
    tokens: ControlTokens,
    tokenizer: Tokenizer,
    *,
    complete: bool,
    native: AnswerFormat | None = None,
) -> HarmonyReading:
    """Read the answer out of a completion.

    Args:
        ids: the completion's tokens, behind ``<|start|>assistant``.
        taxonomy: what the answer may name.
        tokens: the model's control tokens.
        tokenizer: of the model.
        complete: whether the model ended by itself. A cut answer is read only if its JSON is complete.
        native: the format of the answer, if the policy states it.
    """
    messages = split_messages(ids, tokens, tokenizer)
    final = _final_message(messages)
    reasoning = sum(len(message.ids) for message in messages if message.channel == "analysis")
    if final is None:
        return HarmonyReading(undetermined("empty" if complete else "truncated"), None, reasoning)
    text = tokenizer.decode([token for token in final.ids if token not in tokens.every]).strip()
    if not text:
        return HarmonyReading(undetermined("empty" if complete else "truncated"), None, reasoning)
    if len(text) > ANSWER_CHARS_MAX:
        return HarmonyReading(
            undetermined("malformed" if complete else "truncated"), final, reasoning
        )
    fields = read_json(text, taxonomy)
    if fields is None and complete:
        fields = read_text(text, taxonomy)
    if fields is None:
        return HarmonyReading(
            undetermined("malformed" if complete else "truncated"), final, reasoning
        )
    as_asked = complete and final.channel == "final" and final.whole
    if native is None:
        answer = settle(fields, taxonomy, exact=fields.exact and as_asked)
    else:
        answer = settle(fields, taxonomy, exact=as_asked)
        as_asked = as_asked and is_native(text, native, taxonomy)
        if answer.parse_status in {"ok", "repaired"}:
            # A category alone, or a rule id for it, can be the very form that the policy asks for.
            answer = replace(answer, parse_status="ok" if as_asked else "repaired")
    return HarmonyReading(answer, final, reasoning)


def word_position(reading: HarmonyReading, tokens: tuple[int, int]) -> int | None:
    """Return the position, in the completion, of an answer's first token if it is one of these; else None."""
    final = reading.final
    if final is None or not len(final.ids) or final.ids[0] not in tokens:
        return None
    return final.first


def violation_position(
    reading: HarmonyReading, digits: tuple[int, int], tokenizer: Tokenizer
) -> int | None:
    """Return the position, in the completion, of the token that is the answer's 0 or 1; None if there is none.

    Args:
        reading: of this completion.
        digits: ids of the tokens "0" and "1".
        tokenizer: of the model.
    """
    final = reading.final
    if final is None:
        return None
    for offset, token in enumerate(final.ids):
        if token in digits and _BEFORE_VIOLATION.search(tokenizer.decode(final.ids[:offset])):
            return final.first + offset
    return None


def _final_message(messages: list[Message]) -> Message | None:
    """Return the last message of the final channel that holds something.

    Without any channel at all, the last message will do; reasoning never does.
    """
    finals = [
        message for message in messages if message.channel.startswith("final") and len(message.ids)
    ]
    if finals:
        return finals[-1]
    if any(message.channel.startswith("final") for message in messages):
        return None
    bare = [message for message in messages if not message.channel]
    return bare[-1] if bare and bare[-1] is messages[-1] else None
