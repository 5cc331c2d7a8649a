"""The parsers that read bytes from outside, each with sound examples and the errors that it may raise.

A parser must return or raise one of its own errors. Anything else is a finding: another exception, or an end without
an answer.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson
from aiokafka.errors import CorruptRecordException
from google.protobuf import descriptor_pb2

from stream_guard.client import UnreadableVerdictError, parse_verdict
from stream_guard.core.errors import (
    EvidenceError,
    NotAPostError,
    PolicyError,
    RecordError,
    SettingsError,
)
from stream_guard.judging.archive.entry import EntryName, Judging, read_entry, write_entry
from stream_guard.judging.families.harmony.answer import read_answer
from stream_guard.judging.families.harmony.tokenizer import load_tokenizer
from stream_guard.kafka.decompression import LongRecord, expand_batch
from stream_guard.offline.evaluation.golden import Columns, read_golden
from stream_guard.policies.lint import lint_policy
from stream_guard.policies.policy import make_policy
from stream_guard.policies.store import PolicyFiles, build_policies
from stream_guard.records.dead_letter import read_dead_letter, replayed_id
from stream_guard.records.decoding.avro import AvroSchema
from stream_guard.records.decoding.json_schema import JsonSchema
from stream_guard.records.decoding.protobuf import ProtobufSchema
from stream_guard.records.post import PostParser
from stream_guard.settings import EngineSettings, PostSettings, load_settings
from stream_guard.telemetry.trace_context import read_traceparent
from stream_guard.testing import MemoryRecord
from tests.batches import batch_builder
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer
    from stream_guard.policies.policy import Policy

ROOT: Final = Path(__file__).parents[2]
_TEXT_BYTES_MAX: Final = 65_536


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: of the folder of its corpus.
        read: gives it bytes.
        refusals: the errors that it may raise.
        seeds: sound examples.
        words: pieces that its input is made of.
    """

    name: str
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()


_POST: Final = orjson.dumps(
    {
        "id": "p1",
        "text": "cheap pills \ud7ff at https://x.example",
        "author": "a1",
        "title": "t",
        "parent": "q",
        "language": "de-AT",
        "created_at": "2026-01-02T03:04:05Z",
        "data": {"n": [1, 2.5, None, True]},
    }
)
_EVENT: Final = orjson.dumps(
    {
        "specversion": "1.0",
        "id": "e1",
        "source": "urn:x",
        "type": "post",
        "time": "2026-01-02T03:04:05Z",
        "data_base64": "eyJpZCI6IjEiLCJ0ZXh0IjoieCJ9",
    }
)
_JSON: Final = (
    b"{}",
    b"[]",
    b"null",
    b"NaN",
    b'"\\ud83d"',
    b"\xff",
    b"\xef\xbb\xbf",
    b"\x00\x00\x00\x00\x01",
    b"1e999",
    b"-0",
    b"18446744073709551616",
    b'"id"',
    b'"text"',
    b'{"$date":1}',
    b"[[[[[[[[",
    b'{"a":' * 9,
)


@cache
def _policy() -> Policy:
    return make_policy("spam", (ROOT / "policies/dangerous-content/policy.md").read_bytes())


@cache
def _tokenizer() -> HarmonyTokenizer:
    return load_tokenizer(EngineSettings(model="demo"))


def _read_post(data: bytes) -> object:
    return PostParser(PostSettings(format="auto")).parse(data, ())


def _read_headers(data: bytes) -> object:
    """Split at newlines into names and values, as headers of a binary CloudEvent, of a trace and of a dead letter."""
    headers = [
        (name.decode("utf-8", "backslashreplace"), value)
        for name, _, value in (line.partition(b"=") for line in data.split(b"\n"))
    ]
    record = MemoryRecord("posts", 0, 7, 1, b"k", _POST, headers)
    letter = read_dead_letter(record)
    if letter is not None:
        orjson.dumps(letter.describe())
    replayed_id(record)
    read_traceparent(record)
    return PostParser(PostSettings(format="auto")).parse(_POST, headers)


def _read_policy(data: bytes) -> object:
    return list(lint_policy(make_policy("fuzz", data)))


def _read_metadata(data: bytes) -> object:
    return make_policy("fuzz", _policy().text.encode(), metadata=data)


def _read_rules(data: bytes) -> object:
    return make_policy(
        "fuzz", _policy().text.encode(), rules={"rules.yaml": data, "terms.txt": data[:200]}
    )


def _read_calibration(data: bytes) -> object:
    return make_policy("fuzz", _policy().text.encode(), calibration=data)


def _read_routes(data: bytes) -> object:
    text = _policy().text.encode()
    files = PolicyFiles(Path("policies"), {"spam": text, "other": text}, data)
    return build_policies(files)


def _in_file(data: bytes, name: str, read: Callable[[Path], object]) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        return read(path)


def _read_settings(data: bytes) -> object:
    return _in_file(data, "stream-guard.toml", load_settings)


def _read_golden(data: bytes) -> object:
    return _in_file(
        data,
        "golden.csv",
        lambda path: read_golden(
            path, _policy(), Columns(), labels={}, text_bytes_max=_TEXT_BYTES_MAX
        ),
    )


def _read_answer(data: bytes) -> object:
    """Take pairs of bytes as token ids, so that control tokens occur."""
    tokenizer = _tokenizer()
    size = max(tokenizer.control.every) + 1
    ids = [number % size for (number,) in struct.iter_unpack(">H", data[: len(data) // 2 * 2])]
    policy = _policy()
    return [
        read_answer(ids, policy.taxonomy, tokenizer.control, tokenizer, complete=complete)
        for complete in (True, False)
    ]


def _answer_seed() -> bytes:
    tokenizer = _tokenizer()
    control = tokenizer.control
    ids = [
        *(control.channel, *tokenizer.encode("analysis"), control.message),
        *tokenizer.encode("It is a scam."),
        *(control.end, control.start, *tokenizer.encode("assistant")),
        *(control.channel, *tokenizer.encode("final"), control.message),
        *tokenizer.encode('{"violation":1,"policy_category":"S1","rationale":"x"}'),
        control.return_,
    ]
    return b"".join(struct.pack(">H", token) for token in ids)


def _expand(data: bytes) -> object:
    pieces = list(expand_batch(memoryview(data))) if len(data) > _BATCH_HEADER_BYTES else []
    return [piece.offset if isinstance(piece, LongRecord) else len(piece) for piece in pieces]


_BATCH_HEADER_BYTES: Final = 61


def _batch(compression: int) -> bytes:
    builder = batch_builder(compression)
    for number in range(20):
        builder.append(number, number, b"k", _POST, [("h", b"x")])
    return bytes(builder.build())


def _read_entry(data: bytes) -> object:
    return read_entry(
        EntryName(_policy().sha256, hashlib.sha256(data).hexdigest()), data, "archive"
    ).policy()


def _entry_seed() -> bytes:
    judging = Judging("vllm", "demo", None, "0" * 64, "2025-01-01", "harmony")
    _, content = write_entry(_policy(), judging, None)
    return content


def _read_cloud_event(data: bytes) -> object:
    headers = (("content-type", b"application/cloudevents+json"),)
    return PostParser(PostSettings(format="cloudevents")).parse(data, headers)


@cache
def _framed_parser() -> PostParser:
    fields = [
        {"name": name, "type": ["null", "string", "bytes"]} for name in ("id", "text", "author")
    ]
    tree = {"name": "answers", "type": {"type": "array", "items": "Post"}}
    post = {"type": "record", "name": "Post", "fields": [*fields, tree]}
    file = descriptor_pb2.FileDescriptorProto(name="post.proto", syntax="proto3")
    message = file.message_type.add(name="Post")
    field = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(("id", "text", "author"), 1):
        message.field.add(
            name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL
        )
    message.field.add(
        name="answers",
        number=4,
        type=field.TYPE_MESSAGE,
        type_name=".Post",
        label=field.LABEL_REPEATED,
    )
    schemas = {
        b"\0\0\0\1": AvroSchema(post, []),
        b"\0\0\0\2": AvroSchema({**post, "fields": fields}, []),
        b"\0\0\0\3": ProtobufSchema(file.SerializeToString(), []),
        b"\0\0\0\4": JsonSchema(),
    }
    return PostParser(PostSettings(), schemas)


def _read_frame(data: bytes) -> object:
    # The first byte chooses a schema that is in memory; a source hands out no other record.
    return (
        _framed_parser().parse(b"\0\0\0\0" + bytes((1 + data[0] % 4,)) + data[1:], ())
        if data
        else None
    )


def targets() -> tuple[Target, ...]:
    """Return all of them."""
    policy = _policy().text.encode()
    return (
        Target("post", _read_post, (RecordError, NotAPostError), (_POST,), _JSON),
        Target(
            "frame",
            _read_frame,
            (RecordError, NotAPostError),
            (
                b"\0\x02\x021\x02\x02t\0\x02\x02\x021\x02\x02t\0\0\0",
                b"\1\x02\x021\x02\x02t\0",
                b"\2\0\x0a\x011\x12\x01t\x22\x03\x0a\x012",
                b'\3{"id":"1","text":"t"}',
            ),
            (b"\x02", b"\x0a\x01", b"\xff\xff\xff\xff\x0f", b"\x22\x02\x22\0"),
        ),
        Target("cloud_event", _read_cloud_event, (RecordError, NotAPostError), (_EVENT,), _JSON),
        Target(
            "headers",
            _read_headers,
            (RecordError, NotAPostError),
            (
                b"ce_specversion=1.0\nce_id=1\nce_type=t\nce_source=s\ncontent-type=application/json",
                b"ce_specversion=1.0\nce_id=1\nce_type=t\nce_source=s\nce_time=2026-01-02T03:04:05Z",
                b"traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                b"sg_reason=json\nsg_topic=posts\nsg_partition=1\nsg_offset=2\nsg_timestamp_ms=3\nsg_replays=1",
                b"sg_marker=replayed\nsg_id=abc",
            ),
            (b"=", b"\n", b"ce_", b"sg_", b"-1", b"9" * 30, b"\r", b"\x00", b"application/"),
        ),
        Target(
            "verdict",
            parse_verdict,
            (UnreadableVerdictError,),
            (orjson.dumps(make_verdict()),),
            (*_JSON, b'"1.1"', b'"decision"', b'"violates"'),
        ),
        Target(
            "policy",
            _read_policy,
            (PolicyError,),
            (policy, b"# Spam (#SP)\nReturn `INVALID` or `VALID`.\n## Scams (SP1)\n- SP1.a x\n"),
            (b"## ", b"- ", b"| ", b"`", b"**", b"SP1", b"INVALID + ESCALATE", b"0", b"---\n"),
        ),
        Target(
            "policy_yaml",
            _read_metadata,
            (PolicyError,),
            (
                b"version: '2'\neffort: low\nlabels: {violates: A, safe: B}\ntiers: [rules, safeguard]\n",
            ),
            (b": ", b"- ", b"&a ", b"*a", b"!!", b"<<: ", b"{", b"}", b"[", b"null", b"\t"),
        ),
        Target(
            "rules_yaml",
            _read_rules,
            (PolicyError,),
            (
                b"rules:\n- id: a\n  terms: [x, y]\n  outcome: violates\n",
                b"rules:\n- id: b\n  patterns: ['a{1,9}b']\n  outcome: escalate\n",
                b"rules:\n- id: c\n  terms_files: [terms.txt]\n  outcome: safe\n",
            ),
            (b": ", b"- ", b"&a ", b"*a", b"(?i)", b"{1,1000}", b"[[:alpha:]]", b"\\p{L}", b"(((("),
        ),
        Target(
            "calibration",
            _read_calibration,
            (PolicyError,),
            (
                b'{"policy_sha256":"%s","model":"m","revision":"r","confidence_method":"token_probability",'
                b'"fitted_on":100,"method":"platt","a":0.5,"b":-1.0}' % (b"0" * 64),
            ),
            _JSON,
        ),
        Target(
            "routes_yaml",
            _read_routes,
            (PolicyError,),
            (b"topics:\n  posts: [spam]\n  'x.*': [spam, other]\ndefault: [other]\n",),
            (
                b": ",
                b"- ",
                b"rules:\n",
                b"canary:\n",
                b"shadow:\n",
                b"when:\n",
                b"*",
                b"&a ",
                b"*a",
            ),
        ),
        Target(
            "settings",
            _read_settings,
            (SettingsError,),
            (b"[kafka]\ntopics = ['a']\n[engine]\nmodel = 'demo'\n[post]\nid = '/id'\n",),
            (
                b"[",
                b"]",
                b"=",
                b"'",
                b'"""',
                b"{",
                b"}",
                b"\n",
                b"inf",
                b"1979-05-27",
                b"[[kafka]]",
            ),
        ),
        Target(
            "golden",
            _read_golden,
            (SettingsError,),
            (b'text,label\na post,VALID\n"two\nlines",INVALID\n',),
            (b",", b'"', b"\n", b"\r", b"\x00", b";", b"\t", b"label", b"\xff"),
        ),
        Target("answer", _read_answer, (), (_answer_seed(),)),
        Target(
            "batch",
            _expand,
            (CorruptRecordException,),
            tuple(_batch(compression) for compression in (1, 2, 3, 4)),
        ),
        Target("archive", _read_entry, (EvidenceError,), (_entry_seed(),), _JSON),
    )
