"""Collects what people decided about a policy's verdicts: from the review database, or from the topics."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_guard.core.errors import RecordError
from stream_guard.kafka.ranges import RangeReader
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.kafka.registry.written import open_verdicts
from stream_guard.offline.audit.backtest import Outcome
from stream_guard.offline.audit.replay_run import read_verdict
from stream_guard.offline.review.follow import catch_up, judged_post
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.queue import ReviewQueue
from stream_guard.offline.review.report import final_decision, golden_name
from stream_guard.offline.review.store import Store
from stream_guard.records.decision import parse_decision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_guard.kafka.ranges import Progress
    from stream_guard.records.decision import Decision
    from stream_guard.settings import Settings

__all__ = [
    "Place",
    "Ruling",
    "find_rulings",
    "rulings_of_review",
    "rulings_of_topics",
    "with_texts",
]


class Place(NamedTuple):
    """Where a record is."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> Place:
        """Return the place in a verdict's source."""
        return cls(source["topic"], source["partition"], source["offset"])

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(slots=True, frozen=True)
class Ruling:
    """What a person decided about one verdict.

    Attributes:
        place: of the record that was judged.
        content: of the verdict: ``id``, ``sha256`` and ``language``, among others.
        version: of the policy that judged.
        machine: what the verdict said.
        rule_ids: the rules that the verdict names.
        person: what the person decided.
        reason: the person's words, or None.
        text: the post's text, where it is known.
    """

    place: Place
    content: Mapping[str, Any]
    version: str
    machine: Outcome
    rule_ids: tuple[str, ...]
    person: Outcome
    reason: str | None = None
    text: str | None = None

    @property
    def name(self) -> str:
        """The id of its golden row."""
        return golden_name(self.content)

    @property
    def overturned(self) -> bool:
        """Whether the person decided otherwise: in the decision, or in the category of a violation."""
        if self.machine.decision != self.person.decision:
            return True
        said, decided = self.machine.category, self.person.category
        named = said is not None and decided is not None
        return named and self.person.decision == "violates" and said != decided


def rulings_of_review(queue: ReviewQueue, slug: str) -> list[Ruling]:
    """Return the rulings about a policy in the review database, without those whose posts were deleted."""
    found = []
    for item, made in queue.reviewed():
        decision = final_decision(made)
        if item["policy"]["id"] != slug or decision is None or item["deleted"]:
            continue
        said = item["verdict"]
        outcome = decision["outcome"]
        found.append(
            Ruling(
                Place.of(item["source"]),
                item["content"],
                item["policy"]["version"],
                Outcome(said["decision"], said["category"]),
                tuple(said["rule_ids"]),
                Outcome(outcome["decision"], outcome["category"]),
                decision["reason"],
                item["text"],
            )
        )
    return _sorted(found)


async def find_rulings(settings: Settings, slug: str, progress: Progress) -> list[Ruling]:
    """Return the rulings about a policy: of the review database, brought up to the end of its topics, or of the topics.

    Raises:
        SettingsError: the database cannot be opened.
        BrokerError: the broker does not answer, or a topic does not exist.
    """
    if settings.kafka.review_topic is None:
        return await rulings_of_topics(settings, slug, progress)
    store = Store(settings.review.database.get_secret_value())
    try:
        await catch_up(settings, Projection(store, settings.kafka), progress)
        return await asyncio.to_thread(rulings_of_review, ReviewQueue(store), slug)
    finally:
        store.close()


async def rulings_of_topics(settings: Settings, slug: str, progress: Progress) -> list[Ruling]:
    """Return the rulings about a policy, read from the decisions topic and the verdict topic.

    A decision whose verdict is no longer in its topic is left out, and so is one whose post was deleted.

    Raises:
        BrokerError: the broker does not answer, or a topic does not exist.
    """
    kafka = settings.kafka
    standing: dict[bytes | None, Decision] = {}
    found: list[tuple[dict[str, Any], Decision]] = []
    async with RangeReader(kafka, progress) as reader, open_verdicts(settings) as reading:
        async for record in reader.read(await reader.whole(kafka.decision_topic)):
            try:
                decision = parse_decision(record.key, record.value, record.headers)
            except RecordError:
                continue  # the service writes its dead letter
            known = standing.get(record.key)
            if known is None or decision.rank > known.rank:
                standing[record.key] = decision
        wanted = {
            each.about.verdict_id: each
            for each in standing.values()
            if each.outcome is not None and each.about is not None and each.about.policy.id == slug
        }
        if not wanted.keys() - {None}:
            return []
        deletions = []
        async for record in reader.read(await reader.whole(kafka.verdict_topic)):
            verdict = await read_verdict(reading, record.value)
            if verdict is None:
                continue
            if (verdict.get("retracts") or {}).get("cause") == "deleted":
                deletions.append(verdict)
            elif (made := wanted.pop(verdict["id"], None)) is not None:
                found.append((verdict, made))
    return _sorted(
        _ruling(verdict, made)
        for verdict, made in found
        if not any(
            _deletes(each, verdict["source"], verdict["content"]["id"]) for each in deletions
        )
    )


def _deletes(event: Mapping[str, Any], source: Mapping[str, Any], content_id: str) -> bool:
    """Return whether a deletion is about the post of an earlier record, by its content id or its key."""
    gone, place = event["retracts"], event["source"]
    same = gone["content_id"] == content_id or (
        gone["key"] is not None and gone["key"] == source["key"]
    )
    later = place["partition"] != source["partition"] or place["offset"] > source["offset"]
    return bool(same and later and place["topic"] == source["topic"])


def _ruling(verdict: Mapping[str, Any], decision: Decision) -> Ruling:
    assert decision.outcome is not None, "checked by the caller"
    policy = verdict["policy"]
    return Ruling(
        Place.of(verdict["source"]),
        verdict["content"],
        policy["version"],
        Outcome(verdict["decision"], policy["category"]),
        tuple(policy["rule_ids"]),
        Outcome(decision.outcome.decision, decision.outcome.category),
        decision.reason,
    )


def _sorted(rulings: Iterable[Ruling]) -> list[Ruling]:
    return sorted(rulings, key=lambda ruling: ruling.place)


async def with_texts(
    settings: Settings, rulings: Sequence[Ruling], progress: Progress
) -> list[Ruling]:
    """Return the rulings with the texts of their posts, as far as the posts' own topics still have them.

    Args:
        settings: the broker, and how posts are read.
        rulings: in the order of the result.
        progress: called with the number of rulings done and their total.

    Raises:
        BrokerError: the broker does not answer.
    """
    if all(ruling.text is not None for ruling in rulings):
        return list(rulings)
    found = []
    async with RangeReader(settings.kafka) as reader, open_parser(settings) as parser:
        for number, ruling in enumerate(rulings, 1):
            text = ruling.text
            if text is None:
                source = ruling.place._asdict()
                post = await judged_post(reader, parser, source, ruling.content["sha256"])
                text = None if post is None else post.text
            found.append(replace(ruling, text=text))
            progress(number, len(rulings))
    return found
