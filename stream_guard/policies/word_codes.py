"""Finds codes in words and letters in headings: ``(CRH - Harassment)``, ``(DRUGS)``, ``A. Threats``. Pure.

Such a word may also be an acronym. It is a code if the heading, the other headings or the text confirm it.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.policies.label_words import label_stance
from stream_guard.policies.labels import output_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.labels import LabelPair
    from stream_guard.policies.text import Section

__all__ = [
    "EXAMPLES",
    "WordCode",
    "asks_letter",
    "candidates",
    "is_exempt",
    "is_no_code",
    "is_structural",
    "is_word_code",
    "lists_conditions",
    "read_word_codes",
]

EXAMPLES: Final = re.compile(
    r"example|edge[- ]case|beispiel|exemple|ejemplo|esempi|例|пример", re.IGNORECASE
)
_STRUCTURAL: Final = re.compile(
    r"instruct|definition|glossar|\bterms\b|\bscope\b|\bgoals?\b|purpose|objective|overview|introduc|background|"
    r"\boutput|\bformat|response|answer|label|ambigu|escalat|precedence|priorit|\bnotes?\b|note:|guidance|guideline|"
    r"interpret|example|edge[- ]case|\bpolicy\b|criteria|\binput|content to|appendix|reference|version|changelog|"
    r"how to|procedure|decision|context|taxonomy|categories|\brules\b|exception|exclu|includ|requirement|"
    r"encouragement|allowed|exempt|tie[- ]?break|general|principle|reminder|summary|severity|language|conflict|"
    r"\btasks?\b|\bremarks?\b|\bfaq\b|disclaimer|audience|"
    r"anweisung|aufgabe|einleitung|begriff|beispiel|ziel|zweck|ausgabe|antwort|ausnahme|hinweis|einführung|vorrang|zweifel|format|"
    r"règle|objectif|exemple|réponse|remarque|objetivo|ejemplo|respuesta|definici|nota|"
    r"定義|例|出力|目的|备注|定义|输出|определен|пример|ответ|цель",
    re.IGNORECASE,
)
_CONDITIONS: Final = re.compile(
    r"\b(?:includ|inclus|exclu|except|exempt|require|encourag)\w*|ausnahme|exclu|excepci",
    re.IGNORECASE,
)
_EXEMPT_WORDS: Final = frozenset(
    [
        "exclusion",
        "exclusions",
        "exception",
        "exceptions",
        "exemption",
        "exempt",
        "excludes",
        "exclude",
        "encouragement",
        "requirement",
        "requirements",
        "required",
        "includes",
        "include",
        "inclusion",
        "inclusions",
        "note",
        "notes",
        "example",
        "examples",
        "definition",
        "threshold",
        "context",
        "condition",
        "conditions",
        "scope",
        "intent",
        "severity",
        "action",
        "enforcement",
        "rationale",
        "reason",
        "guidance",
        "tip",
        "important",
        "clarification",
        "depiction",
        "request",
        "depictions",
        "requests",
        "input",
        "output",
        "content",
        "ausnahme",
        "ausnahmen",
        "hinweis",
        "beispiel",
        "exclu",
        "exception",
        "excepción",
        "nota",
    ]
)
_NOT_CODES: Final = frozenset(
    [
        "FAQ",
        "JSON",
        "YAML",
        "API",
        "URL",
        "NOTE",
        "NOTES",
        "TODO",
        "TBD",
        "NEW",
        "OLD",
        "BETA",
        "DRAFT",
        "IMPORTANT",
        "REQUIRED",
        "OPTIONAL",
        "GOAL",
        "GOALS",
        "SCOPE",
        "OUTPUT",
        "FORMAT",
        "INPUT",
        "EXAMPLE",
        "EXAMPLES",
        "DEFINITION",
        "DEFINITIONS",
        "INSTRUCTION",
        "INSTRUCTIONS",
        "TERMS",
        "EU",
        "US",
        "UK",
        "USA",
        "DSA",
        "GDPR",
        "UGC",
        "AI",
        "LLM",
        "ID",
        "IDS",
        "CONTENT",
        "POLICY",
        "RULES",
        "LABEL",
        "LABELS",
        "CATEGORY",
        "CATEGORIES",
        "SUMMARY",
        "EXCEPTION",
        "EXCEPTIONS",
        "ESCALATE",
        "ESCALATION",
        "GUIDANCE",
        "I",
        "EDSA",
        "VIOLATIONS",
        "NON",
        "PURPOSE",
        "OVERVIEW",
        "CRITERIA",
        "STEP",
        "PART",
        "SECTION",
        "APPENDIX",
        "INCLUDES",
        "EXCLUDES",
    ]
)
_ALSO_TOPICS: Final = frozenset({"spam", "toxic", "harmful", "ham"})
_DASH: Final = r"[-\u2013\u2014:]"
_CODE: Final = r"([A-Z][A-Z0-9]{1,11}(?:[_/-][A-Z0-9]{1,11}){0,3})"
_BRACKET_TITLE: Final = re.compile(rf"[(\[]\s*{_CODE}\s*{_DASH}\s+([^()\[\]]{{1,120}})[)\]]")
_BRACKET: Final = re.compile(rf"[(\[`]\s*{_CODE}\s*[)\]`]")
_LABELS: Final = re.compile(
    r"\blabels?\b|categor|taxonom|\bcodes\b|kategori|catégor", re.IGNORECASE
)
_LEAD: Final = re.compile(
    r"^\W{0,8}([A-Z][A-Z0-9]{0,11}(?:_[A-Z0-9]{1,11}){0,3})[`*_]{0,3}(?::\s+|\s+[-\u2013\u2014|]\s+|\s*\()(.{1,200})$"
)
_LETTER: Final = re.compile(
    r"^\W{0,4}(?:(?:section|category|part|class|abschnitt|kategorie)\s+)?([A-Z])\s*(?:[.):]|[-\u2013\u2014])\s+(.{1,200})$",
    re.IGNORECASE,
)
_LETTER_ANSWER: Final = re.compile(
    r"\bletters?\b|\bbuchstaben?\b|\blettre\b|\bletra\b", re.IGNORECASE
)
_CATEGORY_LETTER: Final = re.compile(r"^\W{0,4}(?:category|class|kategorie)\s", re.IGNORECASE)
_NAMED: Final = re.compile(
    r"^\W{0,4}(?:category|label|code|class|kategorie|catégorie|categoría)\s*[:\uff1a]\s*[`*\"']{0,3}([A-Za-z][\w/-]{1,39})[`*\"']{0,3}\s*$",
    re.IGNORECASE,
)
_SAME_FORM_MIN: Final = 2


class WordCode(NamedTuple):
    """A code in a heading: the form it is written in, and whether the text confirms it."""

    code: str
    title: str
    form: str
    confirmed: bool


def is_structural(title: str) -> bool:
    """Return whether a heading is about the policy itself, such as definitions, output or examples."""
    return _STRUCTURAL.search(title) is not None


def is_exempt(word: str) -> bool:
    """Return whether a word names a condition, and no category: ``Exclusion``, ``Note``."""
    return word.casefold() in _EXEMPT_WORDS


def lists_conditions(title: str) -> bool:
    """Return whether a heading introduces what is included in or excluded from a category."""
    return _CONDITIONS.search(title) is not None


def is_word_code(term: str, *, marked: bool) -> bool:
    """Return whether a word in a list of codes may be a code: capitals, or a marked word that exempts nothing."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(?:[_/-][A-Za-z0-9]+)*", term) is None:
        return False
    if term.casefold() in _EXEMPT_WORDS or term in _NOT_CODES:
        return False
    return marked or term.isupper()


def asks_letter(sections: Sequence[Section]) -> bool:
    """Return whether the text asks for a letter."""
    return any(_LETTER_ANSWER.search(line.text) for section in sections for line in section.lines)


def is_no_code(word: str) -> bool:
    """Return whether a word in capitals is about the policy itself: ``JSON``, ``NOTE``."""
    return word in _NOT_CODES and word != "LABEL"


def read_word_codes(sections: Sequence[Section], pair: LabelPair) -> dict[int, WordCode]:
    """Return the confirmed codes of headings, by the index of the section."""
    return {i: code for i, code in candidates(sections, pair).items() if code.confirmed}


def candidates(sections: Sequence[Section], pair: LabelPair) -> dict[int, WordCode]:
    """Return all possible codes of headings, by the index of the section."""
    found: dict[int, WordCode] = {}
    for index, section in enumerate(sections):
        if section.level and not any(EXAMPLES.search(t) for t in (section.title, *section.parents)):
            code = _candidate(section.title, pair)
            if code is not None:
                found[index] = code
    forms: dict[str, set[str]] = {}
    for code in found.values():
        forms.setdefault(code.form, set()).add(code.code)
    letters = asks_letter(sections) or any(
        code.form == "letter" and _CATEGORY_LETTER.match(sections[i].title)
        for i, code in found.items()
    )
    counts = Counter(word for section in sections for word in _words(section))
    return {
        index: code._replace(
            confirmed=code.confirmed
            or _is_confirmed(code, sections[index], counts, len(forms[code.form]), letters=letters)
        )
        for index, code in found.items()
    }


def _is_confirmed(
    code: WordCode, section: Section, counts: Counter[str], same_form: int, *, letters: bool
) -> bool:
    has_output = next(iter(output_labels(section.lines)), None) is not None
    if section.title.lstrip("*_ ").startswith("(") and any(map(_LABELS.search, section.parents)):
        return True  # "Definition of labels" over "(TX) Toxic content"
    if code.form == "letter":
        # Letters also number the parts of a document, so the answer must be a letter.
        return same_form >= _SAME_FORM_MIN and (has_output or counts[code.code] > 0 or letters)
    return has_output or same_form >= _SAME_FORM_MIN or counts[code.code] > 0


_ANSWER: Final = re.compile(
    r"(?:(?:->|=>|\u2192)\s{0,2}|`|\"|\b(?:label|output|answer|category|return|class|as|section)\W{1,4})([A-Z][A-Z0-9_]{0,39})(?![\w])"
    r"|(?<![\w.])([A-Z][A-Z0-9]{0,11})\.(?:[a-z]|\d{1,3})(?![\w.])"
)


def _words(section: Section) -> list[str]:
    """Return the words of a section's lines that are written as answers or as the prefix of a rule."""
    return [match[1] or match[2] for line in section.lines for match in _ANSWER.finditer(line.text)]


def _candidate(title: str, pair: LabelPair) -> WordCode | None:
    for read in (_bracket_title, _named, _letter, _lead, _bracket_word):
        found = read(title)
        if found is not None and (found.form == "letter" or _may_be_code(found.code, pair)):
            return found
    return None


def _bracket_title(title: str) -> WordCode | None:
    match = _BRACKET_TITLE.search(title)
    return match and WordCode(match[1], match[2].strip("`*_ "), "bracket", confirmed=True)


def _named(title: str) -> WordCode | None:
    match = _NAMED.match(title)
    return match and WordCode(match[1], match[1], "named", confirmed=True)


def _letter(title: str) -> WordCode | None:
    match = _LETTER.match(title)
    if match is None or not match[1].isupper() or is_structural(match[2]):
        return None
    return WordCode(match[1], match[2].strip("`*_ "), "letter", confirmed=False)


def _lead(title: str) -> WordCode | None:
    match = _LEAD.match(title)
    if match is None:
        return None
    # "S (Sexual) - VIOLATES": the title stands in the brackets.
    name = match[2].partition(")")[0] if "(" not in match[2] else match[2]
    return WordCode(match[1], name.strip("`*_() "), "lead", confirmed=False)


def _bracket_word(title: str) -> WordCode | None:
    match = _BRACKET.search(title)
    if match is None:
        return None
    rest = (title[: match.start()] + title[match.end() :]).strip("`*_ -\u2013\u2014:")
    return WordCode(match[1], rest or match[1], "bracket word", confirmed=False)


def _may_be_code(word: str, pair: LabelPair) -> bool:
    if word in _NOT_CODES or word in pair.words:
        return False
    return label_stance(word) is None or word.casefold() in _ALSO_TOPICS
