"""What people decided is read from the review database: the latest decision, and no post that is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.offline.audit.backtest import Outcome, Report
from stream_guard.offline.improve.rulings import rulings_of_review
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.queue import ReviewQueue
from stream_guard.offline.review.store import Store
from stream_guard.records.verdict_changes import decided_event
from tests.unit.offline.review.topics import KAFKA, NOW_MS, Topics, apply, decision_about
from tests.verdicts import FakeRecord, make_verdict

if TYPE_CHECKING:
    from pathlib import Path


def test_the_latest_decision_counts_and_a_deleted_post_is_left_out(tmp_path: Path) -> None:
    topics = Topics()
    for number in range(4):
        topics.item(number, decision="violates", category="S1")
    violates = {"decision": "violates", "category": "S2", "action": "remove"}
    topics.decide(decision_about(0))
    topics.decide(decision_about(1, "r-1", decided_at=1_700_000_001_000))
    topics.decide(decision_about(1, "r-2", decided_at=1_700_000_002_000, outcome=violates))
    topics.decide(decision_about(2))
    topics.delete("p2", 99)
    store = Store(str(tmp_path / "review.sqlite"))
    apply(Projection(store, KAFKA), topics.records)
    found = rulings_of_review(ReviewQueue(store), "spam")
    assert [(str(each.place), each.machine, each.person) for each in found] == [
        ("posts/0/0", Outcome("violates", "S1"), Outcome("safe", None)),
        ("posts/0/1", Outcome("violates", "S1"), Outcome("violates", "S2")),
    ]
    assert (found[0].text, found[0].reason, found[0].rule_ids) == ("t", "satire", ())
    assert all(each.overturned for each in found)
    assert rulings_of_review(ReviewQueue(store), "other") == []
    store.close()


def test_a_backtest_does_not_take_a_persons_verdict_for_the_old_policys() -> None:
    report = Report({"id": "spam"}, "spam", "posts", {0: (0, 9)})
    report.new[0, 0] = Outcome("safe", None)
    report.add_old(make_verdict(decision="violates"))
    decision = decision_about(0)
    assert decision.about is not None
    report.add_old(
        decided_event(
            decision,
            decision.about,
            FakeRecord(),
            stands=True,
            consumed_ms=NOW_MS,
            published_ms=NOW_MS,
        )
    )
    assert report.describe()["other_decision"] == 1
