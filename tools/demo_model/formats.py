"""The formats of answers that synthetic policies ask for, and the sentences that ask. Pure.

A policy used natively states its format itself, near its top and near its bottom. A policy may have a third label,
which sends a post to people.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from random import Random

Form = Literal["labels", "digits", "code", "json"]
Labels = tuple[str, str] | tuple[str, str, str]
"""The words for violating and safe, and for a person to decide, if there is one."""

_PAIRS: Final = (
    ("INVALID", "VALID"),
    ("VIOLATES", "SAFE"),
    ("UNSAFE", "SAFE"),
    ("BLOCK", "ALLOW"),
    ("REMOVE", "KEEP"),
    ("DISALLOWED", "ALLOWED"),
    ("violates", "safe"),
    ("reject", "approve"),
)
_PEOPLE: Final = ("ESCALATE", "ESCALATE", "ESCALATE", "REVIEW")
_DIGITS: Final = ("1", "0")
_NONE: Final = ("violates", "safe")
"""What the product calls the labels of a policy that asks for a code alone."""
LABEL_WORDS: Final = tuple(
    dict.fromkeys((*(word for pair in _PAIRS for word in pair), *_PEOPLE, *map(str.lower, _PEOPLE)))
)
JSON_PARTS: Final = ('{"violation": ', ', "policy_category": "', ', "policy_category": null}')
"""The fixed parts of an answer in the guide's JSON."""

_TOP: Final[dict[str, tuple[str, ...]]] = {
    "two": (
        "Classify each post as {b} or {g}.",
        "Answer {b} for a post that breaks a rule and {g} for any other.",
        "Label: {b} where a rule is broken, {g} where none is.",
        "Answer with one word: {b} or {g}.",
    ),
    "three": (
        "Classify each post as {b}, {g} or {e}.",
        "Answer {b}, {g} or {e}: the output of the section that fits, and {g} where none does.",
        "Answer with one word: {b}, {g} or {e}. Use {e} where a person has to decide.",
        "Output {b}, {g} or {e}, as each section says.",
    ),
    "digits": (
        "Answer {b} for a post that breaks a rule and {g} for any other.",
        "Return {b} for a violation and {g} for any other post.",
        "Classify each post as {b} or {g}: {b} where a rule is broken.",
    ),
    "code": (
        "Answer with the code of the category that fits, such as {c}. Answer {s} where no rule is broken.",
        "Return the category code alone: {c} for example, or {s} where no rule is broken.",
        "Output one category code, {s} for a post that breaks no rule.",
    ),
    "json": (
        "Answer with JSON: {jb} for a violation, {jg} for any other post.",
        "Return {jb} where a rule is broken, or {jg} where none is.",
    ),
}
_BOTTOM: Final[dict[str, tuple[str, ...]]] = {
    "two": (
        "Return only {b} or {g}.",
        "Answer with {b} or {g} and nothing else.",
        "Output one word: {b} or {g}.",
    ),
    # The codes of each label follow, in a list.
    "three": (
        "Return only {b}, {g} or {e}:",
        "Answer with {b}, {g} or {e} and nothing else:",
        "Output one word, {b}, {g} or {e}:",
    ),
    "digits": (
        "Return only {b} or {g}.",
        "Answer with {b} or {g} and nothing else.",
        "Output one digit: {b} or {g}.",
    ),
    "code": (
        "Return only the category code.",
        "Answer with one category code and nothing else.",
        "Output the category code and nothing else, such as {c} or {s}.",
    ),
    "json": (
        "Return only the JSON: {jb} or {jg}.",
        "Answer with one line of JSON and nothing else: {jb} or {jg}.",
    ),
}


def draw_form(random: Random, *, has_safe: bool, can_escalate: bool) -> tuple[Form, Labels]:
    """Draw a format, with its labels; a code alone needs a code for safe posts."""
    draw = random.random()
    if draw < 0.1:
        return "digits", _DIGITS
    if draw < 0.2:
        return "json", _DIGITS
    if draw < 0.35 and has_safe:
        return "code", _NONE
    pair = random.choice(_PAIRS)
    if can_escalate and random.random() < 0.9:
        word = random.choice(_PEOPLE)
        return "labels", (*pair, word if pair[0].isupper() else word.lower())
    return "labels", pair


def statement(
    random: Random, form: Form, labels: Labels, codes: tuple[str, str | None], *, bottom: bool
) -> str:
    """Return a sentence that asks for the format.

    Args:
        random: the source of the draws.
        form: the format.
        labels: the policy's labels.
        codes: a violating category's code, and that of the safe category.
        bottom: whether it is the reminder at the end.
    """
    kind = form if form != "labels" else "two" if len(labels) == 2 else "three"
    tick = random.choice(("`", "`", '"'))
    bad, good, *people = (f"{tick}{word}{tick}" for word in labels)
    text: str = random.choice((_BOTTOM if bottom else _TOP)[kind])
    code, safe = codes
    return text.format(
        b=bad,
        g=good,
        e=people[0] if people else "",
        c=f"`{code}`",
        s=f"`{safe}`",
        jb=guide_json(code),
        jg=guide_json(None),
    )


def guide_json(code: str | None) -> str:
    """Return the guide's JSON: a violation in a category, or none."""
    return json.dumps({"violation": int(code is not None), "policy_category": code})
