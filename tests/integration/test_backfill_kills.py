"""A killed actor, a killed worker node and a killed driver lose nothing, and the output repeats nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pyarrow.parquet as pq
import pytest

from stream_guard.offline.backfill.cluster import BLOCKS_PER_ACTOR
from stream_guard.policies.store import load_policies
from stream_guard.records.verdict_event import verdict_id
from tests.hang import HANG_S
from tests.integration.gated_backfill import BLOCK_ROWS, POLICY

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = 20
ROWS = BLOCKS * BLOCK_ROWS
BROKEN = 7  # every such row is no post
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith(("STREAM_GUARD_", "RAY_"))},
    "PYTHONPATH": str(ROOT),
    "STREAM_GUARD_ENGINE__KIND": "scripted",
}


class Nodes:
    """The two nodes of a cluster."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self.address = self._said()

    def replace_worker(self) -> None:
        """Kill the second node, and start another in its place."""
        self._in.write("\n")
        self._in.flush()
        assert self._said() == "replaced"

    def _said(self) -> str:
        return self._out.readline().strip()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with (
        (tmp_path / "nodes.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.ray_nodes"],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        made = Nodes(process)
        assert made.address, (tmp_path / "nodes.log").read_text()[-2_000:]
        yield made


class Gate:
    """Lets blocks pass, and knows which have begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.open(0)

    def open(self, blocks: int) -> None:
        """Let the first so many blocks pass."""
        (self.folder / "new").write_text(str(blocks))
        (self.folder / "new").replace(self.folder / "open")

    def begun(self, first: int) -> dict[int, set[int]]:
        """Return the blocks from ``first`` on that each process has begun."""
        found: dict[int, set[int]] = {}
        for file in self.folder.glob("begun-*"):
            _, block, process = file.name.split("-")
            if int(block) >= first:
                found.setdefault(int(process), set()).add(int(block))
        return found

    def wait_for_two(self, driver: subprocess.Popen[bytes], first: int) -> list[int]:
        """Return two living actors, once each is in the middle of a block from ``first`` on."""
        deadline_s = time.monotonic() + HANG_S
        while time.monotonic() < deadline_s:
            living = [pid for pid in self.begun(first) if Path(f"/proc/{pid}").exists()]
            if len(living) >= 2:
                return living
            assert driver.poll() is None, "the driver ended early"
            time.sleep(0.05)
        raise AssertionError(f"no two actors began a block from {first} on: {self.begun(0)}")


@contextlib.contextmanager
def driver(tmp_path: Path, gate: Gate, address: str) -> Iterator[subprocess.Popen[bytes]]:
    words = (tmp_path / "posts.jsonl", tmp_path / "out", gate.folder, address)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.gated_backfill", *map(str, words)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_kills_lose_nothing_and_repeat_nothing(nodes: Nodes, tmp_path: Path) -> None:
    lines = [
        "{" if n % BROKEN == 0 else orjson.dumps({"id": f"p{n}", "text": f"a post {n}"}).decode()
        for n in range(1, ROWS + 1)
    ]
    (tmp_path / "posts.jsonl").write_text("\n".join(lines))
    gate = Gate(tmp_path / "gate")
    with driver(tmp_path, gate, nodes.address) as first:
        # An actor in the middle of a block.
        victim = gate.wait_for_two(first, 0)[0]
        assert all(len(blocks) <= BLOCKS_PER_ACTOR for blocks in gate.begun(0).values())
        os.kill(victim, signal.SIGKILL)
        gate.open(4)
        # A worker node, with the actor that is on it.
        gate.wait_for_two(first, 4)
        nodes.replace_worker()
        gate.open(8)
        # The driver.
        gate.wait_for_two(first, 8)
        first.kill()
    written = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "out/verdicts").glob("0*")}
    assert 0 < len(written) < BLOCKS
    gate.open(BLOCKS)
    with driver(tmp_path, gate, nodes.address) as second:
        output, _ = second.communicate(timeout=HANG_S)
        assert second.returncode == 0
    report = orjson.loads(output)
    refused = ROWS // BROKEN
    assert report["places"] == ROWS
    assert report["refused"] == {"json": refused}
    assert report["verdicts"] == ROWS - refused
    assert report["blocks_of_an_earlier_run"] >= len(written)

    # What was written before the driver died is as it was; the blocks that were begun twice are there once.
    files = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "out/verdicts").iterdir()}
    assert len(files) == BLOCKS
    assert written.items() <= files.items()
    policy = load_policies(ROOT / "policies").policies[POLICY]
    found = pq.read_table(tmp_path / "out/verdicts").to_pylist()
    expected = {
        verdict_id("posts.jsonl", 0, number, POLICY, policy.sha256): f"p{number}"
        for number in range(1, ROWS + 1)
        if number % BROKEN
    }
    assert len(found) == len(expected)
    assert {row["id"]: row["content_id"] for row in found} == expected
    dead = pq.read_table(tmp_path / "out/dead-letters").to_pylist()
    assert sorted(row["offset"] for row in dead) == list(range(BROKEN, ROWS + 1, BROKEN))
    begun_twice = [b for b in range(BLOCKS) if sum(b in one for one in gate.begun(0).values()) > 1]
    assert begun_twice, "nothing was in the middle of a block when it was killed"
