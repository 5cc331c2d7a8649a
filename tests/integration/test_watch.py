"""``stream-guard doctor`` and ``tail`` by a real broker: topics that are set badly, and the live view at a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_guard.records.verdict_event import VerdictEvents
from tests.integration.harness import HANG_S, ROOT, produce, run_command
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.testing import Broker

NOBODY = "127.0.0.1:9"


def environment(bootstrap: str, **settings: str) -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")},
        "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "STREAM_GUARD_ENGINE__KIND": "scripted",
        "COLUMNS": "200",
        **settings,
    }


def guard(bootstrap: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run_command(environment(bootstrap, **settings), *arguments)


def deployment(broker: Broker, **configs: str) -> dict[str, str]:
    """Make topics with these settings; return what names them."""
    mark = uuid.uuid4().hex[:8]
    names = [f"{kind}-{mark}" for kind in ("posts", "verdicts", "dead")]
    broker.create_topics(*names, partitions=2, configs=configs)
    return {
        "STREAM_GUARD_KAFKA__TOPICS": orjson.dumps(names[:1]).decode(),
        "STREAM_GUARD_KAFKA__VERDICT_TOPIC": names[1],
        "STREAM_GUARD_KAFKA__DEAD_LETTER_TOPIC": names[2],
    }


def findings(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert "Traceback" not in done.stderr
    document = orjson.loads(done.stdout)
    assert document["ok"] == (done.returncode == 0)
    found: list[dict[str, Any]] = document["findings"]
    return found


def test_doctor_finds_what_would_lose_posts_with_a_remedy_for_each(broker: Broker) -> None:
    place = deployment(
        broker,
        **{
            "cleanup.policy": "compact,delete",
            "retention.ms": "60000",
            "unclean.leader.election.enable": "true",
        },
    )
    done = guard(broker.bootstrap_servers, "doctor", "--json", **place)
    assert done.returncode == 0, done.stderr  # warnings alone
    posts = orjson.loads(place["STREAM_GUARD_KAFKA__TOPICS"])[0]
    mine = [one for one in findings(done) if one["name"] == f"topic {posts}"]
    for what in ("one replica", "unclean.leader.election", "compact", "retention.ms"):
        (found,) = (one for one in mine if what in one["detail"])
        assert found["level"] == "warning"
        assert found["remedy"]
    assert guard(broker.bootstrap_servers, "doctor", "--strict", **place).returncode == 2


def test_doctor_ends_with_an_error_where_the_service_would_stop(broker: Broker) -> None:
    place = deployment(broker, **{"max.message.bytes": "2000"})
    done = guard(broker.bootstrap_servers, "doctor", "--json", **place)
    assert done.returncode == 2
    errors = {one["name"]: one for one in findings(done) if one["level"] == "error"}
    for topic in ("VERDICT", "DEAD_LETTER"):
        name = place[f"STREAM_GUARD_KAFKA__{topic}_TOPIC"]
        assert "max.message.bytes" in errors[f"topic {name}"]["detail"]
    place["STREAM_GUARD_KAFKA__DEAD_LETTER_TOPIC"] = "no-such-topic"
    done = guard(broker.bootstrap_servers, "doctor", "--json", **place)
    assert done.returncode == 3  # as a start would end
    assert any(
        one["name"] == "topic no-such-topic" and "kafka-topics --create" in one["remedy"]
        for one in findings(done)
    )


async def test_doctor_sees_records_of_the_future(broker: Broker) -> None:
    from aiokafka import AIOKafkaProducer

    place = deployment(broker)
    posts = orjson.loads(place["STREAM_GUARD_KAFKA__TOPICS"])[0]
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    await producer.start()
    await producer.send_and_wait(posts, b"{}", timestamp_ms=int((time.time() + 3_000) * 1_000))
    await producer.stop()
    done = guard(broker.bootstrap_servers, "doctor", "--json", **place)
    (clock,) = (one for one in findings(done) if one["name"] == "clock")
    assert "from now" in clock["detail"]


def test_doctor_shows_marks_and_remedies_to_people(broker: Broker) -> None:
    done = guard(broker.bootstrap_servers, "doctor", **deployment(broker))
    assert done.returncode == 0, done.stderr
    assert "✓ broker: " in done.stdout
    assert "! topic posts-" in done.stdout
    assert "    raise it to 3" in done.stdout


@pytest.mark.parametrize(
    "arguments", [("doctor",), ("doctor", "--json"), ("tail",), ("tail", "--json")]
)
def test_an_unreachable_broker_is_one_clear_line(arguments: tuple[str, ...]) -> None:
    done = guard(NOBODY, *arguments, STREAM_GUARD_KAFKA__TOPICS='["posts"]')
    assert done.returncode == 3
    assert "Traceback" not in done.stderr + done.stdout
    told = done.stdout if arguments[0] == "doctor" else done.stderr
    (line,) = (line for line in told.splitlines() if "no Kafka broker answers" in line)
    assert NOBODY in line
    if arguments[0] == "tail":
        assert done.stderr.count("\n") == 1
    else:
        assert done.stderr == ""


def test_a_topic_that_does_not_exist_is_one_clear_line(broker: Broker) -> None:
    done = guard(broker.bootstrap_servers, "tail", STREAM_GUARD_KAFKA__VERDICT_TOPIC="nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "'nowhere' does not exist" in done.stderr
    done = guard(
        broker.bootstrap_servers, "doctor", "--json", STREAM_GUARD_KAFKA__TOPICS='["nowhere"]'
    )
    assert done.returncode == 3
    assert any("nowhere" in one["detail"] for one in findings(done) if one["level"] == "error")


async def test_at_a_terminal_tail_is_a_live_view(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic("verdicts", partitions=1)
    events = VerdictEvents(0, "binary")
    traceparent = f"00-{1:032x}-{1:016x}-00"
    made = [make_verdict(offset=n, decision="violates") for n in range(3)]
    values = [events.encode(one, traceparent)[0] for one in made]
    await produce(broker.bootstrap_servers, topic, [*values[:1], b"no verdict", *values[1:]])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs here
        [sys.executable, "-m", "stream_guard", "tail", "--from-beginning"],
        env=environment(
            broker.bootstrap_servers,
            STREAM_GUARD_KAFKA__VERDICT_TOPIC=topic,
            TERM="xterm",
            LINES="40",
        ),
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown, deadline_s = b"", time.monotonic() + HANG_S
    try:
        while not (b"100.0%" in shown and b"last" in shown and b"metrics: none at" in shown):
            assert time.monotonic() < deadline_s, shown[-2_000:]
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        while process.poll() is None and time.monotonic() < deadline_s:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    shown += os.read(ours, 65_536)
                except OSError:  # the other end has closed
                    break
        assert process.wait(HANG_S) == 130
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
    assert b"Traceback" not in shown
