"""``stream-guard round-trip`` tells a deployment that works from one that does not, by a real broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from tests.integration.harness import Deployment, deploy, run_command, running

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker


def round_trip(place: Deployment, *options: str) -> subprocess.CompletedProcess[str]:
    return run_command(place.environment(), "round-trip", place.posts, *options)


async def test_it_shows_the_verdict_of_its_own_post_also_where_fields_lie_deep(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_POST__ID="/message/id",
        STREAM_GUARD_POST__TEXT="/message/body/text",
        STREAM_GUARD_POST__FORMAT="cloudevents",
    )
    with running(place, tmp_path / "log") as run:
        run.wait_for("ready")
        bad, good = await asyncio.gather(
            asyncio.to_thread(round_trip, place, "--text", "[violates]"),
            asyncio.to_thread(round_trip, place),
        )
        assert run.end() == 0, run.tail()
    for done, decision in ((bad, "violates"), (good, "safe")):
        assert done.returncode == 0, done.stderr
        verdict = orjson.loads(done.stdout)
        assert verdict["decision"] == decision
        assert verdict["content"]["id"].startswith("round-trip-")


def test_a_dead_letter_and_silence_both_fail_and_say_so(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    silent = round_trip(place, "--timeout", "2")
    assert silent.returncode == 5
    assert "no verdict of the post came within 2 s" in silent.stderr
    place.extra["STREAM_GUARD_POST__MAX_TEXT_BYTES"] = "10"
    with running(place, tmp_path / "log") as run:
        run.wait_for("ready")
        dead = round_trip(place)
        assert run.end() == 0, run.tail()
    assert dead.returncode == 5
    assert "the post became a dead letter: too_large" in dead.stderr


def test_a_missing_topic_is_named(broker: Broker, new_topic: Callable[..., str]) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    place.posts = "no-such-topic"
    done = round_trip(place)
    assert done.returncode == 3
    assert "topic 'no-such-topic' does not exist" in done.stderr
