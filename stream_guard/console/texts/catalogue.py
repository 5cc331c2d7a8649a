"""Reads the catalogue: a text's key is ``FILE.NAME``, as in ``now.title``.

A text is a pattern of :meth:`str.format` with named fields.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Texts", "load_texts"]


class Texts:
    """The texts, by key.

    Args:
        patterns: by key.
    """

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._patterns = dict(patterns)

    @property
    def keys(self) -> frozenset[str]:
        """All keys."""
        return frozenset(self._patterns)

    def __contains__(self, key: str) -> bool:
        return key in self._patterns

    def pattern(self, key: str) -> str:
        """Return a text as the catalogue has it. Raises KeyError."""
        return self._patterns[key]

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with its fields filled in. Raises KeyError for an unknown key or a missing field."""
        return self._patterns[key].format(**values)


def load_texts() -> Texts:
    """Return the catalogue of the package."""
    patterns: dict[str, str] = {}
    for file in files("stream_guard.console.texts").iterdir():
        if file.name.endswith(".toml"):
            page = file.name.removesuffix(".toml")
            for name, pattern in tomllib.loads(file.read_text("utf-8")).items():
                patterns[f"{page}.{name}"] = pattern
    return Texts(patterns)
