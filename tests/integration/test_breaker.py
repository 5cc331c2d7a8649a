"""The breaker on a real broker: three replicas and kills, and an edit that makes everything violate.

``BREAKER_POSTS`` and ``BREAKER_KILLS`` make it larger.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.integration.harness import (
    Deployment,
    deploy,
    owed_of,
    post,
    produce,
    read,
    running,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stream_guard.testing import Broker

POSTS = int(os.environ.get("BREAKER_POSTS", "1200"))
KILLS = int(os.environ.get("BREAKER_KILLS", "4"))
EDIT_LIMIT = 150
TEXT = b"# Selling\nS1: Offers of goods are not allowed.\n"
YAML = b"action: remove\nanswer: structured\n"


def write_policy(folder: Path, term: str) -> None:
    """Write a policy whose rule finds a word."""
    place = folder / "selling"
    place.mkdir(parents=True, exist_ok=True)
    (place / "policy.md").write_bytes(TEXT)
    (place / "policy.yaml").write_bytes(YAML)
    rules = f"rules:\n  - {{id: words, outcome: violates, terms: [{term}]}}\n"
    (place / "rules.yaml").write_text(rules, "utf-8")
    (folder / "routes.yaml").write_text("default: [selling]\n", "utf-8")


def limits(actions_max: int) -> str:
    limit = {"action": "remove", "policy": "*", "actions_max": actions_max}
    return orjson.dumps([limit]).decode()


@pytest.fixture
def place(broker: Broker, new_topic: Callable[..., str], tmp_path: Path) -> Deployment:
    write_policy(tmp_path / "policies", "post")

    def topic(prefix: str) -> str:
        return new_topic(prefix, partitions=6 if prefix == "posts" else 2)

    made = deploy(broker.bootstrap_servers, topic)
    made.extra.update(
        {
            "STREAM_GUARD_POLICIES__PATH": str(tmp_path / "policies"),
            "STREAM_GUARD_POLICIES__ARCHIVE": "off",
            "STREAM_GUARD_ACTIONS__LIMITS": limits(EDIT_LIMIT),
            # Made by the first replica that starts.
            "STREAM_GUARD_KAFKA__BREAKER_TOPIC": f"breaker-{made.posts}",
            "STREAM_GUARD_BATCHING__IN_FLIGHT_RECORDS_MAX": "100",
            "STREAM_GUARD_BATCHING__POLL_RECORDS_MAX": "50",
        }
    )
    return made


async def verdicts_of(place: Deployment, count: int) -> list[dict[str, Any]]:
    """Return the verdicts once this many are there that differ in their ids."""
    records = await read(
        place.bootstrap, [place.verdicts, place.dead], lambda got: len(owed_of(got)) >= count
    )
    assert not [r for r in records if r.topic == place.dead]
    return [orjson.loads(r.value) for r in records]


def removed(verdicts: Sequence[dict[str, Any]]) -> set[str]:
    """Return the ids of verdicts of which any copy recommends the action."""
    return {verdict["id"] for verdict in verdicts if verdict["action"] == "remove"}


class Replicas:
    """Three replicas; the test kills one after another, and each is started again."""

    def __init__(self, place: Deployment, folder: Path, stack: contextlib.ExitStack) -> None:
        self._place = place
        self._folder = folder
        self._stack = stack
        self._starts = 0
        self.running = [self._start() for _ in range(3)]

    def _start(self) -> Any:  # noqa: ANN401 - the harness's process
        self._starts += 1
        return self._stack.enter_context(running(self._place, self._folder / f"log-{self._starts}"))

    async def kill_one(self, number: int) -> None:
        victim = self.running[number]
        await until(lambda: b'"event":"ready"' in victim.log.read_bytes())
        await asyncio.to_thread(victim.end, signal.SIGKILL)
        self.running[number] = self._start()


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_three_replicas_and_kills_take_no_more_actions_than_the_limit(
    place: Deployment, tmp_path: Path, mode: str
) -> None:
    # Half of the posts: replicas are killed before it is reached, and after.
    limit = POSTS // 2
    place.extra["STREAM_GUARD_ACTIONS__LIMITS"] = limits(limit)
    place.extra["STREAM_GUARD_DELIVERY__MODE"] = mode
    chance = random.Random(7)  # noqa: S311 - a seeded choice of victims
    with contextlib.ExitStack() as stack:
        replicas = Replicas(place, tmp_path, stack)
        for part in range(KILLS):
            first, last = part * POSTS // (KILLS + 1), (part + 1) * POSTS // (KILLS + 1)
            await produce(place.bootstrap, place.posts, (post(n) for n in range(first, last)))
            await verdicts_of(place, first + 1)
            await replicas.kill_one(chance.randrange(3))
        await produce(place.bootstrap, place.posts, (post(n) for n in range(last, POSTS)))
        verdicts = await verdicts_of(place, POSTS)
        for replica in replicas.running:
            await until(lambda log=replica.log: b"breaker_opened" in log.read_bytes())  # type: ignore[misc]
    assert limit // 10 < len(removed(verdicts)) <= limit
    limited = [verdict for verdict in verdicts if verdict["action"] == "review"]
    assert len({verdict["id"] for verdict in limited}) >= POSTS - limit
    for verdict in limited:
        assert verdict["needs_review"] is True
        assert verdict["review_reasons"] == ["action_limited"]
        assert verdict["provenance"]["degraded"] == ["action_limited"]


async def test_an_edit_that_makes_everything_violate_takes_down_at_most_the_limit(
    place: Deployment, tmp_path: Path
) -> None:
    write_policy(tmp_path / "policies", "sale")
    with running(place, tmp_path / "log") as run:
        await produce(place.bootstrap, place.posts, (post(n) for n in range(200)))
        assert not removed(await verdicts_of(place, 200))
        write_policy(tmp_path / "policies", "post")
        await until(lambda: b'"event":"policies_switched"' in run.log.read_bytes())
        await produce(place.bootstrap, place.posts, (post(n) for n in range(200, 1200)))
        verdicts = await verdicts_of(place, 1200)
        assert run.end() == 0, run.tail()
    violating = [verdict for verdict in verdicts if verdict["decision"] == "violates"]
    assert len(violating) == 1000
    assert EDIT_LIMIT - 50 < len(removed(verdicts)) <= EDIT_LIMIT
