"""Reads the model's chain of thought from a completion. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.judging.families.harmony.tokens import split_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.families.harmony.tokens import ControlTokens, Tokenizer

_THINKING: Final = ("analysis", "commentary")


def read_reasoning(ids: Sequence[int], tokens: ControlTokens, tokenizer: Tokenizer) -> str:
    """Return the text of a completion's reasoning channels; empty if there is none. Never raises."""
    parts = [
        tokenizer.decode([token for token in message.ids if token not in tokens.every])
        for message in split_messages(ids, tokens, tokenizer)
        if message.channel in _THINKING
    ]
    return "\n".join(part for part in parts if part.strip())
