"""Infers from a bare policy text its labels, categories, rule ids, and which categories violate. Pure.

Published policies have no declarations. They name categories in headings (``ARS1 - Promotion``), rules in
lists (``ARS1.a Encouragement``) and the label of each section on a line of its own (``Output: `INVALID```).
Without labels, they are ``violates`` and ``safe``. A category or rule id that is only mentioned is not inferred.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from stream_guard.core.vocabulary import Severity
from stream_guard.policies.choices import further_outcomes, read_answers, read_pairs
from stream_guard.policies.coverage import find_unread
from stream_guard.policies.labels import LabelPair
from stream_guard.policies.mentions import defined_rules, find_mentions, named_ids
from stream_guard.policies.outcome_words import find_outcomes
from stream_guard.policies.outcomes import FoundOutcome, Outcome
from stream_guard.policies.text import read_sections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.policies.mentions import Mention
    from stream_guard.policies.text import Section

__all__ = [
    "Category",
    "Found",
    "Severity",
    "Taxonomy",
    "What",
    "defined_rules",
    "infer_taxonomy",
    "named_ids",
]

_SERIES: Final = re.compile(r"[A-Z]+")
_KINDS: Final = re.compile(r"(?<![\w-])([A-Z])-([A-Z]{1,8}\d{1,3}|[A-Z]{1,8}#)(?![\w.])")

What = Literal[
    "violates_label", "safe_label", "category", "violates", "rule_id", "unread", "outcome"
]


@dataclass(slots=True, frozen=True)
class Category:
    """One category.

    Attributes:
        code: as answers name it.
        title: as the text names it.
        violates: whether a post in this category violates.
        severity, action: from ``policy.yaml`` alone; ``action`` is recommended to enforcement.
        needs_review: whether the text sends such posts to people: ``INVALID + ESCALATE``.
        label: the word of its outcome, where the policy has more than two; None for the usual word of its stance.
        valid_days: after how many days a verdict of this category expires, from ``policy.yaml`` alone; None: never.
    """

    code: str
    title: str
    violates: bool
    severity: Severity | None = None
    action: str | None = None
    needs_review: bool = False
    label: str | None = None
    valid_days: int | None = None


@dataclass(slots=True, frozen=True)
class Found:
    """The place of one inferred or declared value.

    Attributes:
        what: the kind of value. ``violates`` is the stance of a category. ``unread`` is a section that
            looks like a violating category and yields no code. ``outcome`` is a further label.
        value: the value; for ``violates`` the category's code, for ``unread`` the section's title.
        line: from 1; 0 for a fallback.
        how: in a few words, for people.
        file: ``policy.md`` or ``policy.yaml``.
    """

    what: What
    value: str
    line: int
    how: str
    file: str = "policy.md"


@dataclass(slots=True, frozen=True)
class Taxonomy:
    """The labels, categories and rule ids that answers may name.

    Attributes:
        categories: in the text's order; empty where the text defines none.
        rule_ids: in the text's order; each begins with its category's code and a dot.
        violates_label, safe_label: the words of the text.
        found: the place of each value.
        complete: whether every violating section yields a category. If not, an answer may violate
            without a category.
        label_kinds: prefixes of the labels where an item gets several: ``D`` and ``R`` in ``D-SP2, R-SP0``.
        outcomes: every label, violating and safe first; by default these two.
    """

    categories: tuple[Category, ...] = ()
    rule_ids: tuple[str, ...] = ()
    violates_label: str = "violates"
    safe_label: str = "safe"
    found: tuple[Found, ...] = field(default=(), compare=False)
    complete: bool = True
    label_kinds: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    def __post_init__(self) -> None:
        if not self.outcomes:
            pair = (Outcome(self.violates_label, "violates"), Outcome(self.safe_label, "safe"))
            object.__setattr__(self, "outcomes", pair)

    def outcome_of(self, category: Category) -> Outcome:
        """Return the outcome of a post in this category."""
        word = category.label or (self.violates_label if category.violates else self.safe_label)
        return next((o for o in self.outcomes if o.word == word), self.outcomes[0])

    def category(self, code: str) -> Category | None:
        """Return the category with this code, or None."""
        return next((c for c in self.categories if c.code == code), None)

    def outcome(self, word: str) -> Outcome | None:
        """Return the outcome with this word, or None."""
        return next((o for o in self.outcomes if o.word == word), None)

    def where(self, what: What, value: str) -> Found | None:
        """Return the place of this value, or None."""
        return next((f for f in self.found if f.what == what and f.value == value), None)


_FALLBACK: Final = LabelPair("violates", "safe", 0, 0, "the fallback: the text states no labels")

# The signs of a category's stance, most reliable first; the first one present decides.
_SIGNS: Final = (
    *("output line", "verdict column", "heading", "meaning"),
    *(
        "label beside the meaning",
        "sent to people",
        "enclosing heading",
        "for posts in no category",
    ),
)


def infer_taxonomy(text: str) -> Taxonomy:
    """Infer labels, categories and rule ids of a text; without labels, they are ``violates`` and ``safe``."""
    sections = read_sections(text)
    pairs = read_pairs(sections)
    pair = pairs[0] if pairs else _FALLBACK
    listed = further_outcomes(read_answers(sections), pair)
    others = _merged(listed, find_outcomes(sections, pair))
    pair = replace(pair, others=tuple(each.outcome for each in others))
    rules = _rules(sections)
    mentions = _without_title(_confirmed(list(find_mentions(sections, rules, pair))), sections)
    found = [
        Found("violates_label", pair.violates, pair.violates_line, pair.how),
        Found("safe_label", pair.safe, pair.safe_line, pair.how),
    ]
    categories = []
    by_code: dict[str, list[Mention]] = {}
    for mention in mentions:
        by_code.setdefault(mention.code, []).append(mention)
    for code, own in by_code.items():
        violates, sign, sign_line = _stance_of(own, pair)
        categories.append(
            Category(
                code,
                next((m.title for m in own if m.title), code),
                violates,
                needs_review=any(m.needs_review for m in own),
                label=next((m.label for m in own if pair.is_further(m.label)), None),
            )
        )
        found.append(Found("category", code, own[0].line, own[0].how))
        found.append(Found("violates", code, sign_line, sign))
    found.extend(
        Found("outcome", each.outcome.word, line, how)
        for each in others
        for line, how in each.places
    )
    found.extend(
        Found("rule_id", rule, line, "defined at the line's start") for rule, line in rules.items()
    )
    unread = list(find_unread(sections, mentions, pair)) if categories else []
    found.extend(Found("unread", each.title, each.line, "yields no code") for each in unread)
    return Taxonomy(
        tuple(categories),
        tuple(rules),
        pair.violates,
        pair.safe,
        tuple(found),
        complete=not unread,
        # A list of labels cannot say that a violation is of a category that was not read.
        label_kinds=() if unread else _label_kinds(text, by_code),
        outcomes=(
            Outcome(pair.violates, "violates"),
            Outcome(pair.safe, "safe"),
            *(each.outcome for each in others),
        ),
    )


def _merged(
    listed: tuple[FoundOutcome, ...], stated: tuple[FoundOutcome, ...]
) -> tuple[FoundOutcome, ...]:
    """Return the outcomes of a list of answers, and those that the text states elsewhere."""
    found = {each.outcome.word.casefold(): each for each in listed}
    for each in stated:
        own = found.get(each.outcome.word.casefold())
        places = each.places if own is None else (*own.places, *each.places)
        outcome = each.outcome if own is None else own.outcome
        lines = dict(reversed([(line, (line, how)) for line, how in places]))
        found[each.outcome.word.casefold()] = FoundOutcome(outcome, tuple(sorted(lines.values())))
    return tuple(found.values())


def _label_kinds(text: str, codes: Mapping[str, object]) -> tuple[str, ...]:
    """Return the prefixes of labels such as ``D-SP2``, of which each item gets one of each kind."""
    series = {_letters(code) for code in codes}
    kinds = dict.fromkeys(
        kind for kind, code in _KINDS.findall(text) if code in codes or code[:-1] in series
    )
    return tuple(kinds) if len(kinds) > 1 else ()


def _stance_of(mentions: Sequence[Mention], pair: LabelPair) -> tuple[bool, str, int]:
    """Return whether a category violates, by the most reliable sign, with the sign and its line."""
    for sign in _SIGNS:
        known = [m for m in mentions if m.sign == sign and m.violates is not None]
        # "S - VIOLATES" and "S - SAFE" are two sides of one violating category.
        chosen = next((m for m in known if m.violates), known[0] if known else None)
        if chosen is not None:
            return bool(chosen.violates), sign, chosen.sign_line
        labelled = next((m for m in mentions if m.sign == sign and m.label is not None), None)
        if labelled is not None and pair.is_further(labelled.label):
            return True, sign, labelled.sign_line
    code = mentions[0].code
    digits = code.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    if digits.isdigit() and int(digits) == 0:
        return False, "its number is 0, by custom the safe one", mentions[0].line
    return True, "assumed: the text does not say", 0


def _confirmed(mentions: Sequence[Mention]) -> list[Mention]:
    """Keep the mentions that are sure, and those whose code or series another mention confirms."""
    series: dict[str, set[str]] = {}
    for mention in mentions:
        series.setdefault(_letters(mention.code), set()).add(mention.code)
    sure = {mention.code for mention in mentions if mention.sure}
    return [m for m in mentions if m.code in sure or len(series[_letters(m.code)]) > 1]


def _without_title(mentions: list[Mention], sections: Sequence[Section]) -> list[Mention]:
    """Drop the letters in the document's title, ``# Drugs (DRG)``, where other codes begin with them: DRG1."""
    top = min((section.level for section in sections if section.level), default=0)
    titles = [section for section in sections if section.level == top]
    if len(titles) != 1:
        return mentions
    own = {m.code for m in mentions if m.line == titles[0].line and m.code.isalpha()}
    series = {_letters(m.code) for m in mentions if m.code not in own}
    return [m for m in mentions if m.code not in own or m.code not in series]


def _letters(code: str) -> str:
    match = _SERIES.match(code)
    return match[0] if match else code


def _rules(sections: Sequence[Section]) -> dict[str, int]:
    rules: dict[str, int] = {}
    for rule, line in defined_rules(sections):
        rules.setdefault(rule, line)
    return rules
