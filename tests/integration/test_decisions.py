"""People's decisions and deletions by a real broker, in both modes, while replicas are killed.

The size is small by default. A long run sets ``HUMAN_LOOP_POSTS=20000``, ``HUMAN_LOOP_DECISIONS=2000`` and
``HUMAN_LOOP_DELETES=500``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from stream_guard.records.decision import Decision, about_verdict, encode_decision
from stream_guard.records.verdict_changes import superseding_id
from tests.integration.harness import Deployment, Running, deploy, read, running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stream_guard.testing import Broker

POSTS = int(os.environ.get("HUMAN_LOOP_POSTS", "2000"))
DECISIONS = int(os.environ.get("HUMAN_LOOP_DECISIONS", "200"))
DELETES = int(os.environ.get("HUMAN_LOOP_DELETES", "50"))
REPLICAS = 3
POLICIES = 2


def post(number: int) -> tuple[bytes, bytes]:
    value = {"id": f"p{number}", "text": f"[violates] post {number}", "author": "a"}
    return b"key-%d" % number, orjson.dumps(value)


async def send(
    place: Deployment, topic: str, records: Sequence[tuple[bytes, bytes | None]]
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap, acks="all", linger_ms=5)
    await producer.start()
    try:
        for key, value in records:
            await producer.send(topic, value, key=key)
        await producer.flush()
    finally:
        await producer.stop()


def overrule(verdict: dict[str, Any], number: int) -> Decision:
    return Decision(
        schema_version="1.0",
        id=f"d-{number}",
        kind="review",
        decided_at=time.time_ns() // 1_000_000,
        decided_by={"id": "r-1", "role": "reviewer"},
        about=about_verdict(verdict),
        outcome={"decision": "safe", "action": "none"},
        reason="satire",
    )


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


def verdicts_of(records: Sequence[Any]) -> list[dict[str, Any]]:
    """Return verdicts and events by partition and offset."""
    placed = sorted(records, key=lambda one: (one.partition, one.offset))
    return [orjson.loads(one.value) for one in placed]


def is_human(verdict: dict[str, Any]) -> bool:
    return bool(verdict["provenance"]["tier"] == "human")


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
    )
    topic = place.extra["STREAM_GUARD_KAFKA__DECISION_TOPIC"] = f"decisions-{place.posts}"
    await send(place, place.posts, [post(number) for number in range(POSTS)])
    with contextlib.ExitStack() as stack:
        replicas = [
            stack.enter_context(running(place, tmp_path / f"replica-{number}"))
            for number in range(REPLICAS)
        ]
        records = await read(
            place.bootstrap, [place.verdicts], lambda got: len(got) >= 2 * DECISIONS
        )
        # One policy's verdict on each post: the other policy is not decided about.
        judged = {one["content"]["id"]: one for one in verdicts_of(records)}
        decisions = [overrule(each, n) for n, each in enumerate([*judged.values()][:DECISIONS])]
        assert len(decisions) == DECISIONS
        written = [encode_decision(each) for each in decisions]
        half = DECISIONS // 2
        await send(place, topic, [(key, value) for key, value, _ in written[:half]])
        replicas[0].end(signal.SIGKILL)
        await send(place, topic, [(key, value) for key, value, _ in written[half:]])
        bad = [(b"bad", b"{"), (written[0][0], b'{"kind":"whim"}')]
        await send(place, topic, bad)
        decided = {each.about.content.id for each in decisions if each.about is not None}
        gone = [number for number in range(POSTS) if f"p{number}" not in decided][:DELETES]
        await send(place, place.posts, [(post(number)[0], None) for number in gone])
        replicas[1].end(signal.SIGKILL)
        replicas[:2] = [
            stack.enter_context(running(place, tmp_path / f"again-{number}")) for number in range(2)
        ]

        ids = {superseding_id(e.id, e.about.verdict_id) for e in decisions if e.about is not None}
        owed = {(f"p{number}", policy) for number in range(POSTS) for policy in policies(records)}

        def settled(got: list[Any]) -> bool:
            if len(got) < POSTS * POLICIES + DECISIONS:
                return False
            made = verdicts_of(got)
            judged = {(one["content"]["id"], one["policy"]["id"]) for one in made}
            retracted = [one for one in made if "retracts" in one]
            return (
                ids <= {one["id"] for one in made}
                and owed <= judged
                and len({one["id"] for one in retracted}) >= DELETES
            )

        await read(place.bootstrap, [place.verdicts], settled)
        await until(lambda: all(knows_all(run, DECISIONS) for run in replicas))
        # Everything that was decided comes again, to replicas that all know it.
        again = [post(int(content.removeprefix("p"))) for content in sorted(decided)]
        await send(place, place.posts, again)
        answered = await read(
            place.bootstrap,
            [place.verdicts],
            lambda got: (
                settled(got) and len(reposts(verdicts_of(got), decided)) >= DECISIONS * POLICIES
            ),
        )
        dead = await read(place.bootstrap, [place.dead], lambda got: len(got) >= len(bad))
        codes = [run.end() for run in replicas]
    made = verdicts_of(answered)
    counts = Counter(one["id"] for one in made)
    assert codes == [0] * REPLICAS
    assert {dict(one.headers)["sg_reason"] for one in dead} == {b"decision"}
    assert owed <= {(one["content"]["id"], one["policy"]["id"]) for one in made}, "lost"
    assert {one["id"] for one in made if "retracts" in one and one["retracts"]["key"]} >= {
        one["id"] for one in made if "retracts" in one
    }
    if mode == "exactly_once":
        assert set(counts.values()) == {1}
    policy_of = {e.about.content.id: e.about.policy.id for e in decisions if e.about is not None}
    for one in reposts(made, decided):
        mine = policy_of[one["content"]["id"]] == one["policy"]["id"]
        assert is_human(one) == mine, one
    assert ids == {one["id"] for one in made if is_human(one)} & ids


def policies(records: Sequence[Any]) -> set[str]:
    return {one["policy"]["id"] for one in verdicts_of(records)}


def reposts(made: list[dict[str, Any]], decided: set[str]) -> list[dict[str, Any]]:
    """Return the verdicts on the posts that were sent a second time, each once."""
    first: dict[tuple[str, str], int] = {}
    for one in made:
        key = one["content"]["id"], one["policy"]["id"]
        first[key] = min(one["source"]["offset"], first.get(key, 1 << 62))
    found = {
        (one["id"]): one
        for one in made
        if one["content"]["id"] in decided
        and one["source"]["offset"] > first[one["content"]["id"], one["policy"]["id"]]
    }
    return [*found.values()]
