"""Finds terms (Aho-Corasick) and patterns (RE2) in a text. Pure, and linear in any text.

RE2 does not backtrack. No text raises an error. No hit is lost where many patterns together are too large for RE2.
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
"""Patterns that are joined into one, as a filter; RE2's memory does not fit thousands."""
_MEMORY_BYTES: Final = 32 * 1_048_576
_SPANS_MAX: Final = 100
"""Of one pattern in one text, since each search may read the rest of the text."""


class PatternError(ValueError):
    """RE2 rejects a pattern; the message is RE2's."""


class Target(NamedTuple):
    """The meaning of a hit.

    Attributes:
        rule: the rule's index in its file, from 0.
        label: the source of the hit, for people: ``pattern 2``, ``a term of touts.txt``; never the matched words.
        whole_word: the term counts only with no letter, digit or mark beside it.
    """

    rule: int
    label: str
    whole_word: bool = False


def compile_pattern(pattern: str, *, fold_case: bool) -> Any:  # noqa: ANN401 - re2 has no types
    """Compile a pattern.

    Raises:
        PatternError: RE2 rejects it.
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
        raise PatternError("contains half a surrogate pair") from error


@dataclass(slots=True)
class _Chunk:
    """Several patterns: joined (None where that is too large), and each alone."""

    together: Any
    each: list[tuple[Any, Target]]


class Matcher:
    """A set of terms and patterns.

    Args:
        terms: literal texts, normalised as the text is.
        patterns: as :func:`compile_pattern` takes them.
        fold_case: whether patterns ignore case.

    Raises:
        PatternError: RE2 rejects a pattern.
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
        """Return each rule that matches, with the label of its hit."""
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
        """Return the text with each hit replaced by a line end; of a pattern, its first 100 hits."""
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
            except PatternError:  # the joined pattern is too large, or has a duplicate group name
                together = None
        yield _Chunk(together, each)


def _counts(text: str, end: int, length: int, target: Target) -> bool:
    """Return whether a hit that ends here counts, under the rule for whole words."""
    return not target.whole_word or not (
        _in_word(text[end + 1 : end + 2])
        or _in_word(text[end - length : end - length + 1] if end >= length else "")
    )


def _in_word(character: str) -> bool:
    # Vowel signs of Indic scripts are marks, and part of the word.
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
