"""Counting a text's tokens exactly where the model's vocabulary is at hand, else by an estimate.

What it must never do: reach for the network. The vocabulary comes with a package, or not at all.
"""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING, Final

from stream_guard.policies.lint.words import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

# Where openai-harmony, which downloads its vocabulary, reads it instead of downloading it.
_VOCABULARY_FOLDER: Final = "TIKTOKEN_ENCODINGS_BASE"

__all__ = ["token_counter"]


def _carries_vocabulary() -> bool:
    try:
        metadata.distribution("oss-harmony")
    except metadata.PackageNotFoundError:
        return False
    return True


def token_counter() -> Callable[[str], int]:
    """Return a function from a text to its number of tokens for gpt-oss."""
    if not (_carries_vocabulary() or os.environ.get(_VOCABULARY_FOLDER)):
        return estimate_tokens
    try:
        from openai_harmony import (
            HarmonyEncodingName,
            load_harmony_encoding,
        )
    except ImportError:
        return estimate_tokens
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    return lambda text: len(encoding.encode(text, disallowed_special=()))
