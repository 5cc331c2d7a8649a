"""Two deployments exchange escalations on a real broker, and are killed; each post ends with one final verdict."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from stream_guard.client import VerdictConsumer
from tests.escalations import ANSWERS, POLICY
from tests.hang import HANG_S
from tests.integration.harness import Deployment, deploy, health, run_command, running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from stream_guard.client import Verdict
    from stream_guard.testing import Broker

WORDS = ("safe", "severe", "unclear", "mild")
PAIRS = [f"{first} {second}" for first in WORDS for second in WORDS]
POSTS = {f"p{number}": PAIRS[number % len(PAIRS)] for number in range(320)}
APP = ("tests.integration.word_app",)


def two_deployments(place: Deployment, topic: str, **first: str) -> tuple[Deployment, Deployment]:
    """Return the deployment with the small model, and the one with the large one."""
    group = f"large-{uuid.uuid4().hex[:8]}"
    small = {
        "STREAM_GUARD_CASCADE__ESCALATION_TOPIC": topic,
        "STREAM_GUARD_CASCADE__ESCALATION_GROUP": group,
        "WORD_PLACE": "0",
    }
    large = {
        "STREAM_GUARD_KAFKA__TOPICS": "[]",
        "STREAM_GUARD_KAFKA__GROUP_ID": group,
        "STREAM_GUARD_CASCADE__ESCALATED_TOPIC": topic,
        "WORD_PLACE": "1",
    }
    return (
        replace(place, extra={**place.extra, **small, **first}),
        replace(place, extra={**place.extra, **large}),
    )


async def send(place: Deployment, posts: Iterable[tuple[str, str]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=place.bootstrap, acks="all", linger_ms=5)
    await producer.start()
    try:
        for name, text in posts:
            value = orjson.dumps({"id": name, "text": text, "author": "a"})
            await producer.send(place.posts, value, key=name.encode())
        await producer.flush()
    finally:
        await producer.stop()


async def final_verdicts(place: Deployment, names: set[str]) -> dict[str, list[Verdict]]:
    """Return what a service gets that waits for final verdicts, once it has one on each post, and a little longer."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    async with VerdictConsumer(
        place.bootstrap,
        group_id=f"reader-{uuid.uuid4().hex[:8]}",
        topic=place.verdicts,
        decisions=None,
        provisional=False,
    ) as verdicts:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANG_S) as deadline:
                async for verdict in verdicts:
                    found[verdict.content.id].append(verdict)
                    if set(found) == names:
                        deadline.reschedule(asyncio.get_running_loop().time() + 3)
    return found


def write_policy(folder: Path) -> str:
    (folder / "spam").mkdir(parents=True)
    (folder / "spam" / "policy.md").write_text(POLICY.text, "utf-8")
    (folder / "spam" / "policy.yaml").write_text(
        "categories:\n  S2: {violates: true, severity: high}\naction: hide\n", "utf-8"
    )
    (folder / "routes.yaml").write_text("default: [spam]\n", "utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("delivery", "mode"), [("at_least_once", "withhold"), ("exactly_once", "provisional")]
)
async def test_each_post_has_one_final_verdict_although_both_are_killed(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, delivery: str, mode: str
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_POLICIES__PATH=write_policy(tmp_path / "policies"),
        STREAM_GUARD_POLICIES__ARCHIVE="off",
        STREAM_GUARD_DELIVERY__MODE=delivery,
        STREAM_GUARD_BATCHING__POLL_RECORDS_MAX="20",
    )
    small, large = two_deployments(
        place, new_topic("escalations"), STREAM_GUARD_CASCADE__ESCALATION=mode
    )
    posts = list(POSTS.items())
    reading = asyncio.create_task(final_verdicts(place, set(POSTS)))
    with (
        running(small, tmp_path / "small-1", APP) as first,
        running(large, tmp_path / "large-1", APP) as second,
    ):
        first.wait_for("ready")
        second.wait_for("ready")
        await send(small, posts[:160])
        second.end(signal.SIGKILL)
        await send(small, posts[160:240])
        first.end(signal.SIGKILL)
    with (
        running(small, tmp_path / "small-2", APP) as first,
        running(large, tmp_path / "large-2", APP),
    ):
        await send(small, posts[240:])
        found = await reading
        assert {name: len(verdicts) for name, verdicts in found.items()} == dict.fromkeys(POSTS, 1)
        for name, [verdict] in found.items():
            one, other = POSTS[name].split()
            escalated = one in ("severe", "unclear")
            assert len(verdict.escalated) == escalated
            last = ANSWERS[other if escalated and (other, one) != ("unclear", "severe") else one]
            assert (verdict.decision, verdict.policy.category) == (last.decision, last.category)
        await until(lambda: '"event":"ready"' in first.log.read_text("utf-8"))
        while (shown := await health(first))["escalations"]["lag_records"] != 0:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        assert shown["escalations"]["wait_s"] == 0
        environment = {**small.environment(), "STREAM_GUARD_ENGINE__KIND": "scripted"}
        checked = run_command(environment, "check")
        assert checked.returncode == 0, checked.stdout
        assert "is 0 offsets behind" in checked.stdout


async def test_a_larger_model_that_is_away_loses_nothing_and_shows(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_POLICIES__PATH=write_policy(tmp_path / "policies"),
        STREAM_GUARD_POLICIES__ARCHIVE="off",
    )
    small, large = two_deployments(
        place,
        new_topic("escalations"),
        STREAM_GUARD_CASCADE__ESCALATION="withhold",
        STREAM_GUARD_CASCADE__ESCALATION_DEADLINE_S="1",
    )
    with running(small, tmp_path / "small", APP) as first:
        first.wait_for("ready")
        await send(small, [("p0", "severe safe")])
        async with VerdictConsumer(
            place.bootstrap, group_id="reader", topic=place.verdicts, decisions=None
        ) as verdicts:
            async with asyncio.timeout(HANG_S):
                late = await anext(aiter(verdicts))
                assert late.provisional
                assert late.provenance.degraded == ("escalation_late",)
                while not (await health(first))["escalations"]["wait_s"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
                assert (await health(first))["escalations"]["lag_records"] == 1
            with running(large, tmp_path / "large", APP):
                async with asyncio.timeout(HANG_S):
                    final = await anext(aiter(verdicts))
                assert final.supersedes == late.id
                assert (final.decision, final.provisional) == ("safe", False)
