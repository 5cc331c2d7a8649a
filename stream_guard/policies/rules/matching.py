"""Finds terms and patterns in a text, all in one pass each. Pure, and linear in the text whatever it holds.

Terms by Aho-Corasick; patterns by RE2, which has no backtracking that a text could blow up. What it must never do:
raise on account of a text, or lose a hit because many patterns together grew too large for a table.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import ahocorasick
import re2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Matcher", "PatternError", "Target", "compile_pattern"]

_TOGETHER: Final = 100
"""Patterns tried as one, before each by itself: one automaton of thousands would outgrow RE2's memory."""
_MEMORY_BYTES: Final = 32 * 1_048_576
_SPANS_MAX: Final = 100
"""Of one pattern in one text: each is a search of its own, and could look at all the rest."""


class PatternError(ValueError):
    """RE2 does not take a pattern; says why in RE2's words."""


class Target(NamedTuple):
    """What a hit means.

    Attributes:
        rule: the rule's place in its file, from 0.
        label: what hit, for people: ``pattern 2``, ``a term of touts.txt``; never the words themselves.
        whole_word: the term counts only where no letter, digit or mark stands beside it.
    """

    rule: int
    label: str
    whole_word: bool = False


def compile_pattern(pattern: str, *, fold_case: bool) -> Any:  # noqa: ANN401 - re2 has no types
    """Compile a pattern.

    Raises:
        PatternError: RE2 refuses it.
    """
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not fold_case
    options.never_capture = True
    options.max_mem = _MEMORY_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else str(error)
        raise PatternError(
            said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        ) from error
    except UnicodeEncodeError as error:
        raise PatternError("holds half a surrogate pair") from error


@dataclass(slots=True)
class _Chunk:
    """Some patterns: all as one (None where that is too large), and each by itself."""

    together: Any
    each: list[tuple[Any, Target]]


class Matcher:
    """A set of terms and patterns.

    Args:
        terms: what to find as it stands, in a text of the same form.
        patterns: as :func:`compile_pattern` takes them.
        fold_case: whether patterns regard capitals as small letters.

    Raises:
        PatternError: RE2 refuses a pattern.
    """

    def __init__(
        self,
        terms: Iterable[tuple[str, Target]],
        patterns: Iterable[tuple[str, Target]],
        *,
        fold_case: bool,
    ) -> None:
        self._terms = _automaton(terms)
        self._chunks = list(_chunks(patterns, fold_case=fold_case))

    def hits(self, text: str) -> dict[int, str]:
        """Return each rule that something hits, with a label of what did."""
        found: dict[int, str] = {}
        if self._terms is not None:
            for end, (length, targets) in self._terms.iter(text):
                for target in targets:
                    if target.rule not in found and _counts(text, end, length, target):
                        found[target.rule] = target.label
        if self._chunks:
            content = text.encode("utf-8", "replace")
            for chunk in self._chunks:
                if chunk.together is None or chunk.together.search(content) is not None:
                    for pattern, target in chunk.each:
                        if target.rule not in found and pattern.search(content) is not None:
                            found[target.rule] = target.label
        return found

    def blank(self, text: str) -> str:
        """Return a text with a line's end in place of whatever hits; of a pattern, of its first 100 hits."""
        spans: list[tuple[int, int]] = []
        if self._terms is not None:
            for end, (length, targets) in self._terms.iter(text):
                if any(_counts(text, end, length, target) for target in targets):
                    spans.append((end + 1 - length, end + 1))
        if self._chunks:
            plain = text.encode(
                "utf-8", "replace"
            ).decode()  # as long as the text, without surrogates
            for chunk in self._chunks:
                for pattern, _ in chunk.each:
                    spans += (hit.span() for hit in islice(pattern.finditer(plain), _SPANS_MAX))
        return _without(text, spans)


def _automaton(terms: Iterable[tuple[str, Target]]) -> Any:  # noqa: ANN401 - ahocorasick has no types
    by_term: dict[str, list[Target]] = {}
    for term, target in terms:
        by_term.setdefault(term, []).append(target)
    if not by_term:
        return None
    automaton = ahocorasick.Automaton()
    for term, targets in by_term.items():
        automaton.add_word(term, (len(term), tuple(targets)))
    automaton.make_automaton()
    return automaton


def _chunks(patterns: Iterable[tuple[str, Target]], *, fold_case: bool) -> Iterator[_Chunk]:
    rest = iter(patterns)
    while some := list(islice(rest, _TOGETHER)):
        each = [(compile_pattern(pattern, fold_case=fold_case), t) for pattern, t in some]
        together = None
        if len(some) > 1:
            try:
                whole = "|".join(f"(?:{pattern})" for pattern, _ in some)
                together = compile_pattern(whole, fold_case=fold_case)
            except (
                PatternError
            ):  # each alone is fine; one with all is too large, or names a group twice
                together = None
        yield _Chunk(together, each)


def _counts(text: str, end: int, length: int, target: Target) -> bool:
    """Return whether a term that ends here counts, whole words regarded."""
    return not target.whole_word or not (
        _in_word(text[end + 1 : end + 2])
        or _in_word(text[end - length : end - length + 1] if end >= length else "")
    )


def _in_word(character: str) -> bool:
    # Vowel signs of Indic scripts are marks, and go on with the word.
    return character.isalnum() or (
        not character.isascii() and unicodedata.category(character).startswith("M")
    )


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    parts, done = [], 0
    for start, end in sorted(spans):
        if end > done:
            parts += [text[done : max(start, done)], "\n"]
            done = end
    return "".join((*parts, text[done:]))
