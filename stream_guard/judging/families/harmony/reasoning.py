"""The model's chain of thought, read out of a completion. Pure.

It is raw: it quotes posts, may be wrong about the policy, and is for no end user. What it must never do: reach a
verdict, a log, a metric or a span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.judging.contract import Thought
from stream_guard.judging.families.harmony.tokens import split_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.families.harmony.tokens import ControlTokens, Tokenizer

_THINKING: Final = ("analysis", "commentary")


def read_thought(
    ids: Sequence[int], tokens: ControlTokens, tokenizer: Tokenizer, effort: Effort
) -> tuple[Thought, ...]:
    """Return what a completion holds outside its answer; empty where there is nothing. Never raises."""
    parts = [
        tokenizer.decode([token for token in message.ids if token not in tokens.every])
        for message in split_messages(ids, tokens, tokenizer)
        if message.channel in _THINKING
    ]
    text = "\n".join(part for part in parts if part.strip())
    return (Thought(effort, text),) if text else ()
