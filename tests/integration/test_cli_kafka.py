"""``stream-guard produce`` and ``tail`` by a real broker: lines of a file in, verdicts out, and what is wrong named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import orjson
import pytest

from stream_guard.records.verdict_event import VerdictEvents
from tests.integration.harness import read, run_command
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def guard(broker: Broker, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")},
        "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "COLUMNS": "200",
        **settings,
    }
    return run_command(environment, *arguments)


async def test_lines_of_a_file_become_records_with_their_keys(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic, file = new_topic("posts"), tmp_path / "posts.jsonl"
    file.write_text('{"id":"1","text":"one","author":"a"}\n\nnot JSON\n')
    done = guard(broker, "produce", str(file), topic)
    assert (done.returncode, done.stderr.strip()) == (0, f"sent 2 records to {topic}")
    records = await read(broker.bootstrap_servers, [topic], lambda got: len(got) >= 2)
    assert {(r.key, r.value) for r in records} == {
        (b"a", b'{"id":"1","text":"one","author":"a"}'),
        (None, b"not JSON"),
    }


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_verdicts_are_shown_as_lines_and_as_json(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, mode: str
) -> None:
    topic, file = new_topic("verdicts", partitions=1), tmp_path / "verdicts.jsonl"
    made = [make_verdict(offset=n, decision="violates") for n in range(2)]
    events = VerdictEvents(0, mode)  # type: ignore[arg-type]
    file.write_bytes(b"\n".join(events.encode(verdict, TRACEPARENT)[0] for verdict in made))
    assert guard(broker, "produce", str(file), topic, "--key", "").returncode == 0
    options = ("--from-beginning", "--limit", "2")
    settings = {"STREAM_GUARD_KAFKA__VERDICT_TOPIC": topic}
    shown = guard(broker, "tail", "--json", *options, **settings)
    assert shown.returncode == 0, shown.stderr
    values = [orjson.loads(line) for line in shown.stdout.splitlines()]
    assert [value.get("data", value)["id"] for value in values] == [v["id"] for v in made]
    lines = guard(broker, "tail", *options, **settings).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["posts", "violates"]] * 2


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("produce", "missing.jsonl", "posts"), 2, "missing.jsonl"),
        (("produce", "README.md", "no-such-topic"), 3, "'no-such-topic' does not exist"),
        (("produce", "README.md", "posts", "--key", "no-pointer"), 2, "not a JSON pointer"),
        (("tail", "--limit", "1"), 3, "does not exist"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    broker: Broker, arguments: tuple[str, ...], code: int, what: str
) -> None:
    done = guard(broker, *arguments)
    assert done.returncode == code
    assert what in done.stderr
    assert "Traceback" not in done.stderr
