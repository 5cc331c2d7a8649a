"""People's decisions, deletions and a limit on actions, by a real broker, in both modes, while replicas are killed.

The size is small by default. A long run sets ``HUMAN_LOOP_POSTS=20000``, ``HUMAN_LOOP_DECISIONS=2000`` and
``HUMAN_LOOP_DELETES=500``, and shows with ``-s`` how far it is and what it counted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import time
import urllib.request
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from stream_guard.records.decision import Decision, about_verdict, encode_decision
from stream_guard.records.verdict_changes import superseding_id
from tests.integration.harness import ROOT, Deployment, Running, deploy, read, running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stream_guard.records.decision import DecidedSource
    from stream_guard.testing import Broker

POSTS = int(os.environ.get("HUMAN_LOOP_POSTS", "2000"))
DECISIONS = int(os.environ.get("HUMAN_LOOP_DECISIONS", "200"))
DELETES = int(os.environ.get("HUMAN_LOOP_DELETES", "50"))
REPLICAS = 3
POLICIES = 2
ACTIONS_MAX = POSTS
"""Half of the verdicts on the posts that come first."""
BEHIND_MS_MAX = 15_000
"""How long a member may not have read a decision, while no broker is away."""
TRANSACTION_MS_MAX = 1_000
"""How long a transaction may take to be written, into which a decision comes."""


def post(number: int) -> tuple[bytes, bytes]:
    value = {"id": f"p{number}", "text": f"[violates] post {number}", "author": "a"}
    return b"key-%d" % number, orjson.dumps(value)


async def send(place: Deployment, topic: str, records: Sequence[tuple[bytes, bytes | None]]) -> int:
    """Send, and return when the broker had all, Unix time in ms."""
    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap, acks="all", linger_ms=5)
    await producer.start()
    try:
        for key, value in records:
            await producer.send(topic, value, key=key)
        await producer.flush()
    finally:
        await producer.stop()
    return now_ms()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def overrule(verdict: dict[str, Any], number: int) -> Decision:
    return Decision(
        schema_version="1.0",
        id=f"d-{number}",
        kind="review",
        decided_at=now_ms(),
        decided_by={"id": "r-1", "role": "reviewer"},
        about=about_verdict(verdict),
        outcome={"decision": "safe", "action": "none"},
        reason="satire",
    )


def bad_decisions(good: Decision) -> dict[str, tuple[bytes, bytes]]:
    """Return a record of each kind that is refused, by the reason of its dead letter, under a good decision's key."""
    key, value, _ = encode_decision(good)
    document: dict[str, Any] = orjson.loads(value)

    def changed(**changes: Any) -> tuple[bytes, bytes]:  # noqa: ANN401 - JSON
        return key, orjson.dumps(document | {"id": "bad"} | changes)

    about = document["about"] | {"verdict_id": "0" * 32}
    return {
        "decision": changed(kind="whim"),
        "unknown_verdict": changed(about=about),
        "future_decision": changed(decided_at=now_ms() + 86_400_000),
        "unknown_role": changed(decided_by={"id": "r-1", "role": "stranger"}),
        "too_large": (key, b'"' + b"x" * (64 << 10) + b'"'),
    }


def knows_all(run: Running, subjects: int) -> bool:
    """Whether a replica has read every decision, as its ``/healthz`` says."""
    port = run.wait_for("ready")["http_port"]
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer,
    ):
        state = orjson.loads(answer.read()).get("decisions", {})
        return bool(state.get("subjects") == subjects and state.get("behind") == 0)
    return False


def say(line: str) -> None:
    """Show how far it is; pytest shows it with ``-s``."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)  # noqa: T201 - the progress of a long run


class Made:
    """What the verdict topic holds, each record parsed once.

    Attributes:
        every: (when it was written, verdict or event) in the order of reading.
        ids, judged, reposts: of all of them: ids, content and policy, and posts that came a second time, by their id.
        retracted: keys of the posts that were deleted, by the event's id.
    """

    def __init__(self) -> None:
        self.every: list[tuple[int, dict[str, Any]]] = []
        self.ids: Counter[str] = Counter()
        self.judged: set[tuple[str, str]] = set()
        self.reposts: dict[str, dict[str, Any]] = {}
        self.retracted: dict[str, str] = {}
        self._first: dict[tuple[str, str], tuple[int, int]] = {}
        self._said = 0

    def take(self, records: Sequence[Any]) -> None:
        """Take the records that are new; the list only grows."""
        for record in records[len(self.every) :]:
            one = orjson.loads(record.value)
            self.every.append((record.timestamp, one))
            self.ids[one["id"]] += 1
            if "retracts" in one:
                self.retracted[one["id"]] = one["retracts"]["key"]
                continue
            subject = one["content"]["id"], one["policy"]["id"]
            self.judged.add(subject)
            place = one["source"]["partition"], one["source"]["offset"]
            # The same key has the same partition, so a later record has a greater offset.
            if self._first.setdefault(subject, place) < place:
                self.reposts[one["id"]] = one
        if len(self.every) // 5_000 > self._said:
            self._said = len(self.every) // 5_000
            say(f"{len(self.every):,} verdicts and events")


def is_human(verdict: dict[str, Any]) -> bool:
    return bool(verdict["provenance"]["tier"] == "human")


def policies_with_actions(folder: Path) -> str:
    """Copy the policies, and have each recommend an action for what violates it; return the folder."""
    shutil.copytree(ROOT / "policies", folder)
    for policy in folder.glob("*/policy.md"):
        metadata = policy.with_name("policy.yaml")
        lines = metadata.read_text("utf-8").splitlines() if metadata.exists() else []
        kept = [line for line in lines if not line.startswith("action:")]
        metadata.write_text("\n".join([*kept, "action: remove", ""]), "utf-8")
    return str(folder)


class Scene:
    """One run: its topics, its replicas, what people did, and what came of it."""

    def __init__(self, place: Deployment, topic: str, folder: Path) -> None:
        self.place = place
        self.topic = topic
        self.folder = folder
        self.made = Made()
        self.replicas: list[Running] = []
        self.decisions: list[Decision] = []
        self.sent_ms: list[int] = []
        self.bad: dict[str, tuple[bytes, bytes]] = {}
        self.deleted: list[int] = []
        self._starts = 0

    def start(self, stack: contextlib.ExitStack) -> Running:
        self._starts += 1
        log = self.folder / f"replica-{self._starts}"
        return stack.enter_context(running(self.place, log))

    async def wait(self, enough: Callable[[Made], bool]) -> None:
        """Read the verdict topic from its beginning until there is enough."""
        self.made = Made()

        def look(records: list[Any]) -> bool:
            self.made.take(records)
            return enough(self.made)

        await read(self.place.bootstrap, [self.place.verdicts], look)

    async def decide_and_delete(self) -> None:
        """Decide, write what is refused, and delete; kill two replicas meanwhile."""
        # One policy's verdict on each post: the other policy is not decided about.
        judged = {one["content"]["id"]: one for _, one in self.made.every}
        self.decisions = [overrule(one, n) for n, one in enumerate([*judged.values()][:DECISIONS])]
        assert len(self.decisions) == DECISIONS
        written = [encode_decision(each)[:2] for each in self.decisions]
        half = DECISIONS // 2
        self.sent_ms += [await send(self.place, self.topic, written[:half])] * half
        self.replicas[0].end(signal.SIGKILL)
        sent_ms = await send(self.place, self.topic, written[half:])
        self.sent_ms += [sent_ms] * (DECISIONS - half)
        self.bad = bad_decisions(self.decisions[0])
        await send(self.place, self.topic, [*self.bad.values(), (b"bad", b"{")])
        others = (n for n in range(POSTS) if f"p{n}" not in self.decided)
        self.deleted = [*itertools.islice(others, DELETES)]
        await send(self.place, self.place.posts, [(post(n)[0], None) for n in self.deleted])
        self.replicas[1].end(signal.SIGKILL)
        say(f"{DECISIONS:,} decisions and {DELETES:,} deletions sent; two replicas killed")

    @property
    def decided(self) -> set[str]:
        """The ids of the posts that people decided about."""
        return {one.about.content.id for one in self.decisions if one.about is not None}

    @property
    def events(self) -> set[str]:
        """The ids of the events that the decisions make."""
        return {
            superseding_id(one.id, one.about.verdict_id)
            for one in self.decisions
            if one.about is not None
        }


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_each_decision_counts_once_and_for_all_while_replicas_are_killed(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, mode: str
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_DELIVERY__MODE=mode,
        STREAM_GUARD_DECISIONS__ENABLED="true",
        STREAM_GUARD_POST__TOMBSTONES="delete",
        STREAM_GUARD_POLICIES__PATH=policies_with_actions(tmp_path / "policies"),
        STREAM_GUARD_POLICIES__ARCHIVE="off",
        STREAM_GUARD_ACTIONS__LIMITS=orjson.dumps([{"actions_max": ACTIONS_MAX}]).decode(),
    )
    topic = place.extra["STREAM_GUARD_KAFKA__DECISION_TOPIC"] = f"decisions-{place.posts}"
    place.extra["STREAM_GUARD_KAFKA__BREAKER_TOPIC"] = f"breaker-{place.posts}"
    await send(place, place.posts, [post(number) for number in range(POSTS)])
    say(f"{mode}: {POSTS:,} posts sent; {REPLICAS} replicas start")
    scene = Scene(place, topic, tmp_path)
    with contextlib.ExitStack() as stack:
        scene.replicas = [scene.start(stack) for _ in range(REPLICAS)]
        await scene.wait(lambda made: len(made.every) >= 2 * DECISIONS)
        await scene.decide_and_delete()
        scene.replicas[:2] = [scene.start(stack) for _ in range(2)]
        events = scene.events
        policies = {policy for _, policy in scene.made.judged}
        owed = {(f"p{number}", policy) for number in range(POSTS) for policy in policies}

        def settled(made: Made) -> bool:
            return (
                len(made.every) >= POSTS * POLICIES + DECISIONS
                and len(made.retracted) >= DELETES
                and events <= made.ids.keys()
                and owed <= made.judged
            )

        await scene.wait(settled)
        await until(lambda: all(knows_all(run, DECISIONS) for run in scene.replicas))
        known_ms = now_ms()
        say("all is judged, and all replicas know all decisions; the decided posts come again")
        again = [post(int(content.removeprefix("p"))) for content in sorted(scene.decided)]
        await send(place, place.posts, again)
        await scene.wait(lambda made: settled(made) and len(made.reposts) >= DECISIONS * POLICIES)
        dead = await read(place.bootstrap, [place.dead], lambda got: len(got) > len(scene.bad))
        codes = [run.end() for run in scene.replicas]
    assert codes == [0] * REPLICAS
    assert len(policies) == POLICIES
    reasons = Counter(dict(one.headers)["sg_reason"].decode() for one in dead)
    assert reasons.keys() == scene.bad.keys()
    if mode == "exactly_once":
        assert set(scene.made.ids.values()) == {1}
        assert reasons == dict.fromkeys(scene.bad, 1) | {"decision": 2}
    assert_kept(scene, owed, known_ms)


def assert_kept(scene: Scene, owed: set[tuple[str, str]], known_ms: int) -> None:
    """Assert what both modes promise, and say what there was.

    Args:
        scene: what happened.
        owed: content and policy of each verdict that is owed.
        known_ms: when all replicas had read all decisions, Unix time in ms.
    """
    made, decisions = scene.made, scene.decisions
    assert owed <= made.judged, "lost"
    assert sorted(made.retracted.values()) == sorted(f"key-{number}" for number in scene.deleted)
    policy_of = {e.about.content.id: e.about.policy.id for e in decisions if e.about is not None}
    for one in made.reposts.values():
        mine = policy_of[one["content"]["id"]] == one["policy"]["id"]
        assert is_human(one) == mine, one
    assert_one_event_each(made, decisions)
    late = after_people(made, decisions)
    for number, written_ms in late:
        until_ms = min(scene.sent_ms[number] + BEHIND_MS_MAX, known_ms + TRANSACTION_MS_MAX)
        assert written_ms <= until_ms, f"against d-{number}, {written_ms - until_ms} ms late"
    acted = {one["id"] for _, one in made.every if one["action"] == "remove" and not is_human(one)}
    assert ACTIONS_MAX // 10 < len(acted) <= ACTIONS_MAX
    say(
        f"{len(made.every):,} records of {len(made.ids):,} ids; lost 0; {len(decisions):,} decisions with one event "
        f"each; {len(made.retracted):,} retractions; {len(made.reposts):,} verdicts on posts that came again; "
        f"{len(late):,} verdicts of a machine after a person's, by members that had not read the decision; "
        f"{len(acted):,} actions of at most {ACTIONS_MAX:,}"
    )


def place(source: DecidedSource) -> tuple[int, int]:
    return source.partition, source.offset


def assert_one_event_each(made: Made, decisions: Sequence[Decision]) -> None:
    """Assert that what a decision says about its verdict has one id, in all copies."""
    events: dict[str, set[str]] = defaultdict(set)
    place_of = {e.id: place(e.about.source) for e in decisions if e.about and e.about.source}
    for _, one in made.every:
        # A person's answer to the post when it comes again has another source, and another id.
        name = one.get("decision_id")
        if name and (one["source"]["partition"], one["source"]["offset"]) == place_of[name]:
            events[name].add(one["id"])
    for decision in decisions:
        assert decision.about is not None
        assert events.pop(decision.id) == {superseding_id(decision.id, decision.about.verdict_id)}
    assert not events


def after_people(made: Made, decisions: Sequence[Decision]) -> list[tuple[int, int]]:
    """Return the machine's verdicts that were written after a person's on the same: which decision's, and when.

    None of them has a revision, and each person's verdict has one.
    """
    number_of = {
        (e.about.content.id, e.about.policy.id): number
        for number, e in enumerate(decisions)
        if e.about is not None
    }
    person_ms: dict[int, int] = {}
    machine: list[tuple[int, int]] = []
    for written_ms, one in made.every:
        number = number_of.get((one["content"]["id"], one["policy"]["id"]))
        if number is None:
            continue
        assert is_human(one) == ("revision" in one)
        if is_human(one):
            person_ms[number] = min(written_ms, person_ms.get(number, written_ms))
        else:
            machine.append((number, written_ms))
    return [(number, at_ms) for number, at_ms in machine if at_ms > person_ms[number]]
