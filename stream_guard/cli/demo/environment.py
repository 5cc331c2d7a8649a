"""What the demos share: their folder, and the service's environment with sizes for a small CPU."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.cli.demo import MODEL, POLICIES
from stream_guard.cli.demo.posts import CHAT, FORUM
from stream_guard.cli.demo.stream import DEAD_LETTERS, VERDICTS
from stream_guard.cli.terminal import say, say_error
from stream_guard.core.errors import StreamGuardError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.testing.broker import start_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stream_guard.testing.broker import Broker

__all__ = ["OUTPUT", "copy_policies", "run_demo", "say_progress", "service_environment"]

OUTPUT: Final = Path("demo-output")
"""Where a demo keeps what it writes, in the folder where it runs."""


def say_progress(text: str) -> None:
    """Print what the demo does."""
    say(text, style="dim")


def copy_policies() -> Path:
    """Return a fresh copy of the demo's policies, which may be edited."""
    folder = OUTPUT / "policies"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(POLICIES, folder)
    return folder


def service_environment(broker: Broker, policies: Path) -> dict[str, str]:
    """Return the whole environment of ``stream-guard run``, on any free port.

    Args:
        broker: where the topics are.
        policies: the folder of policies.
    """
    return {
        **os.environ,
        "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "STREAM_GUARD_KAFKA__TOPICS": orjson.dumps([FORUM, CHAT]).decode(),
        "STREAM_GUARD_KAFKA__GROUP_ID": "stream-guard-demo",
        "STREAM_GUARD_KAFKA__VERDICT_TOPIC": VERDICTS,
        "STREAM_GUARD_KAFKA__DEAD_LETTER_TOPIC": DEAD_LETTERS,
        "STREAM_GUARD_POLICIES__PATH": str(policies),
        "STREAM_GUARD_DECISIONS__ENABLED": "true",
        "STREAM_GUARD_ENGINE__MODEL": os.environ.get("STREAM_GUARD_ENGINE__MODEL", str(MODEL)),
        "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "32",
        "STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX": "96",
        "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "48",
        "STREAM_GUARD_HTTP__HOST": "127.0.0.1",
        "STREAM_GUARD_HTTP__PORT": "0",
        "STREAM_GUARD_TELEMETRY__LOG_FORMAT": "json",
        # A model this small gains nothing from threads, and they wait for each other on a busy machine.
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }


def run_demo(run: Callable[[Broker], Coroutine[Any, Any, int]], *topics: str) -> int:
    """Start a broker with these topics, run a demo on it, and return the demo's exit code, or an error's."""
    OUTPUT.mkdir(exist_ok=True)
    try:
        with start_broker(progress=say_progress) as broker:
            say_progress(broker.description)
            broker.create_topics(*topics, partitions=2)
            return asyncio.run(run(broker))
    except StreamGuardError as error:
        say_error(str(error))
        return error.exit_code
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("interrupted; everything that the demo started is stopped")
        return ExitCode.INTERRUPTED
