"""npm's @kafkajs/confluent-schema-registry, a client of others than Confluent: each reads what the other writes.

The registry is the stand-in of ``tests/registry.py``, over HTTP. The packages come from npm, once, into .cache.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from stream_guard.core.errors import JsonError
from stream_guard.kafka.registry.output import open_output
from stream_guard.records.dead_letter_event import build_dead_letter
from stream_guard.records.verdict_event import VerdictEvents
from stream_guard.settings import KafkaSettings
from stream_guard.testing import MemoryRecord
from tests.contract.test_avro_output import settings_of
from tests.contract.test_other_languages import BIN, CACHE, NODE, execute
from tests.contract.test_registry_formats import Written, read
from tests.registry import start_registry
from tests.verdicts import make_verdict

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
    for script in ("write.mjs", "read.mjs"):
        shutil.copy(TOOLS / script, folder)
    return folder / "write.mjs"


def test_records_of_the_npm_client_are_read(writer: Path) -> None:
    with start_registry() as server:
        written = json.loads(execute([*NODE, writer, server.url], writer.parent))
        assert set(written) == {"avro", "protobuf", "json_schema"}
        for form, encoded in written.items():
            record = Written(base64.b64decode(encoded), [])
            for setting in (form, "auto"):
                post, document = read(server, record, format=setting, author="/author/id")
                assert document == (WRITTEN if form == "json_schema" else FULL)
                assert (post.id, post.text) == ("p1", "héllo")
                assert post.author == (None if form == "json_schema" else "a1")


def test_the_npm_client_reads_verdicts_and_dead_letters_in_avro(writer: Path) -> None:
    with start_registry() as server:
        outputs = asyncio.run(open_output(settings_of(server.url)))
        assert outputs is not None
        verdict = make_verdict(decision="violates", category="S1")
        value, _ = VerdictEvents(0).encode(verdict, "", outputs.verdicts["v"])
        record = MemoryRecord("posts", 3, 41, 99, b"key", b"\xff", [("h", b"1")])
        letter = outputs.dead_letters.wrap(
            build_dead_letter(
                record,
                JsonError("line 1"),
                kafka=KafkaSettings(),
                failed_ms=5,
                policy_id="spam",
                attempts=1,
            )
        )
        values = [base64.b64encode(each or b"").decode() for each in (value, letter.value)]
        output = execute([*NODE, writer.with_name("read.mjs"), server.url, *values], writer.parent)
        read_verdict, read_letter = json.loads(output)
    for part in ("id", "decision", "source", "policy", "timing"):
        assert read_verdict[part] == verdict[part]
    assert (read_letter["reason"], read_letter["offset"], read_letter["policy"]) == (
        "json", 41, "spam",
    )  # fmt: skip
    assert bytes(read_letter["value"]["data"]) == b"\xff"
