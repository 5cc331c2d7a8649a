"""Joins published verdicts with human labels of the same posts, to fit a calibration. Pure.

All confidences of a set come from one policy version, one model and one method. Each post counts once.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from stream_guard.offline.calibrate.fit import FitError, Labelled
from stream_guard.policies.text import decode_utf8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.core.vocabulary import Decision
    from stream_guard.policies.policy import Policy

__all__ = [
    "JudgedBy",
    "LabelledSet",
    "join_labels",
    "label_decisions",
    "label_words",
    "read_labels",
]

_YES: Final = frozenset({"1", "true", "yes", "violates"})
_NO: Final = frozenset({"0", "false", "no", "safe"})


class JudgedBy(NamedTuple):
    """The model and the method that measured a confidence, as in verdicts; the method is uncalibrated."""

    model: str
    revision: str | None
    method: str


@dataclass(slots=True, frozen=True)
class LabelledSet:
    """Posts with a confidence and a label.

    Attributes:
        posts: each post once.
        judged_by: the model and the method that measured all confidences.
        ignored: number of verdicts that were left out, by reason.
    """

    posts: tuple[Labelled, ...]
    judged_by: JudgedBy
    ignored: Mapping[str, int]


def read_labels(content: bytes, policy: Policy, source: str) -> dict[str, bool]:
    """Read human labels from CSV with the columns ``id`` and ``label``; other columns are ignored.

    A label is one of the policy's label words, one of its categories, or violates / safe, 1 / 0, true / false,
    yes / no.

    Returns:
        Whether each post violates, by its id.

    Raises:
        FitError: a column is missing, a label is unknown, or a post has two different labels.
        PolicyError: not UTF-8.
    """
    reader = csv.DictReader(io.StringIO(decode_utf8(content, source), newline=""))
    if not {"id", "label"} <= set(reader.fieldnames or ()):
        found = ", ".join(reader.fieldnames or ()) or "none"
        message = f"{source}:1: the columns id and label are required; found: {found}"
        raise FitError(message)
    known = label_words(policy)
    labels: dict[str, bool] = {}
    for row in reader:
        post_id, word = (row["id"] or "").strip(), (row["label"] or "").strip()
        violates = known.get(word.casefold())
        if violates is None:
            message = f"{source}:{reader.line_num}: unknown label {word[:40]!r}; use one of: {', '.join(sorted(known))}"
            raise FitError(message)
        if labels.setdefault(post_id, violates) != violates:
            message = (
                f"{source}:{reader.line_num}: {post_id[:100]!r} has two different labels; keep one"
            )
            raise FitError(message)
    return labels


def label_decisions(policy: Policy) -> dict[str, Decision]:
    """Return every valid label word, case-folded, and its decision; ``undetermined`` for a label that asks people."""
    taxonomy = policy.taxonomy
    words: dict[str, Decision] = dict.fromkeys(_YES, "violates")
    words |= dict.fromkeys(_NO, "safe")
    words |= {c.code.casefold(): taxonomy.outcome_of(c).decision for c in taxonomy.categories}
    words |= {outcome.word.casefold(): outcome.decision for outcome in reversed(taxonomy.outcomes)}
    return words


def label_words(policy: Policy) -> dict[str, bool]:
    """Return every label word that decides, case-folded, and whether it means that a post violates."""
    decisions = label_decisions(policy)
    return {word: d == "violates" for word, d in decisions.items() if d != "undetermined"}


def join_labels(
    verdicts: bytes, labels: Mapping[str, bool], policy: Policy, source: str
) -> LabelledSet:
    """Join verdicts, one JSON object a line, with labels by the post's id (``content.id``).

    Verdicts of other policies and versions, without a confidence or without a label are ignored and counted.

    Raises:
        FitError: a line is not a verdict, the verdicts come from several models or methods, or none is left.
    """
    ignored: Counter[str] = Counter()
    judges: dict[JudgedBy, dict[str, Labelled]] = {}
    for number, line in enumerate(verdicts.splitlines(), 1):
        if not line.strip():
            continue
        try:
            verdict: dict[str, Any] = orjson.loads(line)
            judged, post_id = verdict["policy"], str(verdict["content"]["id"])
            version = (str(judged["id"]), str(judged["sha256"]))
            confidence, provenance = verdict["confidence"], verdict["provenance"]
            value = confidence.get("raw", confidence["value"])
            method = str(confidence["method"] or "").partition("+")[0]
            judge = JudgedBy(str(provenance["model"]), provenance["revision"], method)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            message = f"{source}:{number}: not a verdict ({type(error).__name__}); keep one verdict on each line"
            raise FitError(message) from error
        if version != (policy.id, policy.sha256):
            ignored["of another policy or version"] += 1
        elif value is None:
            ignored["without a confidence"] += 1
        elif method.startswith("classifier:"):
            ignored["decided by the classifier"] += 1
        elif post_id not in labels:
            ignored["without a label"] += 1
        elif post_id in judges.setdefault(judge, {}):
            ignored["of a post that was counted already"] += 1
        else:
            judges[judge][post_id] = Labelled(post_id, float(value), labels[post_id])
    if len(judges) != 1:
        described = "; ".join(f"{j.model} at {j.revision} by {j.method}" for j in judges)
        left_out = ", ".join(f"{count} {why}" for why, count in sorted(ignored.items())) or "none"
        message = (
            f"{source}: verdicts of several models or methods ({described}); keep those of one"
            if judges
            else f"{source}: no verdict of {policy.id} at {policy.version} with a confidence and a label "
            f"(ignored: {left_out})"
        )
        raise FitError(message)
    ((judge, posts),) = judges.items()
    return LabelledSet(tuple(posts.values()), judge, dict(ignored))
