"""A backtest reads past the live service and touches nothing of it; what it reports is what was changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jsonschema
import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from stream_guard.records.verdict_event import verdict_schema
from tests.integration.harness import deploy, owed_of, post, produce, read, running
from tests.integration.test_replay import TEXT, command, write_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker
    from tests.integration.harness import Deployment

POSTS = 5_000


async def groups(bootstrap: str) -> dict[str, dict[Any, int]]:
    """Every group of the broker, and its positions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = {}
        for name, *_ in await admin.list_consumer_groups():
            positions = await admin.list_consumer_group_offsets(name)
            found[name] = {tp: place.offset for tp, place in positions.items()}
        return found
    finally:
        await admin.close()


async def verdicts_of(place: Deployment, count: int) -> list[Any]:
    return await read(place.bootstrap, [place.verdicts], lambda got: len(owed_of(got)) >= count)


async def feed(place: Deployment, stop: asyncio.Event) -> int:
    """Send posts until told to stop; return how many."""
    sent = 0
    while not stop.is_set():
        more = [post(POSTS + sent + n) for n in range(100)]
        await produce(place.bootstrap, place.posts, more)
        sent += 100
    return sent


async def test_five_thousand_records_are_judged_anew_beside_the_live_group(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    live, drafts = tmp_path / "live", tmp_path / "drafts"
    write_policy(live, TEXT)
    write_policy(drafts, TEXT.replace("TT1", "PR9"))
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_POLICIES__PATH=str(live))
    group = place.environment()["STREAM_GUARD_KAFKA__GROUP_ID"]
    texts = ("[violates]" if n % 7 == 0 else "fine" for n in range(POSTS))
    values = [post(n, text) for n, text in enumerate(texts)]
    with running(place, tmp_path / "log") as run:
        await asyncio.to_thread(run.wait_for, "ready")
        await produce(place.bootstrap, place.posts, [*values, b"not JSON"])
        before = await verdicts_of(place, POSTS)
        known = await groups(place.bootstrap)
        stop = asyncio.Event()
        feeding = asyncio.create_task(feed(place, stop))
        out = tmp_path / "out.jsonl"
        # What is fed from now on is later: the verdicts of all that was sent have been read.
        last_ms = max(orjson.loads(r.value)["source"]["timestamp_ms"] for r in before)
        end = datetime.fromtimestamp((last_ms + 1) / 1_000, UTC).isoformat()
        arguments = ("-p", str(drafts / "touting"), "-t", place.posts, "--to", end)
        done = await asyncio.to_thread(
            command, broker, place, "backtest", *arguments, "-o", str(out), "--json"
        )
        stop.set()
        later = await feeding
        after = await verdicts_of(place, POSTS + later)
        assert run.end() == 0, run.tail()
    assert done.returncode == 0, done.stderr
    report = orjson.loads(done.stdout)
    made = [orjson.loads(line) for line in out.read_bytes().splitlines()]

    # The live service: its topic has its own verdicts and nothing else, and its group its own positions.
    assert (
        Counter(orjson.loads(r.value)["policy"]["sha256"] for r in after).total() == POSTS + later
    )
    assert len({orjson.loads(r.value)["policy"]["sha256"] for r in after}) == 1
    assert len(before) == POSTS
    now = await groups(place.bootstrap)
    assert now.keys() == known.keys(), "no group but those that were there"
    assert sum(now[group].values()) == POSTS + 1 + later, "all that was sent is committed, no more"

    # The backtest: each record once, marked as never to be acted on.
    validator = jsonschema.Draft202012Validator(verdict_schema())
    for verdict in made:
        validator.validate(verdict)
        assert verdict["provenance"]["route_mode"] == "shadow"
        assert verdict["action"] == "none"
    places = {(v["source"]["partition"], v["source"]["offset"]) for v in made}
    assert len(places) == len(made) == report["judged"]
    assert (report["judged"], report["compared"]) == (POSTS, POSTS)
    assert report["unreadable"] in ({}, {"json": 1})  # the broken one was the last
    violating = sum(n % 7 == 0 for n in range(POSTS))
    assert report["flips"] == [
        {
            "old_decision": "violates",
            "old_category": "TT1",
            "old_labels": [],
            "new_decision": "violates",
            "new_category": "PR9",
            "new_labels": [],
            "count": violating,
        }
    ]
    assert report["same"] == POSTS - violating
    assert report["other_category"] == violating
    assert report["other_decision"] == 0


async def test_a_backtest_that_was_cut_goes_on_where_it_was(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    live, drafts = tmp_path / "live", tmp_path / "drafts"
    write_policy(live, TEXT)
    write_policy(drafts, TEXT + "- TT1.b more\n")
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_POLICIES__PATH=str(live))
    await produce(place.bootstrap, place.posts, [post(n) for n in range(60)])
    topic, file = new_topic("backtest"), tmp_path / "out.jsonl"
    start = ("backtest", "-p", str(drafts / "touting" / "policy.md"), "-t", place.posts, "--json")
    outputs: list[tuple[str, str]] = [("--output-topic", topic), ("-o", str(file))]
    for output in outputs:
        done = command(broker, place, *start, *output, "-n", "25")
        assert done.returncode == 0, done.stderr
        first = orjson.loads(done.stdout)
        assert (first["judged"], first["left_by_limit"]) == (25, 35)
        assert first["without_old_verdict"] == 25
        if output[0] == "-o":  # as a crash leaves it
            file.write_bytes(file.read_bytes()[:-10])
        done = command(broker, place, *start, *output, "--resume")
        assert done.returncode == 0, done.stderr
        whole = orjson.loads(done.stdout)
        assert (whole["judged"], whole["left_by_limit"]) == (60, 0)
        assert whole["of_an_earlier_run"] == (25 if output[0] == "--output-topic" else 24)
    written = await read(place.bootstrap, [topic], lambda got: len(got) >= 60)
    assert len(owed_of(written)) == len(written) == 60
    assert len(file.read_bytes().splitlines()) == 60
    done = command(broker, place, *start, "-o", str(file))
    assert done.returncode == 2
    assert "exists already" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--output-topic", "{verdicts}"], 2, "is kafka.verdict_topic"),
        (["--output-topic", "{dead}"], 2, "is kafka.dead_letter_topic"),
        (["--output-topic", "{posts}"], 2, "is --topic"),
        (["--output-topic", "stream-guard.policies"], 2, "is kafka.archive_topic"),
        (["--output-topic", "nowhere"], 3, "topic 'nowhere' does not exist"),
        (["--from", "tomorrow"], 2, "--from tomorrow: neither an offset nor a time"),
        (["--from", "2099-01-01"], 2, "topic '{posts}' has no record in that range"),
        (
            ["-o", "/nowhere/out.jsonl"],
            2,
            "--output /nowhere/out.jsonl: there is no folder /nowhere; create it",
        ),
        (["--resume"], 2, "--resume needs"),
        (["-t", "nowhere"], 3, "topic 'nowhere' does not exist"),
        (["-p", "/nowhere"], 2, "/nowhere: not a policy.md or a folder with one"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_one_line(
    broker: Broker,
    new_topic: Callable[..., str],
    tmp_path: Path,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    write_policy(tmp_path, TEXT)
    place = deploy(broker.bootstrap_servers, new_topic)
    await produce(place.bootstrap, place.posts, [post(1)])
    names = {"verdicts": place.verdicts, "dead": place.dead, "posts": place.posts}
    given = [one.format(**names) for one in arguments]
    start = ["backtest", "-p", str(tmp_path / "touting"), "-t", place.posts]
    done = command(broker, place, *start, *given)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert says.format(**names) in done.stderr
