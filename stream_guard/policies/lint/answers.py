"""Findings about labels: missing, contradictory or overlapping. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.policies.choices import read_pairs
from stream_guard.policies.lint.examples import find_examples
from stream_guard.policies.lint.findings import CODES
from stream_guard.policies.text import read_sections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.policies.labels import LabelPair
    from stream_guard.policies.lint.findings import Finding
    from stream_guard.policies.policy import Policy

__all__ = ["check_answers"]

_LONG_CHARACTERS: Final = 3_000  # longer texts should state the answer twice


def check_answers(policy: Policy, source: str) -> Iterator[Finding]:
    """Yield findings about the labels."""
    pairs = read_pairs(read_sections(policy.text))
    stated = pairs or policy.taxonomy.where("violates_label", policy.taxonomy.violates_label)
    declared = any(
        found.file == "policy.yaml" and found.what == "violates_label"
        for found in policy.taxonomy.found
    )
    if not pairs and not declared:
        yield CODES["SG107"].at(source)
    yield from _contradictions(pairs, source)
    yield from _coded(policy, source, pairs)
    lines = {line for pair in pairs for line in (pair.violates_line, pair.safe_line)}
    if stated and len(lines) == 1 and len(policy.text) > _LONG_CHARACTERS:
        yield CODES["SG119"].at(source, lines.pop())
    yield from _undeclared(policy, source)
    yield from _further(policy, source)
    # Without any labels there is no format: SG107 says it.
    if isinstance(policy.answer_format, str) and (pairs or declared):
        yield CODES["SG123"].at(source, detail=policy.answer_format)
    yield from _overlaps(policy, source, pairs)


def _contradictions(pairs: tuple[LabelPair, ...], source: str) -> Iterator[Finding]:
    """Yield a finding for each pair that differs from the first."""
    seen = {_folded(pair) for pair in pairs[:1]}
    for pair in pairs[1:]:
        if _folded(pair) in seen:
            continue
        seen.add(_folded(pair))
        first = pairs[0]
        detail = (
            f"the answer is {pair.violates} or {pair.safe} here, "
            f"and {first.violates} or {first.safe} in line {first.violates_line}"
        )
        yield CODES["SG108"].at(source, pair.violates_line, detail=detail)


def _coded(policy: Policy, source: str, pairs: tuple[LabelPair, ...]) -> Iterator[Finding]:
    """Yield the first example whose answer is a category although the text asks for a label."""
    if not pairs or any(pair.how == "JSON" for pair in pairs):  # JSON contains both
        return
    for example in find_examples(read_sections(policy.text), policy.taxonomy):
        if example.arrow and example.code is not None:
            detail = (
                f"the answer is the category {example.code} here, "
                f"and {pairs[0].violates} or {pairs[0].safe} in line {pairs[0].violates_line}"
            )
            yield CODES["SG108"].at(source, example.line, detail=detail)
            return


def _further(policy: Policy, source: str) -> Iterator[Finding]:
    """Yield a finding for each label beyond violating and safe that the text states at one place alone."""
    for outcome in policy.taxonomy.outcomes[2:]:
        places = [
            found
            for found in policy.taxonomy.found
            if (found.what, found.value) == ("outcome", outcome.word)
        ]
        if any("assumed" in place.how for place in places):
            detail = (
                f"the text does not say whether {outcome.word} violates; it counts as violating"
            )
            yield CODES["SG125"].at(source, places[0].line, detail=detail)
        if len(places) == 1 and places[0].file == "policy.md":
            detail = f"the label {outcome.word} is stated in this line alone"
            yield CODES["SG124"].at(source, places[0].line, detail=detail)


def _undeclared(policy: Policy, source: str) -> Iterator[Finding]:
    file = source.removesuffix("policy.md") + "policy.yaml"
    for found in policy.taxonomy.found:
        declared = found.file == "policy.yaml" and found.what in {"violates_label", "safe_label"}
        if declared and found.value not in policy.text:
            detail = f"the declared label {found.value} does not occur in the text"
            yield CODES["SG121"].at(file, found.line, detail=detail)


def _folded(pair: LabelPair) -> tuple[str, str]:
    return pair.violates.casefold(), pair.safe.casefold()


def _overlaps(policy: Policy, source: str, pairs: tuple[LabelPair, ...]) -> Iterator[Finding]:
    taxonomy = policy.taxonomy
    violates, safe = taxonomy.violates_label.casefold(), taxonomy.safe_label.casefold()
    line = pairs[0].violates_line if pairs else 1
    shorter, longer = sorted((violates, safe), key=len)
    if longer.startswith(shorter) or longer.endswith(shorter):
        detail = f"the label {shorter!r} is part of the label {longer!r}"
        yield CODES["SG114"].at(source, line, detail=detail)
    for category in taxonomy.categories:
        if category.code.casefold() in {violates, safe}:
            detail = f"{category.code!r} is both a label and a category"
            yield CODES["SG114"].at(source, line, detail=detail)
