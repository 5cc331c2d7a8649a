"""``make demo-console``, as a newcomer runs it: it shows verdicts until Ctrl-C, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import aiohttp
import psutil
import pytest
from lxml import html

from stream_guard.cli.demo.process import Program
from stream_guard.core.errors import EngineError
from tests.hang import HANG_S
from tests.integration.console.test_command import environment

if TYPE_CHECKING:
    from pathlib import Path


async def _verdicts_appear(url: str, token: str) -> None:
    """Sign in, and ask for the page Now until it counts a verdict."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        entered = await session.post(
            f"{url}/sign-in", data={"token": token}, headers={"Origin": url}
        )
        assert entered.status == 200
        async with asyncio.timeout(HANG_S):
            while not await _counts_a_verdict(session, url):  # noqa: ASYNC110 - a page of another process
                await asyncio.sleep(1)


async def _text(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as answer:
        assert answer.status == 200, url
        return await answer.text()


async def _counts_a_verdict(session: aiohttp.ClientSession, url: str) -> bool:
    tree = html.document_fromstring(await _text(session, f"{url}/now"))
    rows = tree.xpath("//tr[contains(normalize-space(th[1]), 'safe')]")
    counts = [cell.text_content().replace(",", "") for row in rows for cell in row.xpath("td")]
    return any(count.isdigit() and int(count) > 0 for count in counts)


def test_the_console_shows_verdicts_until_it_is_interrupted_and_all_of_it_ends(
    tmp_path: Path,
) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "stream_guard.cli.demo.console"],
        cwd=tmp_path,
        # make demo shows the real engine, and it starts here as it starts there.
        env=environment(STREAM_GUARD_ENGINE__KIND="scripted"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    seen: list[psutil.Process] = []
    try:
        assert demo.stdout is not None
        printed = ""
        while (found := re.search(r"(http://127\.0\.0\.1:\d+)/sign-in#(\S+)", printed)) is None:
            line = demo.stdout.readline()
            assert line, printed
            printed += line
        url, token = found.groups()
        asyncio.run(_verdicts_appear(url, token))
        seen = psutil.Process(demo.pid).children(recursive=True)
        assert len(seen) >= 6, "three watchdogs, Kafka, the console and the consumer"
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=HANG_S)
        assert demo.returncode == 0, printed + rest
        assert "Everything is stopped." in rest
        assert token not in (tmp_path / "demo-output" / "console.log").read_text()
    finally:
        demo.kill()
        demo.communicate()
    _, alive = psutil.wait_procs(seen, timeout=HANG_S)
    assert alive == []


async def test_a_program_that_cannot_start_is_named_with_its_own_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        variables = environment(STREAM_GUARD_CONSOLE__PORT=port) | {"PATH": os.environ["PATH"]}
        log = tmp_path / "console.log"
        async with Program("the console", "console", variables, log, print) as console:
            with pytest.raises(EngineError) as caught:
                await console.printed(HANG_S, waiting_for="the console is starting")
    assert "console.port (STREAM_GUARD_CONSOLE__PORT): cannot listen" in str(caught.value)
    assert "or 0 for a free one" in str(caught.value)
    assert str(log) in str(caught.value)
