"""Runs ``stream-guard classify`` many times in one process: each run starts the real engine, judges and ends it.

    python -m tests.integration.engine_starts COUNT ARGUMENT ...

vLLM's fork server is kept for all of them, because its imports take most of a start. The engine itself, its process and
its sockets are new each time.
"""

from __future__ import annotations

import sys

from stream_guard.cli.main import app
from stream_guard.judging.engine import core_process
from stream_guard.judging.engine.arguments import prepare_environment
from stream_guard.settings import load_settings


def main(count: int, arguments: list[str]) -> int:
    """Return 0 if every run did."""
    prepare_environment(load_settings().engine)
    core_process.start_server()
    try:
        for _ in range(count):
            app(["classify", *arguments], standalone_mode=False)
    finally:
        core_process.stop_server()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
