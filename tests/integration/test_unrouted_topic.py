"""A topic that the pattern catches and no policy judges: it is left alone, reported, and read once it has a route."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from tests.integration.harness import (
    deploy,
    get,
    health,
    owed_of,
    post,
    produce,
    read,
    run_command,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

TEXT = "# Touting\n\nAnswer `VIOLATES` or `SAFE`.\n\n## Violates (TT1 - Price)\n\n- TT1.a asks too much\n"


async def test_a_topic_without_a_route_stops_nobody_and_is_judged_once_it_has_one(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    (folder / "touting").mkdir(parents=True)
    (folder / "touting" / "policy.md").write_text(TEXT, "utf-8")
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_POLICIES__PATH=str(folder))
    routes = folder / "routes.yaml"
    routes.write_text(f"topics:\n  {place.posts}: [touting]\n", "utf-8")
    place.extra |= {
        "STREAM_GUARD_KAFKA__TOPICS": "[]",
        "STREAM_GUARD_KAFKA__TOPIC_PATTERN": place.posts,  # it must match the start of the name
        "STREAM_GUARD_KAFKA__METADATA_MAX_AGE_MS": "1000",
    }
    await produce(place.bootstrap, place.posts, [post(n) for n in range(10)])
    with running(place, tmp_path / "log") as run:
        await asyncio.to_thread(run.wait_for, "ready")
        await read(place.bootstrap, [place.verdicts], lambda got: len(owed_of(got)) >= 10)

        # It appears while the service runs, with records in it.
        stranger = new_topic(place.posts)
        await produce(place.bootstrap, stranger, [post(n) for n in range(100, 110)])
        warned = await asyncio.to_thread(run.wait_for, "topic_without_route")
        assert warned["topic"] == stranger
        assert (await health(run))["topics_without_route"] == [stranger]
        assert "stream_guard_topics_without_route 1.0" in await get(run, "/metrics")
        advised = run_command(place.environment(), "doctor")
        assert stranger in advised.stdout + advised.stderr, advised.stdout

        # The others are judged on.
        await produce(place.bootstrap, place.posts, [post(n) for n in range(10, 20)])
        judged = await read(place.bootstrap, [place.verdicts], lambda got: len(owed_of(got)) >= 20)
        assert {orjson.loads(one.value)["source"]["topic"] for one in judged} == {place.posts}
        assert run.end() == 0, run.tail()

    # A restart finds the topic there from the first.
    with running(place, tmp_path / "again") as run:
        assert (await asyncio.to_thread(run.wait_for, "topic_without_route"))["topic"] == stranger
        await produce(place.bootstrap, place.posts, [post(n) for n in range(20, 30)])
        await read(place.bootstrap, [place.verdicts], lambda got: len(got) >= 30)

        # With a route, its waiting records are judged, each once.
        routes.write_text(
            f"topics:\n  {place.posts}: [touting]\n  {stranger}: [touting]\n", "utf-8"
        )
        records = await read(place.bootstrap, [place.verdicts], lambda got: len(got) >= 40)
        found = [orjson.loads(one.value) for one in records]
        ids = sorted(v["content"]["id"] for v in found if v["source"]["topic"] == stranger)
        assert ids == sorted(f"p{n}" for n in range(100, 110))
        await asyncio.to_thread(run.wait_for, "policies_switched")
        assert run.end() == 0, run.tail()
