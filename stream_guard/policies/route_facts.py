"""What routing sees of a post, and one condition on it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate
from typing import TYPE_CHECKING, Any, Final, Literal

from stream_guard.core.json_pointer import find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.records.post import Post

__all__ = ["Condition", "Kind", "RouteFacts", "is_glob"]

Kind = Literal["topic", "header", "field", "language", "tenant"]

_CHARACTERS_MAX: Final = 1_000  # of a value, which the post's author controls, that a pattern reads


@dataclass(slots=True, frozen=True)
class RouteFacts:
    """The input of routing.

    Attributes:
        topic: the record's topic.
        headers: the record's headers.
        document: the post's parsed JSON, or None.
        language, tenant, author, id: of the post, or None.
    """

    topic: str
    headers: Sequence[tuple[str, bytes]] = ()
    document: Any = None
    language: str | None = None
    tenant: str | None = None
    author: str | None = None
    id: str | None = None

    @classmethod
    def of(
        cls,
        topic: str,
        headers: Sequence[tuple[str, bytes]],
        document: Any,  # noqa: ANN401 - any JSON value
        post: Post,
    ) -> RouteFacts:
        """Return the input of routing for a post."""
        return cls(topic, headers, document, post.language, post.tenant, post.author, post.id)

    def value(self, kind: Kind, name: str = "") -> Any:  # noqa: ANN401 - any JSON value
        """Return the value of a header (the last of that name), field or attribute; None if absent."""
        if kind == "header":
            raw = next((value for key, value in reversed(self.headers) if key == name), None)
            return None if raw is None else raw.decode("utf-8", "replace")
        if kind == "field":
            return find(self.document, name)
        return getattr(self, kind)


def is_glob(pattern: str) -> bool:
    """Return whether a name is a pattern."""
    return any(character in pattern for character in "*?[")


@dataclass(slots=True, frozen=True)
class Condition:
    """One condition of a rule: a value equals or matches one of several.

    Attributes:
        kind, name: which value; ``name`` is a header's name or a field's JSON pointer.
        wanted: literals, or globs as strings; a language also matches its regions (de: de-AT).
    """

    kind: Kind
    wanted: tuple[str | int | float | bool | None, ...]
    name: str = ""
    _patterns: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = []
        for wanted in self.wanted:
            if isinstance(wanted, str) and self.kind == "language":
                folded = wanted.casefold()
                patterns += [re.compile(translate(folded)), re.compile(translate(f"{folded}-*"))]
            elif isinstance(wanted, str) and is_glob(wanted):
                patterns.append(re.compile(translate(wanted)))
        object.__setattr__(self, "_patterns", tuple(patterns))

    def matches(self, facts: RouteFacts) -> bool:
        """Return whether a post meets the condition."""
        value = facts.value(self.kind, self.name)
        if isinstance(value, str):
            if self.kind == "language":
                value = value.casefold()
            short = value[:_CHARACTERS_MAX]
            return value in self.wanted or any(p.fullmatch(short) for p in self._patterns)
        # In Python, true is 1; in JSON it is not.
        return any(type(value) is type(wanted) and value == wanted for wanted in self.wanted)

    def __str__(self) -> str:
        """Return the condition as text for people."""
        name = f" {self.name}" if self.name else ""
        return f"{self.kind}{name} is {' or '.join(str(wanted) for wanted in self.wanted)}"
