"""A policy's compiled rules, and the first rule that applies to a post. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from stream_guard.policies.rules.normalise import normalise, normalise_forms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.policies.rules.disguise import Disguised
    from stream_guard.policies.rules.matching import Matcher


RuleOutcome: TypeAlias = Literal["violates", "safe", "escalate"]


def hash_text(text: str) -> str:
    """Return the hex SHA-256 of a text's normal form, as in hash lists."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()


class Fault(NamedTuple):
    """A fault in a rules file, for the linter.

    Attributes:
        code: of the finding, such as ``SG301``.
        file: name in the policy's folder.
        line, column: from 1.
        detail: a description.
    """

    code: str
    file: str
    line: int
    column: int
    detail: str


@dataclass(slots=True, frozen=True, eq=False)
class Exceptions:
    """The exceptions of a rule: hits are removed from the text, and posts with these hashes are skipped."""

    matcher: Matcher
    hashes: frozenset[bytes] = frozenset()


@dataclass(slots=True, frozen=True, eq=False)
class Rule:
    """One rule.

    Attributes:
        id: unique in its policy.
        outcome: ``violates`` and ``safe`` decide, ``escalate`` goes to the next tier.
        category, rule_ids: of the policy, for the verdict.
        languages: BCP 47 tags in lower case; empty for every post, also without a language.
        raw: matches the original text.
        exceptions: or None.
        counts: number of ``patterns``, ``terms`` and ``hashes``.
        line: in ``rules.yaml``, from 1.
    """

    id: str
    outcome: RuleOutcome
    category: str | None = None
    rule_ids: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    raw: bool = False
    exceptions: Exceptions | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    line: int = 1

    def applies_to(self, language: str | None) -> bool:
        """Return whether the rule is for posts in this language; ``de`` includes ``de-AT``."""
        if not self.languages:
            return True
        tag = (language or "").lower().replace("_", "-")
        return any(tag == one or tag.startswith(f"{one}-") for one in self.languages)


class Hit(NamedTuple):
    """A rule that applies, and the source of the hit: ``pattern 2``, ``a term of touts.txt``.

    Attributes:
        disguised: whether the normal form has no hit, but the form without disguises has one.
    """

    rule: Rule
    label: str
    disguised: bool = False


@dataclass(slots=True, frozen=True, eq=False)
class RuleSet:
    """A policy's compiled rules; two sets from the same files are equal.

    Attributes:
        sha256: hex digest of ``rules.yaml`` and of the files that it names.
        rules: in the order of the file.
        normal, raw: all terms and patterns, for normalised and for original texts.
        hashes: SHA-256 of normalised texts (32 bytes), with the index and label of each rule that has it.
        faults: faults in the files; a set with an error among them never goes live.
        disguised: terms and patterns of the rules that escalate, for texts without their disguises; None if there are
            none.
    """

    sha256: str
    rules: tuple[Rule, ...]
    normal: Matcher
    raw: Matcher
    hashes: Mapping[bytes, tuple[tuple[int, str], ...]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    disguised: Disguised | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleSet) and other.sha256 == self.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def name(self) -> str:
        """The model name in verdicts that a rule decided."""
        return f"rules@{self.sha256[:12]}"

    def first(
        self,
        text: str,
        *,
        title: str | None = None,
        language: str | None = None,
        aside: str | None = None,
    ) -> Hit | None:
        """Return the first rule that applies to a post, or None.

        Args:
            text: without markup; hashes are compared with it alone.
            title: of the post, or None.
            language: of the post, or None.
            aside: links and hidden text of its markup, or None.
        """
        forms = normalise_forms(text)
        others = [other for other in (title, aside) if other]
        digest = hashlib.sha256(forms[0].encode()).digest() if self.hashes else b""
        found = dict(self.hashes.get(digest, ()))
        for form in chain(forms, *map(normalise_forms, others)) if others else forms:
            found = self.normal.hits(form) | found
        for plain in (text, *others):
            found = self.raw.hits(plain) | found
        hidden = self._hidden((text, *others), found) if self.disguised is not None else {}
        for index in sorted(found | hidden):
            rule = self.rules[index]
            if not rule.applies_to(language):
                continue
            if index not in found:
                return Hit(rule, hidden[index], disguised=True)
            if rule.exceptions is None:
                return Hit(rule, found[index])
            if rule.exceptions.hashes and not digest:
                digest = hashlib.sha256(forms[0].encode()).digest()
            if digest not in rule.exceptions.hashes:
                label = self._label_outside(index, rule.exceptions, digest, (text, *others))
                if label is not None:
                    return Hit(rule, label)
        return None

    def _hidden(self, texts: Sequence[str], found: Mapping[int, str]) -> dict[int, str]:
        """Return the rules whose only hits are disguised, outside their exceptions, with their labels."""
        assert self.disguised is not None
        hidden: dict[int, str] = {}
        for text in texts:
            for index, label in self.disguised.hits(text).items():
                exceptions = self.rules[index].exceptions
                if index in found or index in hidden:
                    continue
                if exceptions is None:
                    hidden[index] = label
                    continue
                rest = exceptions.matcher.blank(normalise(text))
                if index in self.disguised.hits(rest):
                    hidden[index] = label
        return hidden

    def _label_outside(
        self,
        index: int,
        exceptions: Exceptions,
        digest: bytes,
        texts: Sequence[str],
    ) -> str | None:
        """Return the label of a rule's hit outside its exceptions, or None."""
        label = dict(self.hashes.get(digest, ())).get(index)
        if label is not None:
            return label
        raw = self.rules[index].raw
        matcher = self.raw if raw else self.normal
        for one in texts if raw else chain.from_iterable(map(normalise_forms, texts)):
            label = matcher.hits(exceptions.matcher.blank(one)).get(index)
            if label is not None:
                return label
        return None
