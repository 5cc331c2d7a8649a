"""What was said between us and the model over one post, as people read it.

What it must never do: be kept, logged or published by itself; it holds the post's text and the model's reasoning, and
is made only where somebody at a terminal asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from stream_guard.judging.families.harmony.tokens import split_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer

__all__ = ["Exchange", "Listener"]


@dataclass(slots=True, frozen=True)
class Exchange:
    """One attempt: what the model was given and what it wrote, with control tokens by their names.

    Attributes:
        request_id: of the request that it belongs to.
        effort: at which the model was asked.
        prompt, completion: as text.
        prompt_tokens, completion_tokens: their lengths.
        analysis: the reasoning in the completion, without markers; empty where there is none.
    """

    request_id: str
    effort: Effort
    prompt: str
    completion: str
    prompt_tokens: int
    completion_tokens: int
    analysis: str

    @classmethod
    def of(
        cls,
        request_id: str,
        effort: Effort,
        prompt: Sequence[int],
        completion: Sequence[int],
        tokenizer: HarmonyTokenizer,
    ) -> Exchange:
        """Make it of token ids."""
        messages = split_messages(completion, tokenizer.control, tokenizer)
        analysis = [tokenizer.decode(m.ids) for m in messages if m.channel == "analysis"]
        return cls(
            request_id,
            effort,
            tokenizer.show(prompt),
            tokenizer.show(completion),
            len(prompt),
            len(completion),
            "\n".join(analysis).strip(),
        )


Listener: TypeAlias = (
    "Callable[[str, Effort, Sequence[int], Sequence[int], HarmonyTokenizer], None]"
)
"""Told of each attempt: what :meth:`Exchange.of` takes."""
