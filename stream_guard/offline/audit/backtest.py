"""Compares the decisions of a new policy on past records with the published decisions. Pure.

A record that only one side judged never counts as unchanged.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.records.verdict_changes import HUMAN, SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXAMPLES_MAX: Final = 20


class Outcome(NamedTuple):
    """Decision and category of a verdict, and the policy's own labels that the decision does not tell."""

    decision: str
    category: str | None
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, verdict: Mapping[str, Any]) -> Outcome:
        """Return the outcome of a verdict."""
        policy = verdict["policy"]
        return cls(verdict["decision"], policy["category"], tuple(policy.get("labels") or ()))

    def __str__(self) -> str:
        return " ".join((self.decision, *self.labels, *([self.category] if self.category else [])))


Place = tuple[int, int]
"""Partition and offset."""


@dataclass(slots=True)
class Report:
    """The result of a backtest.

    Attributes:
        policy: id, version and sha256 of the new policy.
        against: id of the old policy.
        topic: the records' topic.
        spans: by partition, the first offset and the offset after the last one.
        new, old: outcomes by partition and offset.
        unreadable: number of records that could not be judged, by reason.
        resumed: number of records that an earlier run judged.
        left: number of records of the range that were not judged, because a limit was reached.
        old_versions: the old policy's version, by partition and offset.
    """

    policy: Mapping[str, str]
    against: str
    topic: str
    spans: Mapping[int, tuple[int, int]]
    new: dict[Place, Outcome] = field(default_factory=dict)
    old: dict[Place, Outcome] = field(default_factory=dict)
    unreadable: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    left: int = 0
    old_versions: dict[Place, str] = field(default_factory=dict)

    def add_old(self, verdict: Mapping[str, Any]) -> None:
        """Add a published verdict, if it is by the old policy and its record was judged again.

        What a person decided is ignored, and so are retractions and expiries: the old policy did not say them.
        """
        if verdict["provenance"]["tier"] in (HUMAN, SOURCE):
            return
        source = verdict["source"]
        place = source["partition"], source["offset"]
        if (
            source["topic"] == self.topic
            and place in self.new
            and verdict["policy"]["id"] == self.against
        ):
            self.old[place] = Outcome.of(verdict)
            self.old_versions[place] = verdict["policy"]["version"]

    def pairs(self) -> Iterator[tuple[Place, Outcome, Outcome]]:
        """Yield partition and offset, old outcome and new outcome of each record that has both."""
        for place, new in self.new.items():
            if place in self.old:
                yield place, self.old[place], new

    def describe(self) -> dict[str, Any]:
        """Return the report as plain data for JSON. It never contains a post's text."""
        flips: Counter[tuple[Outcome, Outcome]] = Counter()
        same = 0
        examples: list[dict[str, str]] = []
        for (partition, offset), old, new in self.pairs():
            if old == new:
                same += 1
                continue
            flips[old, new] += 1
            if len(examples) < EXAMPLES_MAX:
                record = f"{self.topic}/{partition}/{offset}"
                examples.append({"record": record, "old": str(old), "new": str(new)})
        decided = sum(n for (old, new), n in flips.items() if old.decision != new.decision)
        labelled = sum(n for (old, new), n in flips.items() if old[:2] == new[:2])
        return {
            "policy": dict(self.policy),
            "against": self.against,
            "against_versions": dict(Counter(self.old_versions.values())),
            "topic": self.topic,
            "offsets": {str(number): list(span) for number, span in sorted(self.spans.items())},
            "judged": len(self.new),
            "of_an_earlier_run": self.resumed,
            "unreadable": dict(self.unreadable),
            "left_by_limit": self.left,
            "compared": len(self.old),
            "without_old_verdict": len(self.new) - len(self.old),
            "same": same,
            "other_decision": decided,
            "other_category": flips.total() - decided - labelled,
            "other_labels": labelled,
            "decisions": {
                "old": dict(Counter(old.decision for _, old, _ in self.pairs())),
                "new": dict(Counter(new.decision for _, _, new in self.pairs())),
            },
            "flips": [
                {
                    "old_decision": old.decision,
                    "old_category": old.category,
                    "old_labels": list(old.labels),
                    "new_decision": new.decision,
                    "new_category": new.category,
                    "new_labels": list(new.labels),
                    "count": count,
                }
                for (old, new), count in flips.most_common()
            ],
            "examples": examples,
        }
