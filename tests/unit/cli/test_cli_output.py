"""What a command prints is its result, whatever the libraries under it print."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent
from typing import Final

COMMAND: Final = """
    import asyncio, os, subprocess, sys
    from stream_guard.cli.terminal import run_quietly

    async def work():
        print("from Python")
        os.write(1, b"from C\\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        return "result"

    print(run_quietly(work()))
"""


def test_what_an_engine_prints_is_not_part_of_a_commands_result() -> None:
    """As vLLM does: from Python, from C, and from the process that it starts."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(COMMAND)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "result\n"
    assert {"from Python", "from C", "from a child"} <= set(done.stderr.splitlines())
