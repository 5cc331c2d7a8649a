"""Each contract of the rooms catches a violation of it: one import too many, in a copy of the tree, fails the check."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NO_CODE = shutil.ignore_patterns("*.safetensors", "*.onnx", "*.json", "__pycache__")

# By contract: a module, and the import that it must not have.
VIOLATIONS = {
    "A room imports only from the rooms below it": (
        "policies/routing.py",
        "from stream_guard.stream.offsets import PartitionOffsets",
    ),
    "No circles, at any depth": (
        "core/clock.py",
        "from stream_guard.core.inactivity import __doc__ as one",
    ),
    "Model families know nothing of one another, and the registry alone knows them": (
        "judging/families/family.py",
        "import stream_guard.judging.families.harmony.tokens",
    ),
    "The client is light: wire formats and words, no policies and no judge": (
        "client/window.py",
        "from stream_guard.settings import Settings",
    ),
    "aiokafka only in its rooms": ("stream/offsets.py", "import aiokafka"),
    "vLLM only in the engine's room": ("judging/tiers/ladder.py", "import vllm"),
    "OpenTelemetry only where spans are made": ("stream/pipeline.py", "import opentelemetry"),
    "SQLAlchemy only in the review queue": ("cli/tail.py", "import sqlalchemy"),
    "Ray only in the backfill's cluster": ("offline/backfill/run.py", "import ray"),
    "Only harmony's own folder and the registry know harmony": (
        "judging/engine/judge.py",
        "import stream_guard.judging.families.harmony",
    ),
}


def check(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code and of the contracts."""
    copy = tmp_path_factory.mktemp("rooms")
    shutil.copytree(ROOT / "stream_guard", copy / "stream_guard", ignore=NO_CODE)
    shutil.copy(ROOT / "pyproject.toml", copy)
    # The other half of a circle: alone, it is no violation.
    half = copy / "stream_guard" / "core" / "inactivity.py"
    half.write_text(half.read_text("utf-8") + "\nimport stream_guard.core.clock\n", "utf-8")
    return copy


def test_the_tree_keeps_every_contract(tree: Path) -> None:
    done = check(tree)
    assert done.returncode == 0, done.stdout
    assert f"{len(VIOLATIONS)} kept, 0 broken" in done.stdout


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_violation_breaks_its_contract(tree: Path, contract: str) -> None:
    name, line = VIOLATIONS[contract]
    module = tree / "stream_guard" / name
    before = module.read_text("utf-8")
    module.write_text(f"{before}\n{line}\n", "utf-8")
    try:
        done = check(tree)
    finally:
        module.write_text(before, "utf-8")
    assert done.returncode == 1, done.stdout
    assert f"{contract} BROKEN" in done.stdout, done.stdout


def test_there_are_fourteen_rooms_and_no_loose_modules() -> None:
    house = ROOT / "stream_guard"
    entries = {each.name for each in house.iterdir() if each.name != "__pycache__"}
    assert {each for each in entries if (house / each).is_file()} == {
        "__init__.py",
        "__main__.py",
        "py.typed",
    }
    rooms = {each for each in entries if (house / each).is_dir()}
    assert len(rooms) <= 14
    for room in rooms:
        doc = (house / room / "__init__.py").read_text("utf-8")
        assert doc.startswith('"""'), room
