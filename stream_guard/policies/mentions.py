"""Finds the places of a policy's text that define a category: headings, list items, table rows, rule ids. Pure.

A code that the text only mentions does not define a category.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.policies.item_codes import bracket_items, codes_for_none, letter_items
from stream_guard.policies.label_words import escalates, is_label_word, label_stance
from stream_guard.policies.labels import ANSWER_WORDS, LabelPair, code_labels, output_labels
from stream_guard.policies.meanings import LEAD_PARTS, by_label, first_stance, meant, plain_title
from stream_guard.policies.text import EMOJI, Line, read_definitions, split_lines, stance
from stream_guard.policies.word_codes import (
    EXAMPLES,
    WordCode,
    is_word_code,
    lists_conditions,
    read_word_codes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.policies.text import Definition, Section

__all__ = ["Mention", "defined_rules", "find_mentions", "named_ids"]

# Look-arounds on Latin letters and digits, because there is no word boundary beside Chinese.
_RULE: Final = re.compile(
    r"(?<![A-Za-z0-9.])([A-Z]{1,8}\d{1,3})\.([a-z]{1,2}|\d{1,3})(?![A-Za-z0-9]|\.\d)"
)
_CODE: Final = re.compile(
    r"(?<![A-Za-z0-9.-])([A-Z]{1,8}\d{1,3}|[A-Z]{2,8}\.\d{1,3})(?![A-Za-z0-9]|\.[a-z0-9]|-[A-Za-z0-9])"
)
_ITEM: Final = re.compile(
    rf"^\s*(?:[#>|*+-]+\s*|\d{{1,3}}[.)]\s+){{0,3}}{EMOJI}{{0,6}}[`*_\"'(\[]{{0,4}}"
)
_BEFORE_CODE: Final = re.compile(rf"^(?:{EMOJI}|[`*_(\"'\[])*$")
_LABEL_AFTER: Final = re.compile(r"^[`*_]*\s*[(\[]\W{0,3}([\w-]{1,40})\W{0,3}[)\]]")
_CODE_SECTION: Final = re.compile(
    r"categor|taxonom|\bcodes?\b|\blabels?\b|kategori|catégor|categorí|カテゴリ|类别|分类|категор",
    re.IGNORECASE,
)
_OWN_LABEL: Final = re.compile(
    r"[(\[]\s*(?:label|code|category)\b[^()\[\]]{0,60}[)\]]", re.IGNORECASE
)
_CODE_COLUMN: Final = re.compile(
    r"^\W*(?:codes?|labels?|categor\w*|class|tag|id|kategorie|catégorie|categoría|код|コード|代码)\W*$",
    re.IGNORECASE,
)
_TITLE_END: Final = re.compile(r"[)\]]\W*$")
_SEPARATOR: Final = re.compile(r"^[`*_\"'\s]*[-\u2013\u2014:.|]?\s*[`*_]*\s*")


class Mention(NamedTuple):
    """A place that defines a category.

    Attributes:
        code, title: of the category.
        line: from 1.
        how: the kind of place.
        sure: false if the code counts only together with another code of the same letters: H1 and H2.
        violates: the stance of the place; None where it has none.
        sign: the origin of the stance.
        sign_line: its line, from 1.
        needs_review: the place sends the category to people.
        label: the label that the place gives to the category; None where it gives none, or several.
    """

    code: str
    title: str
    line: int
    how: str
    sure: bool
    violates: bool | None
    sign: str
    sign_line: int
    needs_review: bool = False
    label: str | None = None


def defined_rules(sections: Sequence[Section]) -> Iterator[tuple[str, int]]:
    """Yield the rule ids at the start of a heading, a line, an item or a table row, with the line."""
    for section in sections:
        if match := _RULE.match(section.title.lstrip("`*_(\"'[")):
            yield match[0], section.line
        for line in section.lines:
            if line.in_code:
                continue
            start = _ITEM.match(line.text)
            if match := _RULE.match(line.text, start.end() if start else 0):
                yield match[0], line.number


def named_ids(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield everything that looks like a category or a rule id, with line and column."""
    for number, line in enumerate(split_lines(text), 1):
        for pattern in (_RULE, _CODE):
            for match in pattern.finditer(line):
                yield match[0], number, match.start() + 1


def find_mentions(
    sections: Sequence[Section], rules: dict[str, int], pair: LabelPair
) -> Iterator[Mention]:
    """Yield every place that may define a category, in the order of the text; rule ids come last."""
    words = read_word_codes(sections, pair)
    coded = frozenset(sections[index].title for index in words)
    for index, section in enumerate(sections):
        yield from _of_heading(sections, index, pair, words.get(index))
        yield from _of_definitions(section, pair, coded)
        for line in section.lines:
            if not line.in_code and not EXAMPLES.search(section.title):
                yield from _of_labelled_codes(line, pair)
    yield from _of_items(sections)
    yield from _of_rules(sections, rules)


def _of_items(sections: Sequence[Section]) -> Iterator[Mention]:
    """Yield the categories of items with letters or codes in brackets, and the safe one for all other posts."""
    for item in (*letter_items(sections), *bracket_items(sections)):
        section = sections[item.section]
        title = LEAD_PARTS.split(item.meaning)[0]
        violates, sign, line = meant(item.meaning), "meaning", item.line
        if violates is None:
            violates, sign, line = by_label(item.meaning, section, item.line)
        review = escalates(item.meaning)
        how = "code of an item"
        yield Mention(
            item.code,
            plain_title(title),
            item.line,
            how,
            sure=True,
            violates=violates,
            sign=sign,
            sign_line=line,
            needs_review=review,
        )
    for item in codes_for_none(sections):
        how, sign = "asked for where none applies", "for posts in no category"
        yield Mention(
            item.code,
            "None applies",
            item.line,
            how,
            sure=True,
            violates=False,
            sign=sign,
            sign_line=item.line,
        )


def _of_rules(sections: Sequence[Section], rules: dict[str, int]) -> Iterator[Mention]:
    """Yield the category of each rule id, for texts that define categories nowhere else."""
    seen: set[str] = set()
    starts = [section.line for section in sections]
    for rule, line in rules.items():
        code = rule.partition(".")[0]
        if code in seen:
            continue
        seen.add(code)
        section = sections[bisect_right(starts, line) - 1]
        yield Mention(
            code,
            section.title,
            line,
            how="prefix of a rule id",
            sure=True,
            violates=stance(section.title),
            sign="enclosing heading",
            sign_line=section.line,
        )


def _of_heading(
    sections: Sequence[Section], index: int, pair: LabelPair, word: WordCode | None
) -> Iterator[Mention]:
    """Yield the category that a heading defines, with the label of the section's output line."""
    section = sections[index]
    if any(EXAMPLES.search(title) for title in (section.title, *section.parents)):
        return
    sure = True
    if match := _CODE.search(section.title):
        before, after = section.title[: match.start()], section.title[match.end() :]
        alone = _BEFORE_CODE.match(before) is not None
        labelled = _LABEL_AFTER.match(after)
        sure = before.rstrip("`*_\"' ").endswith(("(", "[", "-", "\u2013", "\u2014", ":")) or (
            alone
            and (
                not after.strip("`*_)\"'] ")
                or after.lstrip("`*_ ")[:1] in set("-\u2013\u2014:.|")
                or labelled is not None
            )
        )
        if not sure and not alone:
            return
        if labelled is not None:
            after = after[labelled.end() :]
        title = _TITLE_END.sub("", _SEPARATOR.sub("", after, count=1)).strip("`*_ ")
        title = title or before.strip("`*_([-\u2013\u2014: ")
        code = match[1]
        given = labelled[1] if labelled is not None and is_label_word(labelled[1]) else None
        own = pair.leaning(given) if given is not None else None
    elif word is not None:
        code, title, own, given = word.code, word.title, None, None
    else:
        return
    violates, sign, line = stance(section.title), "heading", section.line
    labels = _labels_under(sections, index, pair)
    known = [label for label in labels if label.violates is not None]
    if len({label.violates for label in known}) == 1:
        violates, line, sign = known[0].violates, known[0].line, "output line"
    elif own is not None:
        violates, sign = own, "output line"
    elif violates is None:
        violates, sign = first_stance(section.parents), "enclosing heading"
    review = escalates(section.title) or any(label.needs_review for label in labels)
    words: set[str | None] = {label.word for label in labels} or {given}
    label = words.pop() if len(words) == 1 else None
    yield Mention(code, title, section.line, "heading", sure, violates, sign, line, review, label)


class _Label(NamedTuple):
    """The label of an output line: its word, stance and line, and whether it sends the item to people."""

    word: str
    violates: bool | None
    line: int
    needs_review: bool


def _labels_under(sections: Sequence[Section], index: int, pair: LabelPair) -> list[_Label]:
    """Return the output lines under a heading and its sub-headings."""
    found: list[_Label] = []
    level = sections[index].level
    for section in sections[index:]:
        if section is not sections[index] and section.level <= level:
            break
        for word, rest, line in output_labels(section.lines):
            leaning = pair.leaning(word)
            found.append(_Label(word, leaning, line, escalates(f"{word} {rest}")))
    return found


def _of_labelled_codes(line: Line, pair: LabelPair) -> Iterator[Mention]:
    """Yield each ``FR2 (INVALID) - title`` at the start of a line, and all of them on such a line."""
    start = _ITEM.match(line.text)
    first = _CODE.match(line.text, start.end() if start else 0)
    if first is None:
        return
    found = list(code_labels(line))
    if not found or found[0].start != first.start():
        return
    ends = [*(each.start for each in found[1:]), len(line.text)]
    for each, end in zip(found, ends, strict=True):
        rest = line.text[each.end : end]
        leaning = pair.leaning(each.word)
        yield Mention(
            each.code,
            _SEPARATOR.sub("", rest, count=1).strip("`*_ .;,|"),
            line.number,
            "code with its label",
            sure=True,
            violates=leaning,
            sign="output line",
            sign_line=line.number,
            needs_review=escalates(rest) or escalates(each.word),
            label=each.word,
        )


def _of_definitions(section: Section, pair: LabelPair, coded: frozenset[str]) -> Iterator[Mention]:
    """Yield the categories that list items and table rows of a section define.

    ``coded`` are the titles of headings that have a code in words.
    """
    about_codes = any(map(_is_about_codes, (section.title, *section.parents)))
    about_answers = about_codes or ANSWER_WORDS.search(section.title) is not None
    items = [_by_code_column(item) for item in read_definitions(section.lines)]
    top = min((item.indent for item in items if not item.header), default=0)
    for item in items:
        if item.term in pair.words:
            continue
        series = _CODE.fullmatch(item.term)
        code_column = bool(item.header) and _CODE_COLUMN.match(item.header[0]) is not None
        listed = (about_codes and not item.header and item.indent <= top) or code_column
        if series is None and not (listed and _is_listed_word(item, section, coded)):
            continue
        if series is None and item.meaning.casefold().startswith(
            ("meaning", "definition", "description")
        ):
            continue  # the header of a table without a rule below it
        sure = about_answers or code_column or (item.marked and series is not None)
        yield _definition(section, item, pair, sure=sure)


def _is_about_codes(title: str) -> bool:
    """Return whether a heading introduces codes; ``TOXIC CONTENT (Label: 1)`` only has a label."""
    return _CODE_SECTION.search(_OWN_LABEL.sub("", title)) is not None


def _by_code_column(item: Definition) -> Definition:
    """Return a row with the cell of its code column first."""
    columns = [i for i, name in enumerate(item.header) if _CODE_COLUMN.match(name)]
    cells = [item.term, *item.meaning.split(" | ")]
    if not columns or columns[0] == 0 or columns[0] >= len(cells):
        return item
    if _CODE.fullmatch(item.term) or label_stance(cells[columns[0]].strip("`*_ ")) is not None:
        return item  # a code comes first, or the column holds labels
    term = cells.pop(columns[0]).strip("`*_ ")
    names = list(item.header)
    names.insert(0, names.pop(columns[0]))
    return replace(item, term=term, meaning=" | ".join(cells), header=tuple(names))


def _is_listed_word(item: Definition, section: Section, coded: frozenset[str]) -> bool:
    """Return whether the word of an item in a list of codes is a code."""
    upper_table = bool(item.header) and item.term.isupper()
    code_column = bool(item.header) and _CODE_COLUMN.match(item.header[0]) is not None
    if label_stance(item.term) is not None and not upper_table:
        return False
    if not is_word_code(item.term, marked=item.marked):
        return False
    # Items below a category, and lists of what it includes, are its conditions.
    titles = (section.title, *section.parents)
    if code_column:
        return True
    if not _is_about_codes(section.title) and item.term[:1].isupper() and item.term[1:].islower():
        return False  # "Slurs" below "Harassment" below "Categories"
    return not any(
        title in coded or lists_conditions(title) or EXAMPLES.search(title) or _CODE.search(title)
        for title in titles
    )


def _definition(section: Section, item: Definition, pair: LabelPair, *, sure: bool) -> Mention:
    title, violates, sign = item.meaning.split(" | ")[0], meant(item.meaning), "meaning"
    column = _verdict_column(item, pair)
    label = None
    if column is not None:
        label, violates, sign = column, pair.leaning(column), "verdict column"
    line = item.line
    if column is None and violates is None:
        violates, sign, line = by_label(item.meaning, section, line)
    return Mention(
        item.term,
        plain_title(title),
        item.line,
        "definition",
        sure,
        violates,
        sign,
        line,
        escalates(item.meaning),
        label,
    )


def _verdict_column(item: Definition, pair: LabelPair) -> str | None:
    """Return the label that a cell of a table row holds alone, or None."""
    cells = item.meaning.split(" | ")
    if not item.header and len(cells) == 1 and not item.meaning.strip("`*_ ").isupper():
        return None
    for cell in reversed(cells):
        word = cell.strip("`*_ ").partition(" ")[0]
        if cell.strip("`*_ ") in pair.words:
            return cell.strip("`*_ ")
        if (word.isupper() or word == cell.strip("`*_ ")) and label_stance(word) is not None:
            return word
    return None
