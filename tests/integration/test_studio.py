"""``stream-guard studio`` with the demo model: other commands use its engine, and an edit changes verdicts at once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from stream_guard.cli import demo
from stream_guard.core.exit_codes import ExitCode
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCOOTER = "Does anybody have a scooter?"
SLUG = "house-rules"


class Studio:
    """A studio in a process of its own, and the environment in which commands find it."""

    def __init__(self, folder: Path) -> None:
        self.policy = folder / "policies" / SLUG / "policy.md"
        shutil.copytree(Path(demo.__file__).parent / "policies", folder / "policies")
        self.place = folder / "run" / "studio.sock"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")},
            "STREAM_GUARD_ENGINE__MODEL": "demo",
            "STREAM_GUARD_POLICIES__PATH": str(folder / "policies"),
            "STREAM_GUARD_STUDIO__SOCKET": str(self.place),
        }
        self.process = self._popen("studio", "--policy", SLUG)
        self.children: list[psutil.Process] = []

    def _popen(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stream_guard", *words],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def read_until(self, part: str) -> str:
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if part in line:
                return line.rstrip("\n")
        raise AssertionError(f"it ended without {part!r}: {''.join(seen)}")

    def classify(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return self.run("classify", "--policy", SLUG, *words, **settings)

    def run(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stream_guard", *words],
            env=self.environment | settings,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )

    def start_classify(self, file: Path) -> subprocess.Popen[str]:
        return self._popen("classify", "--policy", SLUG, str(file))

    def is_used(self) -> bool:
        """Return whether a command is connected."""
        found = psutil.Process(self.process.pid).net_connections(kind="unix")
        return sum(one.laddr == str(self.place) for one in found) > 1


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    running = Studio(tmp_path_factory.mktemp("studio"))
    try:
        running.read_until("judging by house-rules")
        running.children = psutil.Process(running.process.pid).children(recursive=True)
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def test_a_command_uses_the_warm_engine_and_imports_none(studio: Studio) -> None:
    result = studio.classify(SCOOTER, "--json", PYTHONPROFILEIMPORTTIME="1")
    verdict = json.loads(result.stdout)
    assert (verdict["decision"], verdict["policy"]["category"]) == ("violates", "HR2")
    assert verdict["provenance"]["engine_version"].startswith("vllm")
    assert "stream_guard.offline.studio.remote_judge" in result.stderr
    assert "| vllm" not in result.stderr


def test_an_explanation_comes_from_the_studio_too(studio: Studio) -> None:
    shown = studio.classify(SCOOTER, "--explain").stdout
    assert SCOOTER in shown
    assert "── reasoning ──" in shown


def test_a_saved_policy_judges_kept_posts_again_and_commands_use_the_new_text(
    studio: Studio,
) -> None:
    studio.type(SCOOTER)
    assert "violates HR2 (HR2.a) under house-rules@" in studio.read_until("under")
    text = studio.policy.read_text()
    studio.policy.write_text(text.replace("scooters", "umbrellas"))
    assert "1 of 1 verdict changed" in studio.read_until("saved house-rules@")
    assert "violates HR2 (HR2.a) -> safe" in studio.read_until("->")
    assert json.loads(studio.classify(SCOOTER, "--json").stdout)["decision"] == "safe"


def test_a_new_policy_judges_a_file_of_ones_own(studio: Studio, tmp_path: Path) -> None:
    """The README's commands, with the engine that is warm."""
    folder = tmp_path / "policies"
    command = [sys.executable, "-m", "stream_guard", "policies", "new", "touting", "--path", folder]
    subprocess.run(command, check=True)
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"id": "a", "text": "One chair, 40, collect it on Sunday"}\n')
    words = ["classify", "--policy", "touting", str(posts), "--json"]
    result = studio.run(*words, STREAM_GUARD_POLICIES__PATH=str(folder))
    verdict = json.loads(result.stdout)
    assert verdict["policy"]["id"] == "touting"
    assert verdict["provenance"]["tier"] == "safeguard"


def test_another_model_is_not_judged_by_this_engine(studio: Studio) -> None:
    result = studio.classify(SCOOTER, "--json", STREAM_GUARD_ENGINE__KIND="scripted")
    assert json.loads(result.stdout)["provenance"]["model"] == "scripted"
    assert "engine.kind is vllm there and scripted here" in result.stderr


def test_a_studio_that_is_killed_while_it_judges_takes_its_engine_with_it(
    studio: Studio, tmp_path: Path
) -> None:
    posts = tmp_path / "posts.jsonl"
    lines = (json.dumps({"id": str(n), "text": f"{SCOOTER} {n}"}) for n in range(2_000))
    posts.write_text("\n".join(lines))
    command = studio.start_classify(posts)
    _wait(studio.is_used)
    studio.process.send_signal(signal.SIGKILL)
    output, _ = command.communicate(timeout=HANG_S)
    assert command.returncode == ExitCode.ENGINE, output
    assert "ended while it judged" in output
    _wait(lambda: not any(_runs(child) for child in studio.children))


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _wait(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end_s, "it does not come about"
        time.sleep(0.02)
