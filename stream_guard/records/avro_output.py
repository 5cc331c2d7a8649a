"""Writes verdicts and dead letters as Avro behind Confluent's frame. Imports fastavro.

A dead letter in Avro holds the record's own value and headers in its value. So no header of the record is beside the
frame, where ``__value_schema_id`` would name another schema. The ``sg_*`` headers stay, with ``sg_format: avro``.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import fastavro

from stream_guard.records.avro_contract import FORMAT_HEADER, restored
from stream_guard.records.dead_letter_event import (
    FIRST_HEADER,
    DeadLetterEvent,
    smaller_dead_letter,
)
from stream_guard.records.verdict_event import cut_verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.records.avro_contract import AvroContract
    from stream_guard.records.verdict_event import Headers

__all__ = ["AvroOutput", "AvroOutputs"]

_MAGIC: Final = b"\x00"
_FRAME_BYTES: Final = 5
_PREFIX: Final = "sg_"


class AvroOutput:
    """Writes the documents of one contract to one topic.

    Args:
        contract: of the documents.
        schema_id: the schema's id in the registry.
    """

    def __init__(self, contract: AvroContract, schema_id: int) -> None:
        self._schema = fastavro.parse_schema(contract.schema)
        self._numbers = {
            field["name"]
            for field in contract.schema["fields"]
            if field["type"] in ("long", ["null", "long"])
        }
        self._names = {field["name"] for field in contract.schema["fields"]}
        self._absent = contract.absent
        self._frame = _MAGIC + schema_id.to_bytes(4)
        self.schema_id = schema_id
        self.smaller_verdict = partial(_smaller_verdict, self)
        self.smaller_dead_letter = partial(_smaller_dead_letter, self)

    def encode(self, document: Mapping[str, Any]) -> bytes:
        """Return a document behind the frame."""
        out = io.BytesIO()
        out.write(self._frame)
        # A tuple is a list here; fastavro would take it for the name and value of a union.
        fastavro.schemaless_writer(out, self._schema, document, disable_tuple_notation=True)
        return out.getvalue()

    def decode(self, value: bytes) -> Any:  # noqa: ANN401 - any JSON value
        """Return the document that :meth:`encode` wrote."""
        stream = io.BytesIO(value)
        stream.seek(_FRAME_BYTES)
        return restored(fastavro.schemaless_reader(stream, self._schema, None), self._absent)

    def wrap(self, letter: DeadLetterEvent) -> DeadLetterEvent:
        """Return a dead letter in Avro."""
        begin = max(at for at, (name, _) in enumerate(letter.headers) if name == FIRST_HEADER)
        block = letter.headers[begin:]
        document: dict[str, Any] = {
            "value": letter.value,
            "headers": [{"name": name, "value": raw} for name, raw in letter.headers[:begin]],
        }
        for header, raw in block:
            name = header.removeprefix(_PREFIX)
            if header.startswith(_PREFIX) and name in self._names:
                text = raw.decode()
                document[name] = int(text) if name in self._numbers else text
        headers = [*block, (FORMAT_HEADER, b"avro")]
        return DeadLetterEvent(letter.key, self.encode(document), headers)


@dataclass(slots=True, frozen=True)
class AvroOutputs:
    """What writes Avro.

    Attributes:
        verdicts: by topic.
        dead_letters: of the dead-letter topic.
    """

    verdicts: Mapping[str, AvroOutput]
    dead_letters: AvroOutput


def _smaller_verdict(
    avro: AvroOutput, key: bytes | None, value: bytes | None, headers: Headers
) -> tuple[bytes | None, bytes | None, Headers]:
    assert value is not None, "a verdict has a value"
    return key, avro.encode(cut_verdict(avro.decode(value))), headers


def _smaller_dead_letter(
    avro: AvroOutput, key: bytes | None, value: bytes | None, headers: Headers
) -> DeadLetterEvent:
    assert value is not None, "it is Avro"
    document = avro.decode(value)
    own = [(each["name"], each["value"]) for each in document["headers"]]
    block = [each for each in headers if each[0] != FORMAT_HEADER]
    return avro.wrap(smaller_dead_letter(key, document["value"], [*own, *block]))
