"""Counts the tokens of a text, with the model's vocabulary if it is installed, else by an estimate.

It never uses the network: an installed package contains the vocabulary.
"""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING, Final

from stream_guard.policies.lint.words import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

# With this variable, openai-harmony reads its vocabulary from a folder, and does not download it.
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
