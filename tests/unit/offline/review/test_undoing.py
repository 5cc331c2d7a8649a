"""A decision that is taken back: what is written, who may, and that the item is open whatever was read first."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.errors import BrokerError, DatabaseError, NotLeasedError
from stream_guard.offline.review.deciding import Choice, decide
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.queue import Person, ReviewQueue
from stream_guard.offline.review.report import report
from stream_guard.offline.review.store import Store
from stream_guard.offline.review.undoing import last_decision, undo
from tests.unit.offline.review.topics import KAFKA, NOW_MS, Topics, apply, decision_about

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_guard.records.decision import Decision

ME, OTHER = Person("r-1"), Person("r-2")


class Desk:
    """A queue with one item, and everything that was written to the decisions topic."""

    def __init__(self, store: Store, *, reviews: int = 1) -> None:
        self.store, self.topics, self.queue = store, Topics(), ReviewQueue(store)
        self.projection = Projection(store, KAFKA)
        self.name = self.topics.item(0, decision="violates", reviews=reviews)
        apply(self.projection, self.topics.records)
        self.written: list[Decision] = []
        self.broken = False

    async def write(self, decision: Decision) -> None:
        if self.broken:
            raise BrokerError("no broker")
        self.written.append(decision)
        self.topics.decide(decision)

    async def decide(self, person: Person = ME, now_ms: int = NOW_MS) -> None:
        assert self.queue.claim(person, now_ms, item_id=self.name) is not None
        await decide(
            self.queue,
            self.projection,
            self.write,
            item_id=self.name,
            choice=Choice("safe"),
            person=person,
            now_ms=now_ms,
        )

    async def undo(self, person: Person = ME, now_ms: int = NOW_MS + 10_000) -> str:
        return await undo(
            self.store, self.projection, self.write, person=person, now_ms=now_ms, undo_ms=60_000
        )

    @property
    def state(self) -> str:
        found: str = self.queue.show(self.name, ME, NOW_MS)["state"]
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store = Store(str(tmp_path / "review.sqlite"))
    yield Desk(store)
    store.close()


async def test_it_is_a_record_and_the_item_is_open_for_the_same_person(desk: Desk) -> None:
    await desk.decide()
    assert desk.state == "decided"
    assert await desk.undo() == desk.name
    made, back = desk.written
    assert (back.kind, back.id, back.outcome) == ("retraction", f"undo-{made.id}", None)
    assert back.about == made.about
    assert back.decided_at > made.decided_at
    assert desk.state == "open"
    assert report(desk.queue)["quality"][0]["decided"] == 0
    assert desk.queue.claim(ME, NOW_MS + 11_000) is not None
    assert "undo" in [entry["what"] for entry in desk.queue.trail(item_id=desk.name)]


async def test_the_item_is_open_whatever_was_read_first(desk: Desk, tmp_path: Path) -> None:
    await desk.decide()
    await desk.undo()
    for decision in desk.written:
        desk.topics.supersede(decision)  # what the service makes of both
    store = Store(str(tmp_path / "another.sqlite"))
    dumps = set()
    for order in itertools.permutations(("review", KAFKA.decision_topic, KAFKA.verdict_topic)):
        store.forget()
        projection = Projection(store, KAFKA)
        for topic in order:
            apply(projection, [each for each in desk.topics.records if each.topic == topic])
        dumps.add(projection.dump())
        [item] = ReviewQueue(store).listed(limit=9)
        assert ReviewQueue(store).show(item["id"], ME, NOW_MS)["text"] == "t"
    assert len(dumps) == 1
    store.close()


async def test_the_next_decision_counts(desk: Desk) -> None:
    await desk.decide()
    await desk.undo()
    await desk.decide(now_ms=NOW_MS + 20_000)
    assert desk.state == "decided"
    assert len({each.id for each in desk.written}) == 3


async def test_only_the_own_last_decision_and_only_for_a_time(desk: Desk) -> None:
    with pytest.raises(NotLeasedError):
        await desk.undo()
    await desk.decide()
    with pytest.raises(NotLeasedError):
        await desk.undo(OTHER)
    with pytest.raises(NotLeasedError):
        await desk.undo(now_ms=NOW_MS + 60_001)
    desk.broken = True
    with pytest.raises(BrokerError):
        await desk.undo()
    assert desk.state == "decided"
    desk.broken = False
    await desk.undo()
    with pytest.raises(NotLeasedError):
        await desk.undo()


async def test_a_decision_after_which_somebody_else_decided_stays(desk: Desk) -> None:
    await desk.decide()
    desk.projection.note_decision(
        desk.topics.decide(decision_about(0, "r-2", decided_at=NOW_MS + 5))
    )
    assert last_decision(desk.store, ME, 0) is None


async def test_nobody_takes_back_what_another_decided(desk: Desk) -> None:
    await desk.decide()
    forged = decision_about(
        0, "r-2", id=f"undo-{desk.written[0].id}", kind="retraction", outcome=None,
        decided_at=NOW_MS + 5,
    )  # fmt: skip
    desk.projection.note_decision(desk.topics.decide(forged))
    assert desk.state == "decided"


async def test_a_blind_review_that_was_taken_back_needs_two_again(tmp_path: Path) -> None:
    desk = Desk(Store(str(tmp_path / "review.sqlite")), reviews=2)
    await desk.decide()
    await desk.undo()
    await desk.decide(OTHER, NOW_MS + 20_000)
    assert desk.state == "open"
    await desk.decide(now_ms=NOW_MS + 30_000)
    assert desk.state == "decided"


def test_an_item_is_left_to_a_lead_and_the_work_of_a_person_is_known(desk: Desk) -> None:
    lease = desk.queue.claim(ME, NOW_MS)
    assert lease is not None
    assert desk.queue.holding(ME, NOW_MS + 1) == lease
    assert desk.queue.holding(OTHER, NOW_MS + 1) is None
    assert desk.queue.holding(ME, lease.until) is None
    with pytest.raises(NotLeasedError):
        desk.queue.escalate(desk.name, OTHER, NOW_MS, None)
    desk.queue.escalate(desk.name, ME, NOW_MS + 5, "a threat?")
    assert desk.queue.holding(ME, NOW_MS + 6) is None
    assert desk.queue.escalated()[desk.name] == {
        "item_id": desk.name,
        "who": "r-1",
        "at": NOW_MS + 5,
        "reason": "a threat?",
    }
    assert [(at, what) for at, what, _ in desk.queue.work(ME, NOW_MS + 1)] == [
        (NOW_MS + 5, "escalate")
    ]
    assert [what for _, what, item in desk.queue.work(ME, 0) if item] == ["lease", "escalate"]


def test_a_claim_takes_the_first_that_fits(tmp_path: Path) -> None:
    desk = Desk(Store(str(tmp_path / "review.sqlite")))
    names = [desk.topics.item(n) for n in range(1, 250)]
    apply(desk.projection, desk.topics.records)
    last = max(names)
    found = desk.queue.claim(ME, NOW_MS, fits=lambda item: item["id"] == last)
    assert found is not None
    assert found.item_id == last
    assert desk.queue.claim(OTHER, NOW_MS, fits=lambda item: item["id"] == last) is None


def test_a_database_that_goes_away_is_named(tmp_path: Path) -> None:
    file = tmp_path / "review.sqlite"
    store = Store(str(file))
    store.close()
    file.unlink()
    file.mkdir()
    with pytest.raises(DatabaseError, match=r"review\.database: cannot be used: unable to open"):
        ReviewQueue(store).counts()
