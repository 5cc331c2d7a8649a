"""Makes the elements of a structural tag for xgrammar. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["as_json", "either", "free_text", "list_of", "sequence", "text", "token"]

# xgrammar matches text: without "<|" here it would accept a marker, spelled out in letters.
_RATIONALE_EXCLUDES: Final = ('"', "\\", "\n", "\r", "\t", "<|")


def token(token_id: int) -> dict[str, Any]:
    """Return a single token."""
    return {"type": "token", "token": token_id}


def text(value: str) -> dict[str, Any]:
    """Return a fixed text."""
    return {"type": "const_string", "value": value}


def free_text(tokens_max: int) -> dict[str, Any]:
    """Return the inside of a JSON string, of up to so many tokens."""
    return {"type": "any_text", "excludes": list(_RATIONALE_EXCLUDES), "max_tokens": tokens_max}


def sequence(elements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return elements in a row."""
    return {"type": "sequence", "elements": list(elements)}


def either(elements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one of several elements."""
    return elements[0] if len(elements) == 1 else {"type": "or", "elements": list(elements)}


def list_of(words: Sequence[str], count_max: int, *, separator: str = ",") -> dict[str, Any]:
    """Return a JSON list of up to so many of these words."""
    if not words:
        return text("[]")
    one = either([text(as_json(word)) for word in words])
    more = {
        "type": "repeat",
        "min": 0,
        "max": count_max - 1,
        "content": sequence([text(separator), one]),
    }
    return sequence([text("["), {"type": "optional", "content": sequence([one, more])}, text("]")])


def as_json(value: object) -> str:
    """Return a value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
