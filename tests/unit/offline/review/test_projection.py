"""The projection says the same whatever the order of the topics, rebuilt or lived through; leases are exclusive."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.errors import NotLeasedError, SettingsError, UnknownItemError
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.queue import Person, ReviewQueue
from stream_guard.offline.review.store import Store
from stream_guard.records.avro_contract import VERDICT, contract_of
from stream_guard.records.avro_output import AvroOutput
from stream_guard.records.decoding.avro import AvroSchema
from stream_guard.records.review_item import review_item_id
from stream_guard.records.verdict_event import decode_verdict, encode_verdict
from stream_guard.testing import MemoryRecord
from tests.unit.offline.review.topics import KAFKA, NOW_MS, Topics, apply, decision_about
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "review.sqlite"))
    yield made
    made.close()


def history(seed: int) -> Topics:
    """A seeded history: items, some twice, decisions about some, deletions, malformed records; in two partitions each.

    Items and decisions of one id differ: which of them counts must not depend on the order of reading.
    """
    dice = random.Random(seed)  # noqa: S311 - a seeded history, no secret
    topics = Topics(dice)
    for offset in range(30):
        topics.item(offset, reviews=dice.choice((1, 1, 2)))
        if dice.random() < 0.2:
            topics.item(offset, published_ms=1_700_000_009_000)
        for reviewer in ("r-1", "r-2")[: dice.choice((0, 0, 1, 2))]:
            decision = decision_about(offset, reviewer, decided_at=NOW_MS + dice.randrange(3))
            topics.decide(decision)
            if dice.random() < 0.5:
                topics.supersede(decision)
            if dice.random() < 0.2:
                topics.decide(decision)
            if dice.random() < 0.3:
                again = NOW_MS + dice.randrange(3)
                topics.decide(decision_about(offset, reviewer, decided_at=again, reason="again"))
        if dice.random() < 0.5:
            topics.delete(f"p{offset}", 100 + offset)
        if dice.random() < 0.1:
            topics.write("review", b"{")
            topics.write(KAFKA.decision_topic, b"[]", b"x")
            topics.write(KAFKA.verdict_topic, encode_verdict(make_verdict(offset=offset)))
    return topics


def interleaved(topics: Topics, dice: random.Random) -> list[MemoryRecord]:
    """The records in another order of the partitions, of which some are read faster; each keeps its own order."""
    left = {
        place: [r for r in topics.records if (r.topic, r.partition) == place]
        for place in topics.ends
    }
    speed = {name: dice.random() for name in sorted(left)}
    mixed = []
    while left:
        names = sorted(left)
        (name,) = dice.choices(names, [speed[name] for name in names])
        mixed.append(left[name].pop(0))
        if not left[name]:
            del left[name]
    return mixed


@pytest.mark.parametrize("seed", range(6))
def test_rebuilt_from_the_topics_it_equals_the_one_that_lived_through_it(
    seed: int, store: Store
) -> None:
    topics, dice = history(seed), random.Random(seed)  # noqa: S311 - seeded, no secret
    lived = Projection(store, KAFKA)
    records = interleaved(topics, dice)
    while records:
        count = dice.randint(1, 20)
        batch, records = records[:count], records[count:]
        apply(lived, batch)
        if dice.random() < 0.2:
            apply(lived, batch)  # read again after a crash
    expected = lived.dump()
    assert expected.count(b'"review_items"') == 30
    store.forget()
    assert lived.positions() == {}
    apply(lived, interleaved(topics, dice))
    assert lived.dump() == expected


def states(store: Store, topics: Topics) -> dict[str, str]:
    projection = Projection(store, KAFKA)
    apply(projection, topics.records)
    queue = ReviewQueue(store)
    return {
        item["content"]["id"]: state
        for state in ("open", "decided", "withdrawn")
        for item in queue.listed(state=state, limit=100)
    }


def test_decisions_and_deletions_close_items(store: Store) -> None:
    topics = Topics()
    for offset in range(5):
        topics.item(offset, reviews=2 if offset in (2, 3) else 1)
    topics.decide(decision_about(1))
    topics.decide(decision_about(2))
    topics.decide(decision_about(2, id="again"))  # the same person twice is one person
    for reviewer in ("r-1", "r-2"):
        topics.decide(decision_about(3, reviewer))
    topics.delete("p4", 100)
    assert states(store, topics) == {
        "p0": "open",
        "p1": "decided",
        "p2": "open",
        "p3": "decided",
        "p4": "withdrawn",
    }
    withdrawn = ReviewQueue(store).listed(state="withdrawn", limit=1)[0]
    shown = ReviewQueue(store).show(withdrawn["id"], Person("r-1"), NOW_MS)
    assert shown["text"] is None


def test_a_deletion_in_avro_closes_its_item(store: Store) -> None:
    topics = Topics()
    topics.item(4)
    topics.delete("p4", 100)
    item, deletion = topics.records
    contract = contract_of(VERDICT)
    value = AvroOutput(contract, 7).encode(decode_verdict(deletion.value or b""))
    avro = MemoryRecord(deletion.topic, 0, 0, 0, None, value)
    projection = Projection(store, KAFKA)
    projection.apply([item, avro], {}, {(7).to_bytes(4): AvroSchema(contract.schema, ())})
    assert len(ReviewQueue(store).listed(state="withdrawn", limit=9)) == 1
    # Without its schema it changes nothing, and the queue goes on.
    projection.apply([MemoryRecord(deletion.topic, 0, 1, 0, None, value)], {})


def test_a_post_that_was_written_again_after_its_deletion_is_reviewed(store: Store) -> None:
    topics = Topics()
    topics.delete("p7", 3)
    topics.item(7)
    assert states(store, topics) == {"p7": "open"}


def test_a_decision_about_a_content_id_closes_the_items_of_the_same_text(store: Store) -> None:
    topics = Topics()
    topics.item(0)
    about = decision_about(0).about
    assert about is not None
    document = about.model_dump() | {"verdict_id": None}
    other = document | {"content": document["content"] | {"sha256": "1" * 64}}
    topics.decide(decision_about(0, id="other-text", about=other))
    assert states(store, topics) == {"p0": "open"}
    topics.decide(decision_about(0, id="same-text", about=document))
    assert states(store, topics) == {"p0": "decided"}


def test_the_queue_is_in_the_order_of_priority_and_age(store: Store) -> None:
    topics = Topics()
    topics.item(0, decision="violates", severity="low", published_ms=NOW_MS)
    topics.item(1, decision="violates", severity="critical", published_ms=NOW_MS)
    week_ms = 7 * 86_400_000
    topics.item(2, decision="violates", severity="low", published_ms=NOW_MS - week_ms)
    apply(Projection(store, KAFKA), topics.records)
    order = [item["content"]["id"] for item in ReviewQueue(store).listed(limit=9)]
    assert order == ["p2", "p1", "p0"]


def test_a_lease_ends_by_the_clock_that_is_passed_in(store: Store) -> None:
    topics = Topics()
    name = topics.item(0)
    apply(Projection(store, KAFKA), topics.records)
    queue = ReviewQueue(store, lease_ms=1_000)
    first = queue.claim(Person("r-1"), NOW_MS)
    assert first is not None
    assert first.item_id == name
    assert queue.claim(Person("r-2"), NOW_MS + 999) is None
    with pytest.raises(NotLeasedError):
        queue.claim(Person("r-2"), NOW_MS + 999, item_id=name)
    with pytest.raises(NotLeasedError):
        queue.held(name, Person("r-2"), NOW_MS + 1)
    second = queue.claim(Person("r-2"), NOW_MS + 1_000)
    assert second is not None
    with pytest.raises(NotLeasedError):
        queue.held(name, Person("r-1"), NOW_MS + 1_001)
    queue.release(name, Person("r-1"), NOW_MS + 1_001)  # not theirs any more
    assert queue.held(name, Person("r-2"), NOW_MS + 1_001)[1] == second
    what = [(entry["who"], entry["what"]) for entry in queue.trail(item_id=name)]
    assert what == [("r-1", "release"), ("r-2", "lease"), ("r-1", "lease")]


def test_a_second_review_is_blind_and_by_somebody_else(store: Store) -> None:
    topics = Topics()
    name = topics.item(0, reviews=2)
    topics.decide(decision_about(0, "r-1"))
    projection = Projection(store, KAFKA)
    apply(projection, topics.records)
    queue = ReviewQueue(store)
    assert queue.claim(Person("r-1"), NOW_MS) is None
    assert queue.claim(Person("r-2"), NOW_MS) is not None

    def seen_by(person: Person) -> list[str]:
        made = queue.show(name, person, NOW_MS)["decisions"]
        return [decision["decided_by"]["id"] for decision in made]

    assert seen_by(Person("r-2")) == []
    assert seen_by(Person("r-1")) == ["r-1"]
    assert seen_by(Person("l-1", "lead")) == ["r-1"]
    projection.note_decision(topics.decide(decision_about(0, "r-2")))
    assert seen_by(Person("r-2")) == ["r-1", "r-2"]
    with pytest.raises(NotLeasedError):
        queue.claim(Person("r-3"), NOW_MS, item_id=name)
    assert queue.claim(Person("l-1", "lead"), NOW_MS + 10**9, item_id=name) is not None


def test_who_may_only_read_leases_nothing(store: Store) -> None:
    with pytest.raises(SettingsError):
        ReviewQueue(store).claim(Person("x", "read-only"), NOW_MS)
    with pytest.raises(UnknownItemError):
        ReviewQueue(store).show(review_item_id("0"), Person("x", "read-only"), NOW_MS)


def share_out(queue: ReviewQueue, reviewers: int, each: int) -> list[str]:
    """Let this many people lease items at once, as many as they can get up to ``each``; return the leased items."""
    leased: list[str] = []
    start = threading.Barrier(reviewers)

    def work(name: str) -> None:
        start.wait()
        for _ in range(each):
            lease = queue.claim(Person(name), NOW_MS)
            if lease is not None:
                leased.append(lease.item_id)  # appending is atomic

    people = [threading.Thread(target=work, args=(f"r-{n}",)) for n in range(reviewers)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    return leased


def test_a_hundred_reviewers_never_share_an_item(store: Store) -> None:
    topics = Topics()
    names = {topics.item(offset) for offset in range(150)}
    apply(Projection(store, KAFKA), topics.records)
    leased = share_out(ReviewQueue(store), reviewers=100, each=2)
    assert len(leased) == len(set(leased)) == 150
    assert set(leased) == names


@pytest.mark.parametrize("url", ["mysql://host/x", "nothing://x", "sqlite:////no/such/folder/x"])
def test_a_database_that_cannot_be_opened_is_named(url: str) -> None:
    with pytest.raises(SettingsError, match="--database"):
        Store(url)
