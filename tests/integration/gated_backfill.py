"""A backfill whose blocks wait at a gate, so that a test kills what is in the middle of one.

``python -m tests.integration.gated_backfill POSTS OUT GATE ADDRESS``. An actor that begins a block makes the file
``GATE/begun-BLOCK-PROCESS`` and then waits until ``GATE/open`` has a number above the block's.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from stream_guard.offline.backfill.block_judge import Task
from stream_guard.offline.backfill.cluster import Cluster
from stream_guard.offline.backfill.files import FileReader, FileSource
from stream_guard.offline.backfill.places import place_of
from stream_guard.offline.backfill.run import Output, backfill
from stream_guard.offline.backfill.store import Store
from stream_guard.policies.store import read_policy_files
from stream_guard.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.offline.backfill.blocks import Block, Part, Row, Stretch

BLOCK_ROWS = 10
POLICY = "dangerous-content"


@dataclass(slots=True, frozen=True)
class GatedSource:
    """Files behind a gate."""

    files: FileSource
    gate: Path

    def __str__(self) -> str:
        return str(self.files)

    def identity(self) -> str:
        return self.files.identity()

    async def parts(
        self, settings: Settings, block_rows: int
    ) -> list[tuple[Part, Sequence[Stretch]]]:
        return await self.files.parts(settings, block_rows)

    async def open(self, settings: Settings) -> GatedReader:
        del settings
        return GatedReader(self.files, self.gate)


class GatedReader(FileReader):
    """Reads blocks that may pass."""

    def __init__(self, source: FileSource, gate: Path) -> None:
        super().__init__(source)
        self._gate = gate

    async def read(self, block: Block) -> list[Row]:
        (self._gate / f"begun-{block.index}-{os.getpid()}").touch()
        while block.index >= int((self._gate / "open").read_text() or 0):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.05)
        return await super().read(block)


def main() -> None:
    """Judge, and print the report."""
    posts, out, gate, address = sys.argv[1:]
    settings = load_settings(None)
    path = Path(posts)
    files = FileSource(place_of(str(path.parent), "SOURCE"), [path.name], settings.post)
    policies = read_policy_files(Path("policies"))
    task = Task(settings, GatedSource(files, Path(gate)), policies, (POLICY,))
    output = Output(Store(place_of(out, "--out"), "--out"))
    report = asyncio.run(
        backfill(
            task,
            output,
            Cluster(address, actors=2),
            block_rows=BLOCK_ROWS,
            progress=lambda *_: None,
        )
    )
    sys.stdout.buffer.write(orjson.dumps(report.describe()))


if __name__ == "__main__":
    main()
