"""The whole path by a real broker and the real program, with a judge that answers at once."""

from __future__ import annotations

import signal
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import jsonschema
import orjson
import pytest

from stream_guard.records.verdict_event import verdict_id, verdict_schema
from tests.integration.harness import (
    deploy,
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

POLICIES = ("age-restricted-goods-and-services", "dangerous-content")
MALFORMED: dict[str, bytes | None] = {
    "tombstone": None,
    "encoding": b'{"id":"1","text":"\xff"}',
    "json": b"{",
    "missing_field": b'{"id":"1"}',
    "field_type": b'{"id":"1","text":[]}',
    "too_large": b'{"id":"1","text":"' + b"x" * 70_000 + b'"}',
    "too_deep": b'{"id":"1","text":"x","a":' + b"[" * 70 + b"]" * 70 + b"}",
}


async def test_every_record_comes_out_as_its_verdicts_or_a_dead_letter(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    posts = [post(n, "[violates]" if n % 3 == 0 else "fine") for n in range(40)]
    await produce(place.bootstrap, place.posts, [*posts, *MALFORMED.values()])
    owed = len(POLICIES) * len(posts) + len(MALFORMED)
    with running(place, tmp_path / "log") as run:
        records = await read(
            place.bootstrap, [place.verdicts, place.dead], lambda got: len(owed_of(got)) >= owed
        )
        assert run.end() == 0, run.tail()
    verdicts = [orjson.loads(r.value) for r in records if r.topic == place.verdicts]
    dead = [r for r in records if r.topic == place.dead]
    validator = jsonschema.Draft202012Validator(verdict_schema())
    for verdict in verdicts:
        validator.validate(verdict)
    assert len(verdicts) == len(POLICIES) * len(posts)
    assert {dict(r.headers)["sg_reason"].decode() for r in dead} == set(MALFORMED)
    assert {r.value for r in dead} == set(MALFORMED.values())
    assert sum(v["decision"] == "violates" for v in verdicts) == len(POLICIES) * 14


async def test_verdicts_carry_cloudevents_headers_and_the_source_key(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    await produce(place.bootstrap, place.posts, [post(1)])
    with running(place, tmp_path / "log") as run:
        records = await read(place.bootstrap, [place.verdicts], lambda got: len(got) >= 2)
        assert run.end() == 0
    for record in records:
        headers = dict(record.headers)
        verdict = orjson.loads(record.value)
        assert record.key == b"k0"
        assert headers["ce_specversion"] == b"1.0"
        assert headers["ce_id"].decode() == verdict["id"]
        assert len(headers["traceparent"]) == 55
        policy = verdict["policy"]
        assert verdict["id"] == verdict_id(
            place.posts,
            verdict["source"]["partition"],
            verdict["source"]["offset"],
            policy["id"],
            policy["sha256"],
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_stop_in_mid_stream_loses_nothing(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, number: signal.Signals
) -> None:
    count = 20_000
    place = deploy(broker.bootstrap_servers, new_topic)
    await produce(place.bootstrap, place.posts, (post(n) for n in range(count)))
    with running(place, tmp_path / "first") as run:
        await read(place.bootstrap, [place.verdicts], lambda got: len(got) >= 3_000)
        code = run.end(number)
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL), run.tail()
    with running(place, tmp_path / "second") as run:
        records = await read(
            place.bootstrap,
            [place.verdicts],
            lambda got: len({(r.key, r.value[:80]) for r in got}) >= 2 * count,
        )
        assert run.end() == 0, run.tail()
    ids: dict[tuple[int, int, str], set[str]] = defaultdict(set)
    for record in records:
        verdict: dict[str, Any] = orjson.loads(record.value)
        source = verdict["source"]
        ids[source["partition"], source["offset"], verdict["policy"]["id"]].add(verdict["id"])
    assert len(ids) == 2 * count
    assert all(len(found) == 1 for found in ids.values())
    if number == signal.SIGTERM:
        assert len(records) == 2 * count, "a clean stop repeats nothing"


@pytest.mark.parametrize(
    ("name", "value", "code", "says"),
    [
        ("STREAM_GUARD_KAFKA__TOPICZ", "x", 2, "STREAM_GUARD_KAFKA__TOPICZ"),
        ("STREAM_GUARD_KAFKA__TOPICS", '["no-such-topic"]', 3, "no-such-topic"),
        ("STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9", 3, "127.0.0.1:9"),
        ("STREAM_GUARD_POLICIES__PATH", "no-such-folder", 2, "no-such-folder"),
    ],
)
def test_a_start_that_cannot_work_says_why_in_one_line_and_its_exit_code(
    broker: Broker, new_topic: Callable[..., str], name: str, value: str, code: int, says: str
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic, **{name: value})
    done = run_command(place.environment(), "run")
    assert done.returncode == code, done.stderr
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
