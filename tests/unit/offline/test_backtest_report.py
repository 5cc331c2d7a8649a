"""A backtest names each record whose outcome differs: by decision, by category, or by the policy's own labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_guard.offline.audit.backtest import Outcome, Report
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from stream_guard.core.vocabulary import Decision


def verdict(offset: int, decision: Decision, *labels: str, category: str | None = None) -> Any:  # noqa: ANN401
    made = make_verdict(offset=offset, decision=decision, category=category)
    made["policy"]["labels"] = list(labels)
    return made


def test_other_labels_are_another_outcome() -> None:
    old = [
        verdict(0, "violates", "REMOVE", category="S1"),
        verdict(1, "violates", "REMOVE", category="S1"),
        verdict(2, "undetermined", "ESCALATE"),
        verdict(3, "undetermined"),
        verdict(4, "safe"),
    ]
    new = [
        verdict(0, "violates", "LIMIT", category="S1"),
        verdict(1, "violates", "REMOVE", category="S2"),
        verdict(2, "violates", "REMOVE", category="S1"),
        verdict(3, "undetermined", "ESCALATE"),
        verdict(4, "safe"),
    ]
    report = Report({"id": "new"}, "spam", "posts", {0: (0, 5)})
    report.new = {(0, number): Outcome.of(one) for number, one in enumerate(new)}
    for one in old:
        report.add_old(one)
    found = report.describe()
    counted = ("same", "other_decision", "other_category", "other_labels")
    assert [found[name] for name in counted] == [1, 1, 1, 2]
    assert found["examples"][0] == {
        "record": "posts/0/0",
        "old": "violates REMOVE S1",
        "new": "violates LIMIT S1",
    }
    assert {"old_labels": [], "new_labels": ["ESCALATE"]}.items() <= found["flips"][3].items()
