"""A flood by one tenant on a real broker and the real engine: with lanes, the others do not wait until it is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
from aiokafka import AIOKafkaProducer

from tests.integration.harness import HANG_S, deploy_engine, get, owed_of, read, running
from tests.integration.test_reload import logged, write_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from stream_guard.testing import Broker

NOISY, QUIET, PAST = 150, 12, 3
ROUTES = """
default: [touting]
lanes:
  - name: forum
    goal_s: 600
    tenants:
      trial: {quota: {tokens_per_s: 0.001, burst_tokens: 1, past: undetermined}}
"""


def posts() -> Iterable[bytes]:
    """Yield a flood by one tenant, then one post of each of the others, and some of one past its quota."""
    tenants = ["noisy"] * NOISY
    tenants += [f"quiet-{number}" for number in range(QUIET)]
    # Its first post passes, since its bucket was full.
    tenants += ["trial"] * (1 + PAST)
    for number, tenant in enumerate(tenants):
        yield orjson.dumps({"id": f"p{number}", "text": f"post {number}", "tenant": tenant})


async def fill(bootstrap: str, topic: str) -> None:
    """Send all posts in one partition, so that one poll returns them in this order."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for value in posts():
            await producer.send(topic, value, partition=0)
        await producer.flush()
    finally:
        await producer.stop()


async def test_others_do_not_wait_for_a_flood(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, random_model: Path
) -> None:
    folder = tmp_path / "policies"
    write_policy(folder, "# Touting\n\nTT1 - Price: asks too much.\nAnswer `VIOLATES` or `SAFE`.\n")
    (folder / "routes.yaml").write_text(ROUTES, encoding="utf-8")
    place = deploy_engine(
        broker.bootstrap_servers,
        new_topic,
        random_model,
        folder,
        STREAM_GUARD_ENGINE__MAX_NUM_SEQS="2",
        STREAM_GUARD_ENGINE__IN_FLIGHT_REQUESTS_MAX="2",
        STREAM_GUARD_LANES__TENANTS_SHOWN="1",
    )
    await fill(place.bootstrap, place.posts)
    owed = NOISY + QUIET + 1 + PAST
    with running(place, tmp_path / "log") as run:
        await logged(run, "ready")
        records = await read(
            place.bootstrap, [place.verdicts], lambda got: len(owed_of(got)) >= owed
        )
        counted = f'stream_guard_lane_records_total{{lane="forum"}} {float(owed)}'
        async with asyncio.timeout(HANG_S):
            # A reader may see the last verdict before its acknowledgement is counted.
            while counted not in (page := await get(run, "/metrics")):  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.1)
        assert run.end() == 0, run.tail()
    assert len(owed_of(records)) == len(records) == owed
    verdicts = sorted(
        (orjson.loads(record.value) for record in records),
        key=lambda verdict: verdict["timing"]["published"],
    )
    past = [v for v in verdicts if v["provenance"]["degraded"]]
    assert [v["provenance"]["degraded"] for v in past] == [["quota_undetermined"]] * PAST
    assert {(v["content"]["tenant"], v["decision"]) for v in past} == {("trial", "undetermined")}
    judged = [v["content"]["tenant"] for v in verdicts if v not in past]
    quiet = [place for place, tenant in enumerate(judged) if tenant.startswith("quiet")]
    # In the order of the partition they would come last.
    assert max(quiet) < NOISY / 2, quiet
    assert f'stream_guard_quota_posts_total{{lane="forum",past="undetermined"}} {PAST}.0' in page
    assert 'stream_guard_tenant_tokens_per_second{lane="forum",tenant="noisy"}' in page
