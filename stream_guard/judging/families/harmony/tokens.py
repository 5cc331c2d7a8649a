"""Splits completions in harmony, the format of gpt-oss models, at the level of token ids. Pure.

Ids of markers come from the model's own tokenizer alone, and markers are never looked for in text. Source of the
format: OpenAI's ``harmony`` documentation. The words of the system message are those of the official renderer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKERS: Final = (
    "<|start|>",
    "<|message|>",
    "<|channel|>",
    "<|constrain|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
)
CHANNELS: Final = ("analysis", "commentary", "final")


class Tokenizer(Protocol):
    """The part of a tokenizer that is used."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text. No text becomes a marker."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, with replacement characters for bytes that are not UTF-8."""


@dataclass(slots=True, frozen=True)
class ControlTokens:
    """Ids of the markers in one model's vocabulary.

    Attributes:
        start, message, channel, constrain, end, return_, call: one id each.
        every: ids of all the vocabulary's control tokens.
        closing: those that end a message, including ``<|endoftext|>``.
    """

    start: int
    message: int
    channel: int
    constrain: int
    end: int
    return_: int
    call: int
    every: frozenset[int]
    closing: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        inside = {self.message, self.channel, self.constrain}
        object.__setattr__(self, "closing", self.every - inside)


class Message(NamedTuple):
    """One message of a completion.

    Attributes:
        channel: first word after the channel marker, or "".
        first: position of the content's first token in the completion.
        ids: the content's tokens.
        whole: whether its header is well-formed and an end marker closes it.
    """

    channel: str
    first: int
    ids: Sequence[int]
    whole: bool


def split_messages(
    ids: Sequence[int], tokens: ControlTokens, tokenizer: Tokenizer
) -> list[Message]:
    """Split a completion, which begins after ``<|start|>assistant``, into its messages. Never raises."""
    messages: list[Message] = []
    begin = 0
    for position, token in enumerate([*ids, tokens.start]):
        if token not in tokens.closing:
            continue
        if position > begin:
            closed = position < len(ids) and token != tokens.start
            if message := _read_message(
                ids, begin, position, closed=closed, tokens=tokens, tokenizer=tokenizer
            ):
                messages.append(message)
        begin = position + 1
    return messages


def _read_message(
    ids: Sequence[int],
    begin: int,
    end: int,
    *,
    closed: bool,
    tokens: ControlTokens,
    tokenizer: Tokenizer,
) -> Message | None:
    """Read one message from ``ids[begin:end]``; None for a header without content."""
    part = list(ids[begin:end])
    if tokens.message in part:
        at = part.index(tokens.message)
        header = part[:at]
        content = part[at + 1 :]
        # A marker inside the content starts another header, whose start marker is missing. The last header counts.
        while (
            tokens.channel in content and tokens.message in content[content.index(tokens.channel) :]
        ):
            opened = content.index(tokens.channel)
            at_next = content.index(tokens.message, opened)
            header = content[opened:at_next]
            content, closed = content[at_next + 1 :], False
        words = _header_words(header, tokens, tokenizer)
        channel = words[0] if words else ""
        return Message(channel, end - len(content), content, closed and channel in CHANNELS)
    if tokens.channel not in part:
        # No marker: text after ``assistant``, or a bare role name between messages.
        text = tokenizer.decode(part).strip()
        return None if text in ("", "assistant") else Message("", begin, part, whole=False)
    # The message marker is missing: the channel's name runs into the text.
    content = part[part.index(tokens.channel) + 1 :]
    text = tokenizer.decode(content).lstrip()
    channel = next((name for name in CHANNELS if text.startswith(name)), "")
    return Message(channel, end - len(content), content, whole=False)


def _header_words(header: list[int], tokens: ControlTokens, tokenizer: Tokenizer) -> list[str]:
    if tokens.channel not in header:
        return []
    named = header[len(header) - header[::-1].index(tokens.channel) :]
    if tokens.constrain in named:
        named = named[: named.index(tokens.constrain)]
    return tokenizer.decode([token for token in named if token not in tokens.every]).split()
