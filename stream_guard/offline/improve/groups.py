"""Groups overturned verdicts by what the model said, by the rules that it named, and by what people said. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.offline.audit.backtest import Outcome
    from stream_guard.offline.improve.rulings import Ruling

__all__ = ["Group", "group_overturned"]


class Group(NamedTuple):
    """Overturned verdicts that are wrong in the same way.

    Attributes:
        machine: what the verdicts said.
        rule_ids: the rules that they named.
        person: what people decided.
        rulings: the verdicts, by their records.
    """

    machine: Outcome
    rule_ids: tuple[str, ...]
    person: Outcome
    rulings: tuple[Ruling, ...]

    def describe(self) -> dict[str, Any]:
        """Return the group as plain data for JSON, without the posts' texts."""
        return {
            "machine": self.machine._asdict(),
            "rule_ids": list(self.rule_ids),
            "person": self.person._asdict(),
            "count": len(self.rulings),
            "verdicts": [
                {
                    "record": str(ruling.place),
                    "content": ruling.content["id"],
                    "version": ruling.version,
                    "reason": ruling.reason,
                }
                for ruling in self.rulings
            ],
        }


def group_overturned(rulings: Iterable[Ruling]) -> list[Group]:
    """Return the groups of the overturned verdicts, largest first."""
    found: dict[tuple[Outcome, tuple[str, ...], Outcome], list[Ruling]] = {}
    for ruling in rulings:
        if ruling.overturned:
            key = ruling.machine, ruling.rule_ids, ruling.person
            found.setdefault(key, []).append(ruling)
    groups = [Group(*key, tuple(held)) for key, held in found.items()]
    return sorted(groups, key=lambda group: (-len(group.rulings), str(group[:3])))
