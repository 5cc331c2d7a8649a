"""Verdicts go into review on a real broker in both delivery modes, people decide, and a rebuild says the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest
from jsonschema import Draft202012Validator

from stream_guard.records.contracts import writer_schema
from stream_guard.records.decision import parse_decision
from stream_guard.records.review_item import review_item_id
from tests.integration.harness import deploy, post, produce, read, run_command, running, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker
    from tests.integration.harness import Deployment

POSTS = 6
VERDICTS = 2 * POSTS  # two policies judge each post
TOKEN = "t" * 32
ITEM = Draft202012Validator(writer_schema("review-item-1.0.json"))


def review(place: Deployment, *words: str) -> Any:  # noqa: ANN401 - the printed JSON
    done = run_command(place.environment(), "review", *words, "--json")
    assert done.returncode == 0, done.stderr
    return orjson.loads(done.stdout)


def digest(place: Deployment, database: Path) -> str:
    done = run_command(place.environment(), "review", "rebuild", "--database", str(database))
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("sha256 ")[2].strip()


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_people_review_verdicts_and_a_rebuild_says_the_same(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, mode: str
) -> None:
    place = deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_DELIVERY__MODE=mode,
        STREAM_GUARD_REVIEW__SAMPLE='{"*": {"*": 1}}',
        STREAM_GUARD_REVIEW__SECOND_SHARE="0",
        STREAM_GUARD_REVIEW__DATABASE=str(tmp_path / "review.sqlite"),
        STREAM_GUARD_REVIEW__PORT="0",
        STREAM_GUARD_REVIEW__TOKENS_FILE=str(tmp_path / "tokens"),
        STREAM_GUARD_KAFKA__REVIEW_TOPIC=(items_topic := new_topic("review")),
        STREAM_GUARD_KAFKA__DECISION_TOPIC=(decisions := new_topic("decisions")),
        STREAM_GUARD_KAFKA__AUDIT_TOPIC=(audit := new_topic("audit")),
    )
    (tmp_path / "tokens").write_text(f"reviewer r-2 {TOKEN}\n")
    texts = ["[violates] You are an idiot", "The doors open at seven"]
    await produce(place.bootstrap, place.posts, [post(n, texts[n % 2]) for n in range(POSTS)])
    with running(place, tmp_path / "log"):
        records = await read(
            place.bootstrap, [place.verdicts, items_topic], lambda got: len(got) >= 2 * VERDICTS
        )
    verdicts = {orjson.loads(r.value)["id"] for r in records if r.topic == place.verdicts}
    items = [orjson.loads(r.value) for r in records if r.topic == items_topic]
    for item in items:
        ITEM.validate(item)
    assert len(verdicts) == VERDICTS
    assert {item["id"] for item in items} == set(map(review_item_id, verdicts))

    listed = review(place, "list")
    assert listed["counts"] == {"open": VERDICTS, "decided": 0, "withdrawn": 0}
    name = listed["items"][0]["id"]
    shown = review(place, "show", name, "--by", "r-1")
    assert shown["text"].startswith(tuple(texts))  # read from the post's own topic
    made = review(place, "decide", name, "safe", "--by", "r-1", "--reason", "a quotation")
    written = await read(place.bootstrap, [decisions], lambda got: len(got) >= 1)
    decision = parse_decision(written[0].key, written[0].value, written[0].headers)
    assert decision.id == made["id"]
    assert decision.about is not None
    assert decision.about.verdict_id == shown["verdict_id"]
    assert review(place, "list", "--state", "decided")["items"][0]["id"] == name
    await decide_over_http(place, tmp_path)
    entries = await read(place.bootstrap, [audit], lambda got: len(got) >= 5)
    asked = [(one.key.decode(), orjson.loads(one.value)["what"]) for one in entries]
    at_terminal = [("r-1", "show"), ("r-1", "lease"), ("r-1", "decide")]
    assert sorted(asked) == sorted([*at_terminal, ("r-2", "lease"), ("r-2", "decide")])
    assert {orjson.loads(one.value)["item_id"] for one in entries if one.key == b"r-1"} == {name}
    assert review(place, "stats")["items"] == {"open": VERDICTS - 2, "decided": 2, "withdrawn": 0}
    lived = digest(place, tmp_path / "review.sqlite")
    assert lived == digest(place, tmp_path / "another.sqlite")


async def decide_over_http(place: Deployment, folder: Path) -> None:
    """Serve the queue, and lease and decide one item."""
    command = ("stream_guard.cli.main", "review", "serve")
    with running(place, folder / "served", command) as served:
        log = folder / "served"
        await until(lambda: b"review queue: " in log.read_bytes())
        address = log.read_text().partition("review queue: ")[2].split()[0]
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:

            async def is_ready() -> bool:
                async with session.get(f"{address}/readyz") as answer:
                    return answer.status == 200

            while not await is_ready():  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.05)
            async with session.post(f"{address}/v1/leases", json={}) as answer:
                leased = await answer.json()
            path = f"{address}/v1/items/{leased['lease']['item_id']}/decision"
            body = {"decision": "violates", "action": "remove"}
            async with session.post(path, json=body) as answer:
                assert answer.status == 200, await answer.text()
        assert await asyncio.to_thread(served.end) == 0, served.tail()
