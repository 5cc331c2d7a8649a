"""``stream-guard console`` as a process: the address that it prints, and its end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp

from tests.hang import HANG_S

ROOT = Path(__file__).parents[3]


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "STREAM_GUARD_" not in name}
    return kept | {"STREAM_GUARD_CONSOLE__PORT": "0"} | settings


async def _signs_in(url: str, token: str) -> None:
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
        session.post(f"{url}/sign-in", data={"token": token}, headers={"Origin": url}) as answer,
    ):
        assert answer.status == 200
        assert answer.url.path == "/now"
        assert "local, lead" in await answer.text()


def test_the_printed_address_signs_in_and_the_command_ends_when_it_is_told_to(
    tmp_path: Path,
) -> None:
    log = tmp_path / "console.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream_guard", "console"],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"console: (http://127\.0\.0\.1:\d+)/sign-in#(\S+)\n", line)
        assert found is not None, line + log.read_text()
        url, token = found.groups()
        asyncio.run(_signs_in(url, token))
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_S) == 0
        assert token not in log.read_text()
    finally:
        process.kill()
        process.communicate()


def test_another_address_without_tokens_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stream_guard", "console"],
        cwd=ROOT,
        env=environment(STREAM_GUARD_CONSOLE__HOST="0.0.0.0"),  # noqa: S104 - that is what is refused
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 2
    assert "console.tokens_file (STREAM_GUARD_CONSOLE__TOKENS_FILE) is not set" in done.stderr
