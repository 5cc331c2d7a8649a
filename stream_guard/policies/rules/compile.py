"""Builds a RuleSet from declared rules, and collects all faults in terms, patterns and hashes. Pure.

An invalid entry never becomes part of the set.
"""

from __future__ import annotations

import hashlib
import re
from itertools import chain
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError
from stream_guard.policies.rules.disguise import Disguised
from stream_guard.policies.rules.folding import fold_pattern
from stream_guard.policies.rules.matching import Matcher, PatternError, Target, compile_pattern
from stream_guard.policies.rules.normalise import normalise
from stream_guard.policies.rules.ruleset import Exceptions, Fault, Rule, RuleSet
from stream_guard.policies.rules.spec import RULES_BYTES_MAX, RULES_FILE, RulesMeta
from stream_guard.policies.text import decode_utf8
from stream_guard.policies.yaml_document import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_guard.policies.rules.spec import MatchMeta, RuleMeta
    from stream_guard.policies.taxonomy import Taxonomy
    from stream_guard.policies.yaml_document import Document

__all__ = [
    "BANKS_BYTES_MAX", "BANK_BYTES_MAX", "HASHES_MAX", "INSTRUCTIONS_MAX", "PATTERNS_MAX",
    "PATTERN_CHARACTERS_MAX", "TERMS_CHARACTERS_MAX", "TERMS_MAX", "TERM_CHARACTERS_MAX", "Builder",
    "read_rules", "rules_sha256",
]  # fmt: skip

BANK_BYTES_MAX: Final = 33_554_432
"""The largest file of terms or hashes, in bytes."""
BANKS_BYTES_MAX: Final = 67_108_864
"""Of all files of terms and hashes of a policy; a file counts as often as rules name it."""
INSTRUCTIONS_MAX: Final = 1_000_000
"""Of all compiled patterns of a policy; their number sets RE2's time and memory."""
PATTERNS_MAX: Final = 1_000
PATTERN_CHARACTERS_MAX: Final = 1_000
TERMS_MAX: Final = 100_000
TERM_CHARACTERS_MAX: Final = 200
TERMS_CHARACTERS_MAX: Final = 2_000_000
"""Of all terms of a policy; a term takes about 100 bytes of memory."""
HASHES_MAX: Final = 500_000

_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")
_BACKTRACKING: Final = re.compile(r"\(\?(?:[=!]|<[=!]|>)|\\[1-9]|\\k<|\(\?P=|[*+?}]\+")
# No sensible pattern matches all of these.
_ANYTHING: Final = ("e", "7 days", "!", "\u0438\u0434\u0438", "\u65e5\u672c", "\U0001f600")

_Path = tuple[str | int, ...]


class Builder:
    """Collects the terms, patterns and hashes of rules.

    Args:
        document: ``rules.yaml``, for positions.
        files: bytes of ``rules.yaml`` and of the files that it names, by name.
        taxonomy: the categories and rule ids that rules may name.
        folder: the policy's folder, for messages.
    """

    def __init__(
        self, document: Document, files: Mapping[str, bytes], taxonomy: Taxonomy, folder: str
    ) -> None:
        self._document = document
        self._files = files
        self._taxonomy = taxonomy
        self._folder = folder
        self._name = document.source.rpartition("/")[2]
        self._rules: list[Rule] = []
        self._faults: list[Fault] = []
        self._terms: dict[bool, list[tuple[str, Target]]] = {False: [], True: []}
        self._patterns: dict[bool, list[tuple[str, Target]]] = {False: [], True: []}
        self._hashes: dict[bytes, tuple[tuple[int, str], ...]] = {}
        self._instructions = 0
        self._lines_by_file: dict[str, int] = {}
        self._numbers = {"patterns": 0, "terms": 0, "characters of terms": 0, "hashes": 0}
        self._settled: dict[str, Rule] = {}

    def add(self, index: int, meta: RuleMeta) -> None:
        """Add the rule with this index in the file. Raises PolicyError as :func:`read_rules`."""
        path: _Path = ("rules", index)
        self._check_names(path, meta)
        terms, patterns, hashes = self._gather(path, meta, index, raw=meta.raw)
        self._terms[meta.raw] += terms
        self._patterns[meta.raw] += patterns
        for digest, label in hashes:
            self._hashes[digest] = (*self._hashes.get(digest, ()), (index, label))
        rule = Rule(
            id=meta.id,
            outcome=meta.outcome,
            category=meta.category,
            rule_ids=tuple(meta.rule_ids),
            languages=tuple(language.lower() for language in meta.languages),
            raw=meta.raw,
            exceptions=self._exceptions((*path, "except"), meta, index),
            counts={"patterns": len(patterns), "terms": len(terms), "hashes": len(hashes)},
            line=self._document.position(path)[0],
        )
        self._rules.append(rule)
        self._check_contradictions(path, rule, terms)

    def check_counts(self, rules: Iterable[RuleMeta]) -> None:
        """Count what the rules name, before anything is compiled.

        Raises:
            PolicyError: a limit is exceeded; or as :func:`read_rules`.
        """
        parts = [part for rule in rules for part in (rule, rule.exceptions) if part is not None]
        numbers = dict.fromkeys(self._numbers, 0)
        size_bytes = 0
        for part in parts:
            numbers["patterns"] += len(part.patterns)
            numbers["terms"] += len(part.terms)
            for what, names in (("terms", part.terms_files), ("hashes", part.hashes_files)):
                for name in names:
                    size_bytes += len(self._files.get(name, b""))
                    numbers[what] += self._count_lines(name)
        self._check_limits(numbers)
        if size_bytes > BANKS_BYTES_MAX:
            message = (
                f"the rules name files of {size_bytes:,} bytes together, over {BANKS_BYTES_MAX:,}; "
                "remove lines, or name a file in fewer rules"
            )
            raise self._document.error((), message)

    def _count_lines(self, name: str) -> int:
        """Return the number of a file's entries; 0 for a missing or too large file, which is rejected later."""
        if name not in self._lines_by_file:
            content = self._files.get(name, b"")
            lines = content.split(b"\n") if len(content) <= BANK_BYTES_MAX else []
            self._lines_by_file[name] = sum(
                bool(said := line.strip()) and not said.startswith(b"#") for line in lines
            )
        return self._lines_by_file[name]

    def _check_limits(self, numbers: Mapping[str, int]) -> None:
        for what, limit in (
            ("patterns", PATTERNS_MAX),
            ("terms", TERMS_MAX),
            ("characters of terms", TERMS_CHARACTERS_MAX),
            ("hashes", HASHES_MAX),
        ):
            if numbers[what] > limit:
                message = f"{numbers[what]:,} {what}, over the limit of {limit:,}; remove some"
                raise self._document.error((), message)

    def build(self) -> RuleSet:
        """Return the set."""
        handed_on = {n for n, rule in enumerate(self._rules) if rule.outcome == "escalate"}
        return RuleSet(
            sha256=rules_sha256(self._files, self._name),
            rules=tuple(self._rules),
            normal=Matcher(self._terms[False], self._patterns[False], fold_case=True),
            raw=Matcher(self._terms[True], self._patterns[True], fold_case=False),
            hashes=self._hashes,
            faults=tuple(self._faults),
            disguised=Disguised.make(self._terms[False], self._patterns[False], handed_on),
        )

    def _fault(self, code: str, path: _Path, detail: str) -> None:
        line, column = self._document.position(path)
        self._faults.append(Fault(code, self._name, line, column, detail))

    def _check_names(self, path: _Path, meta: RuleMeta) -> None:
        twin = next((rule for rule in self._rules if rule.id == meta.id), None)
        if twin is not None:
            detail = f"the rule id {meta.id!r} is also in line {twin.line}"
            self._fault("SG304", (*path, "id"), detail)
        self._check_category(path, meta)
        if unknown := [i for i in meta.rule_ids if i not in self._taxonomy.rule_ids]:
            detail = f"the policy has no rule id {', '.join(map(repr, unknown))}"
            self._fault("SG306", (*path, "rule_ids"), detail)
        elif any(i.partition(".")[0] != meta.category for i in meta.rule_ids):
            detail = f"the rule ids belong to another category than {meta.category!r}"
            self._fault("SG306", (*path, "rule_ids"), detail)

    def _check_category(self, path: _Path, meta: RuleMeta) -> None:
        if meta.outcome == "escalate":
            if meta.category is not None or meta.rule_ids:
                detail = f"the rule {meta.id!r} escalates, so category and rule ids have no effect"
                self._fault("SG305", (*path, "category"), detail)
            return
        violates = meta.outcome == "violates"
        codes = [c.code for c in self._taxonomy.categories if c.violates == violates]
        if meta.category is None:
            if violates and codes:
                detail = f"the rule {meta.id!r} violates but names no category; use one of: {', '.join(codes)}"
                self._fault("SG305", path, detail)
        elif meta.category not in codes:
            known = ", ".join(codes) or "none"
            detail = f"no category {meta.category!r} with the outcome {meta.outcome!r}; use one of: {known}"
            self._fault("SG305", (*path, "category"), detail)

    def _exceptions(self, path: _Path, meta: RuleMeta, index: int) -> Exceptions | None:
        if meta.exceptions is None:
            return None
        terms, patterns, hashes = self._gather(path, meta.exceptions, index, raw=meta.raw)
        matcher = Matcher(terms, patterns, fold_case=not meta.raw)
        return Exceptions(matcher, frozenset(digest for digest, _ in hashes))

    def _gather(
        self, path: _Path, meta: MatchMeta, index: int, *, raw: bool
    ) -> tuple[list[tuple[str, Target]], list[tuple[str, Target]], list[tuple[bytes, str]]]:
        patterns = [
            (pattern, Target(index, f"pattern {number}"))
            for number, text in enumerate(meta.patterns, 1)
            if (pattern := self._pattern((*path, "patterns", number - 1), text, raw=raw))
            is not None
        ]
        terms: dict[str, Target] = {}
        for number, name in enumerate(meta.terms_files):
            target = Target(index, f"a term of {name}", meta.whole_words)
            lines = [
                (name, line, 1, text)
                for line, text in self._lines((*path, "terms_files", number), name)
            ]
            self._bank((*path, "terms_files", number), name, lines, target, terms, raw=raw)
        listed = [
            (self._name, *self._document.position((*path, "terms", number)), text)
            for number, text in enumerate(meta.terms)
        ]
        if listed:
            target = Target(index, "a listed term", meta.whole_words)
            self._bank((*path, "terms"), "terms", listed, target, terms, raw=raw)
        hashes = chain.from_iterable(
            self._digests((*path, "hashes_files", number), name)
            for number, name in enumerate(meta.hashes_files)
        )
        gathered = list(terms.items()), patterns, list(hashes)
        self._numbers["terms"] += len(terms)
        self._numbers["patterns"] += len(patterns)
        self._numbers["hashes"] += len(gathered[2])
        self._numbers["characters of terms"] += sum(map(len, terms))
        self._check_limits(self._numbers)
        return gathered

    def _pattern(self, path: _Path, text: str, *, raw: bool) -> str | None:
        """Return a valid pattern; else note the fault and return None."""
        if len(text) > PATTERN_CHARACTERS_MAX:
            detail = f"{len(text):,} characters, over {PATTERN_CHARACTERS_MAX:,}"
            self._fault("SG301", path, detail)
            return None
        pattern, never = (text, []) if raw else fold_pattern(text)
        try:
            compiled = compile_pattern(pattern, fold_case=not raw)
        except PatternError as fault:
            code = "SG302" if _BACKTRACKING.search(text) else "SG301"
            self._fault(code, path, f"RE2 rejects this pattern: {fault}")
            return None
        self._instructions += compiled.programsize
        if self._instructions > INSTRUCTIONS_MAX:
            message = (
                f"the patterns up to here compile to more than {INSTRUCTIONS_MAX:,} instructions; "
                "shorten their repeats, such as {900}"
            )
            raise self._document.error(path, message)
        hits = [compiled.search(one) for one in ("", *_ANYTHING)]
        if any(hit is not None and hit.start() == hit.end() for hit in hits):
            detail = "the pattern matches the empty text, and so nearly every post"
            self._fault("SG303", path, detail)
            return None
        if all(hits[1:]):
            self._fault("SG303", path, "the pattern matches every post")
            return None
        for what in never:
            self._fault("SG312", path, f"normalised text never contains {what}")
        return pattern

    def _lines(self, path: _Path, name: str) -> Iterator[tuple[int, str]]:
        """Yield number and text of each line of a file, except blank lines and comments."""
        content = self._files.get(name)
        if content is None:
            message = f"no file {name!r} in this folder; add it, or remove its name"
            raise self._document.error(path, message)
        if len(content) > BANK_BYTES_MAX:
            message = f"{self._folder}/{name}: over {BANK_BYTES_MAX:,} bytes; remove some lines"
            raise PolicyError(message)
        text = decode_utf8(content, f"{self._folder}/{name}")
        for number, line in enumerate(text.split("\n"), 1):
            if (said := line.strip()) and not said.startswith("#"):
                yield number, said

    def _bank(
        self,
        path: _Path,
        name: str,
        entries: list[tuple[str, int, int, str]],
        target: Target,
        terms: dict[str, Target],
        *,
        raw: bool,
    ) -> None:
        """Add the terms of a list; an entry is file, line, column and text."""
        if not entries:
            self._fault("SG307", path, f"{name} is empty and matches nothing")
        first: dict[str, int] = {}
        for file, line, column, text in entries:
            term = text if raw else normalise(text)
            fault = ""
            if not term:
                fault, detail = "SG308", "the normal form of this term is empty"
            elif len(term) > TERM_CHARACTERS_MAX:
                fault, detail = (
                    "SG308",
                    f"over {TERM_CHARACTERS_MAX} characters; the term is ignored",
                )
            elif term in first:
                fault, detail = "SG309", f"the normal form is the same as in line {first[term]}"
            elif not target.whole_word and len(term) <= _SHORT and term.isascii():
                self._faults.append(
                    Fault("SG313", file, line, column, f"{term!r} also matches inside other words")
                )
            if fault:
                self._faults.append(Fault(fault, file, line, column, detail))
                continue
            first[term] = line
            terms.setdefault(term, target)

    def _digests(self, path: _Path, name: str) -> Iterator[tuple[bytes, str]]:
        label, seen = f"a hash of {name}", set()
        for line, text in self._lines(path, name):
            if _DIGEST.fullmatch(text) is None:
                detail = "not a SHA-256 in hex (64 digits)"
                self._faults.append(Fault("SG311", name, line, 1, detail))
            elif (digest := bytes.fromhex(text)) in seen:
                self._faults.append(Fault("SG309", name, line, 1, "duplicate hash"))
            else:
                seen.add(digest)
                yield digest, label
        if not seen:
            self._fault("SG307", path, f"{name} is empty and matches nothing")

    def _check_contradictions(
        self, path: _Path, rule: Rule, terms: list[tuple[str, Target]]
    ) -> None:
        """Note terms that an earlier rule for the same language decides differently."""
        if rule.outcome == "escalate":
            return
        for term, _ in terms:
            earlier = self._settled.setdefault(term, rule)
            if earlier.outcome != rule.outcome and _share_language(earlier, rule):
                detail = f"{term!r} is {earlier.outcome} by the earlier rule {earlier.id!r}, and {rule.outcome} here"
                self._fault("SG310", path, detail)


_SHORT: Final = 3
"""A term of at most so many letters is often part of unrelated words."""


def rules_sha256(files: Mapping[str, bytes], first: str = "rules.yaml") -> str:
    """Return the hex digest of ``rules.yaml`` and the files that it names, with their names and lengths."""
    digest = hashlib.sha256()
    for name in (first, *sorted(files.keys() - {first})):
        content = files[name]
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _share_language(one: Rule, other: Rule) -> bool:
    if not one.languages or not other.languages:
        return True
    return any(other.applies_to(tag) for tag in one.languages) or any(
        one.applies_to(tag) for tag in other.languages
    )


def read_rules(files: Mapping[str, bytes], taxonomy: Taxonomy, folder: str) -> RuleSet:
    """Parse ``rules.yaml`` and the lists that it names.

    Args:
        files: bytes of ``rules.yaml`` and of the existing files that it names, by name.
        taxonomy: the categories and rule ids that rules may name.
        folder: the policy's folder, for messages.

    Raises:
        PolicyError: the file does not fit its model, or names a file that is missing, too large or not UTF-8; or a
            limit is exceeded. Sizes and counts are checked before anything is compiled.
    """
    content = files[RULES_FILE]
    if len(content) > RULES_BYTES_MAX:
        message = (
            f"{folder}/{RULES_FILE}: {len(content):,} bytes, over {RULES_BYTES_MAX:,} bytes; "
            "move long lists of terms to a file under terms_files"
        )
        raise PolicyError(message)
    document = read_yaml(content, f"{folder}/{RULES_FILE}")
    meta = document.check(RulesMeta)
    builder = Builder(document, files, taxonomy, folder)
    builder.check_counts(meta.rules)
    for index, rule in enumerate(meta.rules):
        builder.add(index, rule)
    return builder.build()
