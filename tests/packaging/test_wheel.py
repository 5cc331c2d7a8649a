"""What is published can be installed by itself: wheel and sdist, without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.prefix) / "bin" / "uv"
POLICY = "# Spam\nVIOLATES: adverts\nSAFE: everything else\n"


def run(
    command: Sequence[str | Path], cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_GUARD_", "PYTHON"))}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of what git has, so that nothing that lies about gets in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    done = run(
        [UV, "build", "-q", "--no-build-isolation", "--python", sys.executable, "-o", out, source],
        out,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it depends on, in the pinned versions, and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    pins = folder / "pins.txt"
    text = (ROOT / "requirements/cpu.txt").read_text()
    pinned = re.findall(r"^([\w.-]+==[^\\\n]+)", text, re.MULTILINE)  # with markers, without hashes
    pins.write_text("\n".join(pinned))
    (wheel,) = built.glob("*.whl")
    for command in (
        [UV, "venv", "-q", "--python", sys.executable, folder / "venv"],
        [UV, "pip", "install", "-q", "--python", folder / "venv/bin/python", "-c", pins, wheel],
    ):
        done = run(command, folder)
        assert done.returncode == 0, done.stderr
    return folder / "venv" / "bin"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "policies/spam").mkdir(parents=True)
    (tmp_path / "policies/spam/policy.md").write_text(POLICY)
    return tmp_path


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"stream_guard"}
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "stream_guard").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= set(names), sorted(wanted - set(names))


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    done = run(
        [
            *(UV, "build", "-q", "--wheel", "--no-build-isolation"),
            *("--python", sys.executable, "-o", tmp_path / "out", source),
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (first,), (second,) = built.glob("*.whl"), (tmp_path / "out").glob("*.whl")
    assert zipfile.ZipFile(first).namelist() == zipfile.ZipFile(second).namelist()


def test_the_commands_work_without_an_engine(installed: Path, place: Path) -> None:
    assert not list((installed.parent / "lib").glob("*/site-packages/vllm"))
    shown = run([installed / "stream-guard", "--help"], place)
    assert shown.returncode == 0, shown.stderr
    assert "run" in shown.stdout
    shown = run([installed / "stream-guard", "config"], place)
    assert orjson.loads(shown.stdout)["kafka"]["verdict_topic"] == "stream-guard.verdicts"
    shown = run(
        [installed / "stream-guard", "policies", "show", "spam", "--path", "policies"], place
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_the_shipped_classifier_works_without_an_engine(installed: Path, place: Path) -> None:
    (place / "posts.jsonl").write_text('{"id": "a", "text": "you stupid idiot"}\n')
    command = [
        installed / "stream-guard",
        "policies",
        "score",
        "builtin:toxicity",
        "posts.jsonl",
    ]
    assert run(command, place).stdout.splitlines()[1:] == ["line 1: a: 1.0000"]


def test_check_says_what_is_missing(installed: Path, place: Path) -> None:
    done = run(
        [installed / "stream-guard", "check"],
        place,
        STREAM_GUARD_KAFKA__TOPICS='["posts"]',
        STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:9",
        STREAM_GUARD_ENGINE__MODEL=str(place / "no-model"),
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("✓", "✗"))]
    assert [line.split(":")[0] for line in lines] == [
        "✓ settings",
        "✓ policies",
        "✗ broker",
        "✓ tiers",
        "✗ engine",
        "✗ model",
    ]
    assert "stream-guard[gpu]" in done.stdout
    assert done.returncode == 3


def test_run_without_an_engine_says_what_to_install(installed: Path, place: Path) -> None:
    done = run(
        [installed / "stream-guard", "run"],
        place,
        STREAM_GUARD_KAFKA__TOPICS='["posts"]',
        STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:9",
    )
    assert done.returncode == 4
    assert "pip install 'stream-guard[gpu]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_client_works_without_an_engine(installed: Path, place: Path) -> None:
    program = "from stream_guard.client import VerdictConsumer as V; print(V.__name__)"
    assert run([installed / "python", "-c", program], place).stdout.strip() == "VerdictConsumer"
