"""An engine that dies or hangs delivers nothing more and says so; none outlives the process that made it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from stream_guard.core.errors import EngineError
from stream_guard.judging.engine import client as vllm_client
from tests.integration.harness import HANG_S, ROOT
from tests.integration.test_engine import (
    Collector,
    Scripted,
    core_process,
    engine_processes,
    engine_settings,
    judged,
    policy_set,
    requests,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
MAIN = """
import asyncio, pathlib, sys
from tests.integration.test_engine import core_process, engine_settings, policy_set
from stream_guard.judging.engine.judge import VllmJudge
from stream_guard.judging.families.registry import load_family

async def main():
    judge = VllmJudge(engine_settings(pathlib.Path(sys.argv[1])), load_family)
    await judge.start(policy_set())
    print(core_process().pid, flush=True)
    await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(main())
"""


def gone(process: psutil.Process) -> bool:
    """Whether it has ended; its entry may wait for the machine's first process, which collects orphans."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_killed_or_hanging_it_fails_and_can_be_started_again(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_client, "PROBE_TIMEOUT_S", 0.2)
    judge = Scripted(engine_settings(random_model))
    await judge.start(policy_set())
    collector = Collector()
    judge.submit(requests(3, context=[None, None]), collector.deliver)
    core_process().send_signal(signal.SIGKILL)
    error = await judge.wait_failed()
    assert isinstance(error, EngineError)
    assert "died" in str(error)
    judge.submit(requests(1), collector.deliver)
    await judge.close()
    assert collector.got == []
    assert engine_processes() == []

    judge = Scripted(engine_settings(random_model, request_timeout_s=0.5))
    await judge.start(policy_set())
    core = core_process()
    core.suspend()
    judge.submit(requests(3, context=[None, None]), collector.deliver)
    error = await judge.wait_failed()
    assert isinstance(error, EngineError)
    assert "hangs" in str(error)
    assert collector.got == []
    await judge.close()
    assert engine_processes() == []
    assert gone(core)


async def test_idle_it_fails_as_well(random_model: Path) -> None:
    judge = Scripted(engine_settings(random_model))
    await judge.start(policy_set())
    await judged(judge, requests(1))
    core_process().kill()
    assert isinstance(await judge.wait_failed(), EngineError)
    await judge.close()
    assert engine_processes() == []


def test_killed_the_main_process_takes_the_engine_with_it_and_nobody_has_a_word_to_say(
    random_model: Path, tmp_path: Path
) -> None:
    """Python's resource tracker names what a killed process has not cleaned up."""
    script = tmp_path / "main.py"
    script.write_text(MAIN, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script), str(random_model)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as main:
        assert main.stdout is not None
        assert main.stderr is not None
        core = psutil.Process(int(main.stdout.readline()))
        server = core.parent()
        assert server is not None
        main.kill()
        said = main.stderr.read()  # until its last holder has ended, which is the tracker
    _, alive = psutil.wait_procs([core, server], timeout=HANG_S)
    assert alive == []
    assert b"leaked" not in said
