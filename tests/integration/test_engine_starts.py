"""An engine that starts and ends leaves nothing on stderr, however often it does so."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

from tests.hang import HANG_S
from tests.integration.harness import ROOT, deploy_engine

if TYPE_CHECKING:
    from pathlib import Path

STARTS: Final = 20


def test_twenty_engines_start_judge_and_end_without_a_word_on_stderr(random_model: Path) -> None:
    """The model has random weights, so a start takes seconds. Each engine is a new process."""
    environment = deploy_engine(
        "localhost:9092", lambda name: name, random_model, ROOT / "policies"
    ).environment()
    command = ("-m", "tests.integration.engine_starts", str(STARTS))
    done = subprocess.run(
        [sys.executable, *command, "one post", "--policy", "dangerous-content", "--json"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * HANG_S,
        check=False,
    )
    # vLLM's reader of outputs logged a traceback (EngineDeadError) if it found the engine's process gone.
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.count('"dangerous-content"') == STARTS
