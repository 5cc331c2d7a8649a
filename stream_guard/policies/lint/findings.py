"""The codes of the linter, each with severity, summary and remedy. Pure.

A code never changes its meaning. A retired code is never used again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CODES", "Code", "Finding", "Severity", "unreadable"]

Severity = Literal["error", "warning", "note"]


@dataclass(slots=True, frozen=True)
class Finding:
    """A finding at one place.

    Attributes:
        code: stable, such as ``SG101``.
        severity: ``error`` prevents the policy from going live.
        message: the problem.
        remedy: the solution.
        file: in the caller's naming.
        line, column: from 1; both are 1 for the whole file.
    """

    code: str
    severity: Severity
    message: str
    remedy: str
    file: str
    line: int = 1
    column: int = 1


@dataclass(slots=True, frozen=True)
class Code:
    """One code of the linter."""

    code: str
    severity: Severity
    summary: str
    remedy: str

    def at(self, file: str, line: int = 1, column: int = 1, *, detail: str = "") -> Finding:
        """Return a finding of this code at a place; ``detail`` replaces the summary."""
        message = detail or self.summary
        return Finding(self.code, self.severity, message, self.remedy, file, line, column)


_ALL: Final = (
    Code(
        "SG100", "error", "the policy or the routes cannot be read",
        "Correct what the message names.",
    ),
    Code(
        "SG101", "error", "the text has over 10,000 tokens",
        "Shorten it, or split it into several policies; each gives a verdict of its own.",
    ),
    Code(
        "SG102", "note", "the text is shorter or longer than the 400 to 600 tokens that work best",
        "Add definitions and examples near the boundary, or remove text that decides no post.",
    ),
    Code(
        "SG103", "warning", "no definitions",
        "Add a section DEFINITIONS that explains the policy's own words.",
    ),
    Code(
        "SG104", "warning", "nothing says what violates",
        "Add a section VIOLATES with one rule in each item.",
    ),
    Code(
        "SG105", "warning", "nothing says what is allowed",
        "Add a section SAFE; list content that looks violating and is not.",
    ),
    Code(
        "SG106", "warning", "too few examples",
        "Give four to six near the boundary, violating and safe, each with its answer.",
    ),
    Code(
        "SG107", "warning", "the text does not state its labels; 'violates' and 'safe' are used",
        "State them, for example: Answer `VIOLATES` or `SAFE`; or declare labels in policy.yaml.",
    ),
    Code(
        "SG108", "warning", "the text states its answer in contradictory ways",
        "Keep one pair of labels throughout.",
    ),
    Code(
        "SG109", "error", "a rule id is defined twice",
        "Give one of the rules another id.",
    ),
    Code(
        "SG110", "warning", "a category or rule id is used but not defined",
        "Define it in a list item, a heading or a table, or correct its spelling.",
    ),
    Code(
        "SG111", "warning", "a hedging word",
        "Say exactly when the rule applies; the model cannot guess.",
    ),
    Code(
        "SG112", "error", "one example has two different answers",
        "Keep one answer, or change the example.",
    ),
    Code(
        "SG113", "error", "a control token of the model's prompt format",
        "Remove it; describe it in other words if necessary.",
    ),
    Code(
        "SG114", "warning", "labels that are easily confused",
        "Choose labels that are not part of one another, and not the code of a category.",
    ),
    Code(
        "SG115", "warning", "the effort is stated in the text, where it has no effect",
        "Remove it, and set effort in policy.yaml.",
    ),
    Code(
        "SG116", "warning", "a declared category does not occur in the text",
        "Describe it in the text, which is all that the model sees.",
    ),
    Code(
        "SG117", "warning", "the text does not say whether a category violates; it counts as violating",
        "Put it under VIOLATES or SAFE, or declare violates in policy.yaml.",
    ),
    Code(
        "SG118", "warning", "an invisible or direction-changing character",
        "Remove it: reviewers cannot see it, but the model can.",
    ),
    Code(
        "SG119", "note", "the answer is stated only once",
        "State it at the top and again at the bottom, which helps in long policies.",
    ),
    Code(
        "SG120", "note", "nothing says which rule wins where two apply",
        "Say which category takes precedence, and what to do when in doubt.",
    ),
    Code(
        "SG121", "warning", "a declared label does not occur in the text",
        "Use it in the text, or remove labels from policy.yaml.",
    ),
    Code(
        "SG122", "warning", "a section looks like a violating category and yields no code",
        "Give it a code, as in (H3 - Threats). If it is not a category, set categories_complete: true in policy.yaml.",
    ),
    Code(
        "SG123", "note", "the text states no answer format that can be read, so the policy cannot be used natively",
        "State the format at the top and at the bottom, if you want to set answer: native.",
    ),
    Code(
        "SG124", "note", "a further label is stated only once",
        "State it at the top and again at the bottom, and say when it applies.",
    ),
    Code(
        "SG125", "warning", "the text does not say whether a further label violates; it counts as violating",
        "Say in the text when it applies and whether it violates, or declare it under outcomes in policy.yaml.",
    ),
    Code(
        "SG201", "warning", "a policy that no route names",
        "Name it in routes.yaml, or begin its folder's name with '_' to set it aside.",
    ),
    Code(
        "SG202", "note", "no default route",
        "Add default: to routes.yaml, unless every topic that is read has a route.",
    ),
    Code(
        "SG203", "warning", "a lane for a severity that no policy declares",
        "Give a category this severity in policy.yaml, or remove it from the lane.",
    ),
    Code(
        "SG204", "warning", "a lane that names a tenant which its own conditions exclude",
        "Add the tenant to when.tenant of the lane, or remove it from tenants.",
    ),
    Code(
        "SG301", "error", "a pattern that RE2 rejects",
        "Correct it; see https://github.com/google/re2/wiki/Syntax.",
    ),
    Code(
        "SG302", "error", "a pattern that needs backtracking (lookaround, a back-reference, an atomic group)",
        "Write out the alternatives, use \\b, or list exceptions under except.",
    ),
    Code(
        "SG303", "error", "a pattern that matches every post",
        "Require at least one character: use + instead of *, and no empty alternative.",
    ),
    Code(
        "SG304", "error", "two rules have one id",
        "Give one of them another id, which verdicts and metrics name.",
    ),
    Code(
        "SG305", "error", "a rule's category does not fit the policy or the rule's outcome",
        "Use a category with this decision from: stream-guard policies show. A rule that escalates has none.",
    ),
    Code(
        "SG306", "error", "a rule names rule ids that its category does not have",
        "Use rule ids of the rule's category from: stream-guard policies show.",
    ),
    Code(
        "SG307", "warning", "an empty list of terms or hashes",
        "Add entries, or remove its name from rules.yaml.",
    ),
    Code(
        "SG308", "warning", "a term that never matches",
        "Remove it, or set raw: true.",
    ),
    Code(
        "SG309", "warning", "a duplicate term or hash",
        "Keep one; case, look-alikes and invisible characters do not matter.",
    ),
    Code(
        "SG310", "warning", "a term with opposite outcomes in two rules",
        "Remove it from one of them; the first rule wins.",
    ),
    Code(
        "SG311", "error", "a line of a hash list that is not a hash",
        "Write one SHA-256 of a normalised text (64 hex digits) on each line; # begins a comment.",
    ),
    Code(
        "SG312", "warning", "a pattern needs something that normalised text never contains",
        "Write its normalised form, or set raw: true on the rule.",
    ),
    Code(
        "SG313", "warning", "a short term that matches inside other words",
        "Set whole_words: true, or write a longer term.",
    ),
    Code(
        "SG314", "warning", "rules.yaml exists, but tiers in policy.yaml do not include rules",
        "Add rules to tiers, or remove rules.yaml.",
    ),
    Code(
        "SG401", "warning", "the calibration is for another version of the policy and is not used",
        "Fit it again on verdicts of this version: stream-guard policies calibrate.",
    ),
    Code(
        "SG402", "warning", "violates_above has no effect: the policy has several violating categories",
        "Set thresholds.category, or remove violates_above.",
    ),
    Code(
        "SG501", "error", "the policy leaves too little of the model's context for a post",
        "Shorten the policy, lower its reasoning_tokens_max, or raise engine.max_model_len.",
    ),
    Code(
        "SG502", "note", "the longest posts are judged in windows",
        "Raise engine.max_model_len, or shorten the policy, if they should be judged whole.",
    ),
)  # fmt: skip
CODES: Final = {code.code: code for code in _ALL}


def unreadable(message: str) -> list[Finding]:
    """Return a finding for each line of an error about policies that cannot be read, with the place that it names."""
    findings = []
    for line in message.splitlines():
        place = re.match(r"(?P<file>[^:\n]+):(?:(?P<line>\d+):)? (?P<rest>.*)", line)
        file, number, rest = place.group("file", "line", "rest") if place else (".", None, line)
        findings.append(CODES["SG100"].at(file, int(number or 1), detail=rest))
    return findings
