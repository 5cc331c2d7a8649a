"""A backfill gives the verdicts that the service gave, and writes them to a topic once; on a real broker.

``BACKFILL_POSTS`` makes the comparison larger.
"""

from __future__ import annotations

import asyncio
import copy
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import pytest

from stream_guard.cli.demo import POLICIES
from stream_guard.core.errors import BrokerError
from stream_guard.kafka.part_writer import HEADER, PartWriter
from stream_guard.offline.backfill.block_judge import BlockJudge, Task
from stream_guard.offline.backfill.places import place_of
from stream_guard.offline.backfill.publishing import Publishing
from stream_guard.offline.backfill.run import cut_source
from stream_guard.offline.backfill.store import Store
from stream_guard.offline.backfill.topic import TopicSource
from stream_guard.policies.store import read_policy_files
from stream_guard.records.decision import encode_decision
from stream_guard.settings import load_settings
from tests.decisions import make_decision
from tests.integration.harness import (
    deploy,
    post,
    produce,
    read,
    run_command,
    run_python,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.offline.backfill.blocks import Block
    from stream_guard.testing import Broker
    from tests.integration.harness import Deployment

POSTS = int(os.environ.get("BACKFILL_POSTS", "2000"))
SLUG = "selling"


def write_policy(folder: Path) -> None:
    """Write a policy with rules, so that more than one tier decides."""
    place = folder / SLUG
    place.mkdir(parents=True)
    (place / "policy.md").write_text(
        "# Selling\n\n## Violates (S1 - Offers)\n- S1.a offers of goods\n\n## Safe (S0 - Rest)\n",
        "utf-8",
    )
    (place / "policy.yaml").write_text("action: remove\nanswer: structured\n", "utf-8")
    rules = "rules:\n  - {id: words, outcome: violates, category: S1, terms: [for sale]}\n"
    (place / "rules.yaml").write_text(rules, "utf-8")
    (folder / "routes.yaml").write_text(f"default: [{SLUG}]\n", "utf-8")


def text_of(number: int) -> str:
    return ("a [violates] post", "a bicycle for sale,", "a post about nothing")[min(number % 7, 2)]


@pytest.fixture
def place(broker: Broker, new_topic: Callable[..., str], tmp_path: Path) -> Deployment:
    write_policy(tmp_path / "policies")
    made = deploy(broker.bootstrap_servers, new_topic)
    made.extra.update(
        {
            "STREAM_GUARD_POLICIES__PATH": str(tmp_path / "policies"),
            "STREAM_GUARD_POLICIES__ARCHIVE": "off",
            "STREAM_GUARD_KAFKA__BREAKER_TOPIC": f"breaker-{made.posts}",
            "STREAM_GUARD_KAFKA__DECISION_TOPIC": f"decisions-{made.posts}",
        }
    )
    return made


def comparable(verdict: dict[str, Any]) -> dict[str, Any]:
    """Return a verdict without its times."""
    found = copy.deepcopy(verdict)
    del found["timing"]
    for step in found["provenance"]["trail"]:
        del step["duration_us"]
    return found


async def test_the_verdicts_are_those_of_the_live_service(
    place: Deployment, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    values = [post(number, text_of(number)) for number in range(POSTS)]
    with running(place, tmp_path / "log") as run:
        await asyncio.to_thread(run.wait_for, "ready")
        await produce(place.bootstrap, place.posts, [*values, b"not JSON"])
        live = await read(place.bootstrap, [place.verdicts], lambda got: len(got) >= POSTS)
        assert run.end() == 0, run.tail()
    out, state = new_topic("history"), tmp_path / "state"
    words = ("backfill", f"topic:{place.posts}", "--policy", SLUG, "--out", f"topic:{out}")
    more = ("--state", str(state), "--actors", "2", "--cpus", "0.5", "--block-posts", "300")
    done = await asyncio.to_thread(run_command, place.environment(), *words, *more, "--json")
    assert done.returncode == 0, done.stderr
    report = orjson.loads(done.stdout)
    assert (report["posts"], report["verdicts"]) == (POSTS, POSTS)
    assert report["refused"] == {"json": 1}
    assert report["published"]["verdicts"] == POSTS
    assert done.stderr == "", "nothing of Ray's own reaches the terminal"

    there = {v["id"]: comparable(v) for v in (orjson.loads(record.value) for record in live)}
    rows = pq.read_table(state / "verdicts").to_pylist()
    stored = [orjson.loads(row["verdict"]) for row in rows]
    assert len(stored) == len(there) == POSTS
    assert {verdict["id"]: comparable(verdict) for verdict in stored} == there
    (letter,) = pq.read_table(state / "dead-letters").to_pylist()
    assert (letter["reason"], letter["value"]) == ("json", b"not JSON")

    published = await read(place.bootstrap, [out], lambda got: len(got) >= POSTS)
    assert {
        verdict["id"]: comparable(verdict)
        for verdict in (orjson.loads(record.value) for record in published)
    } == there
    assert len(published) == POSTS
    assert all(HEADER in dict(record.headers) for record in published)
    keys = {orjson.loads(record.value)["id"]: record.key for record in live}
    assert all(keys[orjson.loads(record.value)["id"]] == record.key for record in published)


def test_an_actor_closes_its_engine_before_it_ends(tmp_path: Path) -> None:
    posts = tmp_path / "posts.jsonl"
    posts.write_bytes(b"\n".join(post(number, "rain on Friday") for number in range(4)))
    # Ray's sockets are below its folder, and a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as logs:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")},
            "RAY_TMPDIR": logs,
            "STREAM_GUARD_POLICIES__PATH": str(POLICIES),
            "STREAM_GUARD_ENGINE__MODEL": "demo",
            "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "4",
            "STREAM_GUARD_CASCADE__LADDER": "[]",
        }
        words = ("backfill", str(posts), "--policy", "house-rules", "--out", str(tmp_path / "out"))
        done = run_command(environment, *words, "--actors", "1", "--cpus", "1", "--json")
        assert done.returncode == 0, done.stderr
        said = [file.read_text() for file in Path(logs).glob("*/session_2*/logs/worker-*.[eo]*")]
    assert any("BlockActor" in one for one in said), said
    assert not [one for one in said if "engine_died" in one]


async def judged(
    place: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, posts: int
) -> tuple[Task, Store, list[Block]]:
    """Judge records of a topic in this process, in blocks of 10 offsets."""
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    await produce(
        place.bootstrap, place.posts, [post(number, "[violates]") for number in range(posts)]
    )
    task = Task(
        load_settings(None),
        TopicSource(place.posts),
        read_policy_files(tmp_path / "policies"),
        (SLUG,),
    )
    store = Store(place_of(str(tmp_path / "state"), "--state"), "--state")
    blocks = await cut_source(task, 10)
    store.begin({}, blocks)
    async with BlockJudge(task) as judge:
        for block in blocks:
            store.write(block, await judge.judge(block))
    return task, store, blocks


async def verdicts_in(place: Deployment, topic: str, count: int) -> list[dict[str, Any]]:
    records = await read(place.bootstrap, [topic], lambda got: len(got) >= count)
    return [orjson.loads(record.value) for record in records]


async def test_a_run_that_dies_between_blocks_leaves_each_verdict_in_the_topic_once(
    place: Deployment,
    new_topic: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, store, blocks = await judged(place, tmp_path, monkeypatch, 60)
    out = new_topic("history")

    class DiedError(Exception):
        pass

    def die(published: int) -> None:
        if published == 3:
            raise DiedError

    async def publish(moved: Callable[[int], None]) -> Publishing:
        one = Publishing(task, store, out, store.run_id(), enforce=False)
        await one.run(blocks, moved)
        return one

    with pytest.raises(DiedError):
        await publish(die)
    # The note of the last block was lost with the process.
    store.note_published({"blocks": 2, "verdicts": 20, "limited": 0, "decided": 0})
    seen: list[int] = []
    second = await publish(seen.append)
    assert seen[0] == 3, "it goes on behind what is in the topic"
    assert second.published.verdicts == 60
    third = await publish(seen.append)
    assert third.published.verdicts == 60
    ids = [verdict["id"] for verdict in await verdicts_in(place, out, 60)]
    assert len(ids) == len(set(ids)) == 60


async def test_a_run_that_was_replaced_writes_no_more(
    place: Deployment,
    new_topic: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, store, blocks = await judged(place, tmp_path, monkeypatch, 20)
    out = new_topic("history")
    async with PartWriter(task.settings, out, "run") as old:
        await old.write(0, store.read(blocks[0]))
        async with PartWriter(task.settings, out, "run") as new:
            assert await new.position() == 1
            with pytest.raises(BrokerError, match="another run of this backfill"):
                await old.write(1, store.read(blocks[1]))
            await new.write(1, store.read(blocks[1]))
            assert await new.position() == 2


async def test_enforced_verdicts_pass_the_limits_and_leave_out_what_people_decided(
    place: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    limit = [{"action": "remove", "policy": "*", "actions_max": 25}]
    place.extra.update(
        {
            "STREAM_GUARD_ACTIONS__LIMITS": orjson.dumps(limit).decode(),
            "STREAM_GUARD_DECISIONS__ENABLED": "true",
        }
    )
    task, store, blocks = await judged(place, tmp_path, monkeypatch, 60)
    overturned = store.read(blocks[2])[0].verdict
    decision = make_decision(
        content=overturned["content"],
        policy={"id": SLUG, "sha256": task.policies()[0].sha256},
        source=overturned["source"],
    )
    topic = task.settings.kafka.decision_topic
    broker.create_topics(topic, partitions=1, configs={"cleanup.policy": "compact"})
    key, value, _ = encode_decision(decision)
    await produce_one(place.bootstrap, topic, key, value)

    publishing = Publishing(task, store, place.verdicts, store.run_id(), enforce=True)
    await publishing.run(blocks, lambda _: None)
    assert publishing.published.decided == 1
    assert publishing.published.verdicts == 59
    assert publishing.published.limited == 59 - 25
    found = await verdicts_in(place, place.verdicts, 59)
    actions = [verdict["action"] for verdict in found]
    assert (actions.count("remove"), actions.count("review")) == (25, 34)
    assert overturned["id"] not in {verdict["id"] for verdict in found}
    limited = [verdict for verdict in found if verdict["action"] == "review"]
    assert all("action_limited" in one["provenance"]["degraded"] for one in limited)
    assert all("action_limited" in one["review_reasons"] for one in limited)


async def produce_one(bootstrap: str, topic: str, key: bytes, value: bytes) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    await producer.send_and_wait(topic, value, key=key)
    await producer.stop()


_GONE = """
import io, sys, time
from contextlib import redirect_stderr, redirect_stdout

import ray
from ray._private.utils import publish_error_to_driver
from stream_guard.offline.backfill.cluster import Cluster, open_cluster

out, err = io.StringIO(), io.StringIO()
with redirect_stdout(out), redirect_stderr(err), open_cluster(Cluster()):
    client = ray._private.worker.global_worker.gcs_client
    while "a node is gone" not in out.getvalue() + err.getvalue():
        publish_error_to_driver("node_died", "a node is gone", client)
        time.sleep(0.1)
sys.exit(out.getvalue() or 0)
"""


def test_what_ray_says_of_a_cluster_is_not_among_the_data_on_stdout() -> None:
    done = run_python("-c", _GONE)
    assert done.returncode == 0, done.stderr
