"""What the linter can say: every code with its severity, its summary and its remedy. Pure.

What it must never do: give a code another meaning. A code that is no longer used stays unused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CODES", "Code", "Finding", "Severity"]

Severity = Literal["error", "warning", "note"]


@dataclass(slots=True, frozen=True)
class Finding:
    """One thing to say of one place.

    Attributes:
        code: stable, as ``SG101``.
        severity: ``error`` keeps the policy from going live.
        message: what was found.
        remedy: what to do about it.
        file: as the caller names files.
        line, column: from 1; 1 and 1 where it is about the whole file.
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
    """One code: what it says in general."""

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
        "Add definitions and examples near the boundary, or take out what no post turns on.",
    ),
    Code(
        "SG103", "warning", "no definitions",
        "Add a section DEFINITIONS that says what the policy's own words mean.",
    ),
    Code(
        "SG104", "warning", "nothing says what violates",
        "Add a section VIOLATES with one rule an item.",
    ),
    Code(
        "SG105", "warning", "nothing says what is allowed",
        "Add a section SAFE, above all with what looks violating and is not.",
    ),
    Code(
        "SG106", "warning", "too few examples",
        "Give four to six near the boundary, with the answer to each, violating and safe alike.",
    ),
    Code(
        "SG107", "warning", "the text does not state its labels; 'violates' and 'safe' are used",
        "State it, for example: Answer `VIOLATES` or `SAFE`; or declare labels in policy.yaml.",
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
        "SG110", "warning", "a category or rule id is named that is nowhere defined",
        "Define it in a list item, a heading or a table, or correct its spelling.",
    ),
    Code(
        "SG111", "warning", "a hedging word",
        "Say when it holds and when it does not; the model cannot guess what you left open.",
    ),
    Code(
        "SG112", "error", "one example has two different answers",
        "Keep one of the two, or change the example's words.",
    ),
    Code(
        "SG113", "error", "a control token of the model's prompt format",
        "Take it out; write about it in other words where the policy must name it.",
    ),
    Code(
        "SG114", "warning", "labels that can be taken for one another",
        "Choose words of which none begins or ends with another, and that are no category.",
    ),
    Code(
        "SG115", "warning", "the effort is stated in the text, where it has no effect",
        "Take it out, and set effort in policy.yaml.",
    ),
    Code(
        "SG116", "warning", "a declared category does not occur in the text",
        "Describe it in the text: the model sees nothing else.",
    ),
    Code(
        "SG117", "warning", "the text does not say whether a category violates; it is taken to",
        "Put it under VIOLATES or SAFE, or declare violates in policy.yaml.",
    ),
    Code(
        "SG118", "warning", "an invisible or direction-changing character",
        "Take it out: people who review the policy cannot see it, and the model can.",
    ),
    Code(
        "SG119", "note", "the answer is stated only once",
        "State it at the top and again at the bottom; long policies are followed better so.",
    ),
    Code(
        "SG120", "note", "nothing says what wins where two rules apply",
        "Say which category takes precedence, and what to do when in doubt.",
    ),
    Code(
        "SG121", "warning", "a declared label does not occur in the text",
        "Have the text ask for it, or take labels out of policy.yaml.",
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
        "SG301", "error", "a pattern that RE2 does not take",
        "Correct it; https://github.com/google/re2/wiki/Syntax says what there is.",
    ),
    Code(
        "SG302", "error", "a pattern that needs backtracking (lookaround, a back-reference, an atomic group)",
        "Write the alternatives out, use \\b, or name what is to be passed over under except.",
    ),
    Code(
        "SG303", "error", "a pattern that matches every post",
        "Have it ask for at least one character that not every post has: + in place of *, no empty alternative.",
    ),
    Code(
        "SG304", "error", "two rules have one id",
        "Give one of them another id: verdicts and metrics name it.",
    ),
    Code(
        "SG305", "error", "a rule's category does not fit the policy or the rule's outcome",
        "Name a category that policies show lists with this decision; a rule that escalates has none.",
    ),
    Code(
        "SG306", "error", "a rule names rule ids that its category does not have",
        "Name rule ids that policies show lists, of the rule's own category.",
    ),
    Code(
        "SG307", "warning", "an empty list of terms or hashes",
        "Fill it, or take its name out of rules.yaml.",
    ),
    Code(
        "SG308", "warning", "a term that can never be found",
        "Take it out, or look for it with raw: true.",
    ),
    Code(
        "SG309", "warning", "a term or hash that is there twice",
        "Keep one of them; capitals, look-alikes and invisible characters make no difference.",
    ),
    Code(
        "SG310", "warning", "a term that two rules settle in opposite ways",
        "Take it out of one of them; the rule that stands first wins.",
    ),
    Code(
        "SG311", "error", "a line of a hash list that is no hash",
        "One SHA-256 of a normalised text a line, 64 hex digits; # begins a comment.",
    ),
    Code(
        "SG312", "warning", "a pattern asks for what normalised text never holds",
        "Write what is left of it there, or set raw: true on the rule.",
    ),
    Code(
        "SG313", "warning", "a short term that hits within other words",
        "Set whole_words: true, or write a longer term.",
    ),
    Code(
        "SG314", "warning", "there are rules, and policy.yaml's tiers leave them out",
        "Add rules to tiers, or remove rules.yaml.",
    ),
    Code(
        "SG401", "warning", "the calibration is for another version of the policy, and is not used",
        "Fit it again on verdicts of this version: stream-guard policies calibrate.",
    ),
    Code(
        "SG402", "warning", "violates_above settles nothing: the policy has several categories that violate",
        "Name one under thresholds.category, or take violates_above out.",
    ),
)  # fmt: skip
CODES: Final = {code.code: code for code in _ALL}
