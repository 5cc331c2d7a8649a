"""What the demo sends, and what comes back: posts in, verdicts and dead letters out, each counted once."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.text import Text

from stream_guard.cli.demo.posts import BROKEN, QUOTED, REPLY, demo_posts
from stream_guard.cli.views.verdict_line import COLOURS, verdict_line
from stream_guard.core.errors import EngineError
from stream_guard.core.kafka_clients import start_client, stop_client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from stream_guard.cli.demo.process import Program
    from stream_guard.testing.broker import Broker

VERDICTS: Final = "stream-guard.verdicts"
DEAD_LETTERS: Final = "stream-guard.dead-letters"


@dataclass(slots=True)
class Totals:
    """Counts of the output.

    Attributes:
        owed: how many verdicts and dead letters are due for the sent records.
        said: for each round, the decision and rules of each post under each policy.
        escalated: texts of the posts that a policy left to people.
        by_text: the first decision on each text, by policy.
        last: the last verdict of the machine on each post, by post and policy.
        by_people: the verdicts that a person decided, in order.
    """

    owed: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    done: set[tuple[str, int, int, str]] = field(default_factory=set)
    said: list[dict[tuple[str, str], tuple[str, str]]] = field(default_factory=list)
    escalated: set[str] = field(default_factory=set)
    by_text: dict[tuple[str, str], str] = field(default_factory=dict)
    last: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    by_people: list[dict[str, Any]] = field(default_factory=list)

    @property
    def changed(self) -> list[tuple[str, str]]:
        """Post and policy of each decision that is another in the last round than in the first."""
        first, last = self.said[0], self.said[-1]
        return [key for key, (decision, _) in last.items() if first[key][0] != decision]


async def feed(
    broker: Broker, posts: Sequence[tuple[str, str, bytes]], *, broken: bool, pause_s: float = 0.0
) -> int:
    """Send posts by a plain producer, and among them records that are none; return how many records.

    Args:
        broker: where to.
        posts: topic, text and value of each.
        broken: whether records that are none are among them.
        pause_s: time after each post, in s.
    """
    sent = 0
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all")
    try:
        await start_client(producer)
        for number, (topic, _, value) in enumerate(posts):
            await producer.send_and_wait(topic, value, key=orjson.loads(value)["author"].encode())
            sent += 1
            if broken and number % 6 == 5 and number // 6 < len(BROKEN):  # noqa: PLR2004 - spread among the others
                where, damaged = BROKEN[number // 6]
                await producer.send_and_wait(where, damaged, key=b"broken")
                sent += 1
            await asyncio.sleep(pause_s)
    finally:
        await stop_client(producer)
    return sent


class Watcher:
    """Reads verdicts and dead letters, prints them, and counts.

    Args:
        broker: where they are.
        totals: is kept here.
        show: prints a line.
        file: gets each verdict as a line of JSON.
    """

    def __init__(
        self, broker: Broker, totals: Totals, show: Callable[[Text], None], file: BinaryIO
    ) -> None:
        self._totals = totals
        self._show = show
        self._file = file
        self._texts = {orjson.loads(value)["id"]: text for _, text, value in demo_posts()}
        self._consumer = AIOKafkaConsumer(
            VERDICTS,
            DEAD_LETTERS,
            bootstrap_servers=broker.bootstrap_servers,
            auto_offset_reset="earliest",
        )

    async def start(self) -> None:
        """Connect."""
        await start_client(self._consumer)

    async def stop(self) -> None:
        """Disconnect."""
        await stop_client(self._consumer)

    async def round(self, consumer: Program, limit_s: float) -> bool:
        """Print what comes until all that is owed is there; return whether it came within ``limit_s``.

        Raises:
            EngineError: the consumer's process ended.
        """
        self._totals.said.append({})
        return await self.rest(consumer, limit_s)

    async def rest(self, consumer: Program, limit_s: float) -> bool:
        """Do the same within the round that is under way. Raises as :meth:`round`."""
        try:
            async with asyncio.timeout(limit_s):
                while len(self._totals.done) < self._totals.owed:
                    if consumer.ended:
                        raise EngineError("the consumer ended in the middle; its log says why")
                    for records in (await self._consumer.getmany(timeout_ms=500)).values():
                        for record in records:
                            self._one(record)
        except TimeoutError:
            return False
        return True

    def _one(self, record: Any) -> None:  # noqa: ANN401 - of aiokafka, which has no types
        totals = self._totals
        if record.topic == DEAD_LETTERS:
            headers = {name: value.decode() for name, value in record.headers}
            place = headers["sg_topic"], int(headers["sg_partition"]), int(headers["sg_offset"])
            totals.reasons[headers["sg_reason"]] += 1
            totals.done.add((*place, ""))
            line = Text(f"{place[0]:<14} ", style="dim")
            line.append("dead letter", style="yellow")
            self._show(line.append(f"  {headers['sg_reason']}", style="default"))
            return
        verdict = orjson.loads(record.value)
        source, policy = verdict["source"], verdict["policy"]
        self._file.write(record.value + b"\n")
        self._file.flush()
        totals.decisions[verdict["decision"]] += 1
        key = verdict["content"]["id"], policy["id"]
        if "decision_id" in verdict:
            totals.done.add((verdict["id"], 0, 0, ""))
            totals.by_people.append(verdict)
            self._show(verdict_line(verdict, self._texts[key[0]]))
            return
        totals.done.add((source["topic"], source["partition"], source["offset"], policy["id"]))
        totals.last[key] = verdict
        totals.said[-1][key] = verdict["decision"], ", ".join(policy["rule_ids"])
        text = self._texts[key[0]]
        totals.by_text.setdefault((text, policy["id"]), verdict["decision"])
        line = verdict_line(verdict, text)
        if verdict["needs_review"] and verdict["decision"] == "undetermined":
            totals.escalated.add(text)
            line.append("   for people", style="yellow")
        if text == REPLY:
            line.append(f"   quotes: {QUOTED}", style="dim")
        before = totals.said[0][key][0]
        if before != verdict["decision"]:
            line.append("   was ", style="dim")
            line.append(before, style=COLOURS.get(before, ""))
        self._show(line)
