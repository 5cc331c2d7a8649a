"""The page about dead letters and the contract say what is so: headers, reasons, settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stream_guard.core import errors
from stream_guard.core.errors import PromptError, RecordError
from stream_guard.records.avro_contract import contract_of
from stream_guard.records.avro_output import AvroOutput
from stream_guard.records.dead_letter_event import build_dead_letter
from stream_guard.settings import DeadLetterSettings, KafkaSettings
from stream_guard.stream.dead_letter_gate import AT_ONCE
from stream_guard.testing import MemoryRecord

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "guides" / "dead-letters.md").read_text("utf-8")


def schema() -> dict[str, Any]:
    path = ROOT / "stream_guard" / "records" / "schemas" / "dead-letter-1.0.json"
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def table() -> set[str]:
    """Return the headers that the page's table names."""
    return {
        name
        for line in PAGE.splitlines()
        if line.startswith("| `sg_")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }


def headers(record: MemoryRecord, policy_id: str | None, *, avro: bool = False) -> dict[str, str]:
    kafka = KafkaSettings(dead_letter_bytes_max=1_024)
    letter = build_dead_letter(
        record,
        PromptError("too long"),
        kafka=kafka,
        failed_ms=1,
        policy_id=policy_id,
        attempts=2,
    )
    if avro:
        letter = AvroOutput(contract_of("dead-letter-1.0.avsc"), 7).wrap(letter)
    return {name: value.decode() for name, value in letter.headers if name.startswith("sg_")}


@pytest.mark.parametrize(
    ("record", "policy_id"),
    [
        (MemoryRecord("posts", 0, 0, -1, None, None), None),
        (
            MemoryRecord("p", 9, 9, 9, b"k" * 99_999, b"v" * 9_999, [("h", b"h" * 99_999)]),
            "spam",
        ),
    ],
)
def test_every_dead_letter_is_as_the_schema_says(
    record: MemoryRecord, policy_id: str | None
) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    for avro in (False, True):
        validator.validate(headers(record, policy_id, avro=avro))


def test_the_schema_names_every_header_that_there_is_and_no_other() -> None:
    largest = MemoryRecord("p", 9, 9, 9, b"k" * 99_999, b"v" * 9_999, [("h", b"h" * 99_999)])
    assert set(schema()["properties"]) == set(headers(largest, "spam", avro=True)) == table()


def test_the_page_names_every_reason_and_every_stage() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, RecordError)
        and kind is not RecordError
        and not issubclass(kind, errors.NotAPostError)  # these are skipped
    ]
    [reasons] = [line for line in PAGE.splitlines() if line.startswith("| `sg_reason`")]
    [stages] = [line for line in PAGE.splitlines() if line.startswith("| `sg_stage`")]
    assert set(re.findall(r"`(\w+)`", reasons)) == {kind.reason for kind in kinds} | {"sg_reason"}
    assert set(re.findall(r"`(\w+)`", stages)) == {kind.stage for kind in kinds} | {"sg_stage"}


def test_the_page_has_every_setting_with_its_default() -> None:
    for name, field in DeadLetterSettings.model_fields.items():
        assert f"| `dead_letters.{name}` | {field.default:g} |" in PAGE
    assert f"the first {AT_ONCE} are written at once" in PAGE
