"""The chain of thought goes to its own topic, once for each verdict, and nowhere else; by the real engine."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import jsonschema
import orjson
import pytest

from stream_guard.random_model import make_random_model
from tests.integration.harness import ROOT, deploy, owed_of, post, produce, read, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

SCHEMA = json.loads((ROOT / "stream_guard/schemas/reasoning-1.0.json").read_text("utf-8"))
POSTS = 8


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_thoughts_go_with_verdicts_and_nowhere_else(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, mode: str
) -> None:
    model = tmp_path / "model"
    make_random_model(model)
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_DELIVERY__MODE=mode,
        STREAM_GUARD_ENGINE__KIND="vllm",
        STREAM_GUARD_ENGINE__MODEL=str(model),
        STREAM_GUARD_ENGINE__MAX_NUM_SEQS="16",
        STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX="24",
        STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX="4",
        STREAM_GUARD_CASCADE__LADDER='[{"effort": "high", "reasoning_tokens_max": 24}]',
        OMP_NUM_THREADS="1",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
    )
    topic = place.extra["STREAM_GUARD_KAFKA__REASONING_TOPIC"] = new_topic("reasoning")
    await produce(place.bootstrap, place.posts, [post(n) for n in range(POSTS)])
    verdict_count = 2 * POSTS  # two policies

    def enough(records: list[Any]) -> bool:
        thoughts = sum(record.topic == topic for record in records)
        return len(owed_of(r for r in records if r.topic != topic)) + thoughts >= 2 * verdict_count

    with running(place, tmp_path / "log") as run:
        port = (await asyncio.to_thread(run.wait_for, "ready", 240))["http_port"]
        records = await read(place.bootstrap, [place.verdicts, topic], enough, 240)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/metrics") as answer,
        ):
            metrics = await answer.text()
        assert run.end() == 0, run.tail()
    verdicts = {r.value: orjson.loads(r.value) for r in records if r.topic == place.verdicts}
    thoughts = [orjson.loads(r.value) for r in records if r.topic == topic]
    assert f"stream_guard_reasoning_records_total {float(verdict_count)}" in metrics
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
