"""What npm's @kafkajs/confluent-schema-registry writes is read: a second client, written by others than Confluent.

The registry is the stand-in of ``tests/registry.py``, over HTTP. The packages come from npm, once, into .cache.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.test_other_languages import BIN, CACHE, execute
from tests.contract.test_registry_formats import Written, read
from tests.registry import start_registry

TOOLS: Final = Path(__file__).parent / "registry_tools"
WRITTEN: Final[dict[str, Any]] = {"id": "p1", "text": "héllo"}
FULL: Final[dict[str, Any]] = {
    **WRITTEN,
    "raw": "/9g=",
    "kind": "POST",
    "author": {"id": "a1"},
    "counts": {"likes": 3},
}


@pytest.fixture(scope="session")
def writer() -> Path:
    """The script with its packages, fetched once for each lock file."""
    lock = hashlib.sha256((TOOLS / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = CACHE / f"registry-{lock}"
    if not (folder / "node_modules" / ".package-lock.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(TOOLS, folder)
        command = [BIN / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        execute(command, folder, fetches="the npm packages of tests/contract/registry_tools")
    shutil.copy(TOOLS / "write.mjs", folder)
    return folder / "write.mjs"


def test_records_of_the_npm_client_are_read(writer: Path) -> None:
    with start_registry() as server:
        written = json.loads(execute([BIN / "node", writer, server.url], writer.parent))
        assert set(written) == {"avro", "protobuf", "json_schema"}
        for form, encoded in written.items():
            record = Written(base64.b64decode(encoded), [])
            for setting in (form, "auto"):
                post, document = read(server, record, format=setting, author="/author/id")
                assert document == (WRITTEN if form == "json_schema" else FULL)
                assert (post.id, post.text) == ("p1", "héllo")
                assert post.author == (None if form == "json_schema" else "a1")
