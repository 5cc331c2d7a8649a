"""What docs/guides/testing.md shows on a real broker: its code, and the command that starts one."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from tests.commands.lines import ROOT, blocks, commands
from tests.hang import HANG_S

PAGE = "docs/guides/testing.md"
TOPICS = {"posts", "stream-guard.verdicts", "stream-guard.dead-letters"}


CODE = [
    "\n".join(line for _, line in block.lines)
    for block in blocks(PAGE, (ROOT / PAGE).read_text("utf-8"))
    if block.language == "python" and any("start_broker(" in line for _, line in block.lines)
]


def test_both_kinds_of_brokers_are_shown() -> None:
    assert len(CODE) == 2


@pytest.mark.parametrize("code", CODE, ids=["plain", "secured"])
def test_a_block_with_a_broker_runs(code: str) -> None:
    exec(compile(code, PAGE, "exec"), {"__name__": "page"})  # noqa: S102 - our own page


async def topics_at(servers: str) -> set[str]:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers)
    try:
        await consumer.start()
        return set(await consumer.topics())
    finally:
        await consumer.stop()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_prints_an_address_and_runs_until_a_signal(how: signal.Signals) -> None:
    (line,) = [c.bare for c in commands(PAGE) if "--topic" in c.bare]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *shlex.split(line)[1:]),
        cwd=ROOT,
        env={name: v for name, v in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(HANG_S):
        servers = (await process.stdout.readline()).decode().strip()
        assert await topics_at(servers) >= TOPICS
        process.send_signal(how)
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert out == b""
    assert b"Traceback" not in errors
    with pytest.raises(KafkaError):
        await topics_at(servers)
