"""The chain of thought goes to its own topic, once for each verdict, and nowhere else; by the real engine."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import jsonschema
import orjson
import pytest

from tests.integration.harness import (
    HANG_S,
    ROOT,
    deploy,
    deploy_engine,
    owed_of,
    post,
    produce,
    read,
    running,
)
from tests.integration.test_replay import TEXT, write_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

SCHEMA = json.loads((ROOT / "stream_guard/records/schemas/reasoning-1.0.json").read_text("utf-8"))
POSTS = 8


async def metrics_once(port: int, line: str) -> str:
    """Return the page of metrics that has a line: a record can be read before its producer knows it was written."""
    page = ""
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(HANG_S):
            while line not in page.splitlines():
                await asyncio.sleep(0.05)
                async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    page = await answer.text()
    except TimeoutError:
        raise AssertionError(f"no line {line!r} within {HANG_S} s in:\n{page}") from None
    return page


async def test_what_the_model_thinks_goes_with_its_verdicts_and_nowhere_else(
    broker: Broker, new_topic: Callable[..., str], random_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "policies"
    write_policy(folder, TEXT)
    place = deploy_engine(
        broker.bootstrap_servers,
        new_topic,
        random_model,
        folder,
        STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX="24",
        STREAM_GUARD_CASCADE__LADDER='[{"effort": "high", "reasoning_tokens_max": 24}]',
    )
    topic = place.extra["STREAM_GUARD_KAFKA__REASONING_TOPIC"] = new_topic("reasoning")
    await produce(place.bootstrap, place.posts, [post(n) for n in range(POSTS)])

    def enough(records: list[Any]) -> bool:
        thoughts = len([record for record in records if record.topic == topic])
        return len(owed_of(r for r in records if r.topic != topic)) + thoughts >= 2 * POSTS

    with running(place, tmp_path / "log") as run:
        port = (await asyncio.to_thread(run.wait_for, "ready"))["http_port"]
        records = await read(place.bootstrap, [place.verdicts, topic], enough)
        metrics = await metrics_once(port, f"stream_guard_reasoning_records_total {float(POSTS)}")
        assert run.end() == 0, run.tail()
    verdicts = {r.value: orjson.loads(r.value) for r in records if r.topic == place.verdicts}
    thoughts = [orjson.loads(r.value) for r in records if r.topic == topic]
    assert sorted(one["verdict_id"] for one in thoughts) == sorted(
        verdict["id"] for verdict in verdicts.values()
    )
    by_id = {verdict["id"]: verdict for verdict in verdicts.values()}
    elsewhere = [*verdicts, run.log.read_bytes(), metrics.encode()]
    for one in thoughts:
        jsonschema.validate(one, SCHEMA)
        verdict = by_id[one["verdict_id"]]
        assert len(one["thoughts"]) == verdict["provenance"]["attempts"]
        for thought in one["thoughts"]:
            # As JSON writes it, without the quotes: that is how it would show up.
            written = orjson.dumps(thought["text"])[1:-1]
            assert len(written) > 20
            assert not any(written in place_ for place_ in elsewhere)


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_a_process_that_is_killed_leaves_no_verdict_without_its_thoughts(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, mode: str
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_DELIVERY__MODE=mode)
    topic = place.extra["STREAM_GUARD_KAFKA__REASONING_TOPIC"] = new_topic("reasoning")
    posts = 2_000
    command = ("tests.integration.thinking_app",)
    await produce(place.bootstrap, place.posts, [post(n, "secretwords") for n in range(posts)])
    with running(place, tmp_path / "first", command) as run:
        await read(place.bootstrap, [topic], lambda got: len(got) >= 100)
        run.process.kill()
        run.process.wait()
    with running(place, tmp_path / "second", command) as run:
        records = await read(
            place.bootstrap, [place.verdicts, topic], partial(all_told, topic, posts)
        )
        assert run.end() == 0, run.tail()
    verdicts = [r for r in records if r.topic == place.verdicts]
    thoughts = [orjson.loads(r.value)["verdict_id"] for r in records if r.topic == topic]
    ids = [orjson.loads(r.value)["id"] for r in verdicts]
    assert set(ids) == set(thoughts)
    assert len(set(ids)) == 2 * posts  # two policies
    if mode == "exactly_once":
        assert len(ids) == len(thoughts) == 2 * posts
    elsewhere = [*(r.value for r in verdicts), run.log.read_bytes()]
    assert not any(b"secretwords" in one for one in elsewhere)


def all_told(topic: str, posts: int, records: list[Any]) -> bool:
    """Whether each post has two verdicts, and each of these its thoughts."""
    thoughts = {orjson.loads(r.value)["verdict_id"] for r in records if r.topic == topic}
    return len(owed_of(r for r in records if r.topic != topic)) + len(thoughts) >= 4 * posts
