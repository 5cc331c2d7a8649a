"""Measures the formats of posts on one core, and a stream of which 80 % are not posts against a bare loop.

The same post is parsed as JSON, and in Avro, Protobuf and JSON Schema behind a registry's frame. Rates are records per
second of processor time, so other processes count little. Each target is at least 20,000 records/s.

For the stream there is a real broker, to which a producer sends 20,000 records/s. A bare aiokafka loop reads, parses,
drops what is no post, builds and sends a verdict for the rest, and commits each second. Stream Guard does the same by
``post.where``, with a judge that answers at once. Both read the same stream, one after the other. The target is at
least 0.8 of the bare loop's rate: the median of pairs. The processor time of a record on each side is printed, too: its
ratio says what is left where the stream is faster than either side. It has no target. Exit code 1: a missed target.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from benchmarks import pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DECODED_MIN: Final = 20_000
RATIO_MIN: Final = 0.8
OFFERED: Final = 20_000
"""Records/s that the producer sends."""
POSTS_EVERY: Final = 5
_ROUNDS: Final = 5
_TEXT: Final = "Post about nothing very much, as long as posts tend to be; " * 4
_POST: Final[dict[str, Any]] = {
    "id": "post-00000001",
    "text": _TEXT,
    "author": {"id": "author-17", "name": "Somebody"},
    "created_at": 1_777_636_800_000,
    "kind": "POST",
    "tags": ["one", "two"],
    "counts": {"likes": 3, "answers": 1},
    "language": "en",
}
_AVRO: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Post",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "text", "type": "string"},
        {
            "name": "author",
            "type": {
                "type": "record",
                "name": "Author",
                "fields": [{"name": name, "type": "string"} for name in ("id", "name")],
            },
        },
        {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["LIKE", "POST"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "counts", "type": {"type": "map", "values": "int"}},
        {"name": "language", "type": ["null", "string"]},
    ],
}


def _avro() -> tuple[Any, bytes]:
    import fastavro

    from stream_guard.records.decoding.avro import AvroSchema

    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(_AVRO), _POST)
    return AvroSchema(_AVRO, []), out.getvalue()


def _protobuf() -> tuple[Any, bytes]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

    from stream_guard.records.decoding.protobuf import ProtobufSchema

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="post.proto", syntax="proto3", dependency=[timestamp_pb2.DESCRIPTOR.name]
    )
    author, counts = file.message_type.add(name="Author"), descriptor_pb2.DescriptorProto()
    counts.name = "CountsEntry"
    counts.options.map_entry = True
    post = file.message_type.add(name="Post")
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    enum = file.enum_type.add(name="Kind")
    for number, name in enumerate(("LIKE", "POST")):
        enum.value.add(name=name, number=number)
    for message, fields in (
        (author, [("id", field.TYPE_STRING, one, ""), ("name", field.TYPE_STRING, one, "")]),
        (counts, [("key", field.TYPE_STRING, one, ""), ("value", field.TYPE_INT32, one, "")]),
        (
            post,
            [
                ("id", field.TYPE_STRING, one, ""),
                ("text", field.TYPE_STRING, one, ""),
                ("author", field.TYPE_MESSAGE, one, ".Author"),
                ("created_at", field.TYPE_MESSAGE, one, ".google.protobuf.Timestamp"),
                ("kind", field.TYPE_ENUM, one, ".Kind"),
                ("tags", field.TYPE_STRING, many, ""),
                ("counts", field.TYPE_MESSAGE, many, ".Post.CountsEntry"),
                ("language", field.TYPE_STRING, one, ""),
            ],
        ),
    ):
        for number, (name, kind, label, of) in enumerate(fields, 1):
            message.field.add(
                name=name, number=number, type=kind, label=label, type_name=of or None
            )
    post.nested_type.append(counts)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    made: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("Post"))(
        **{**_POST, "created_at": None}
    )
    made.created_at.FromMilliseconds(_POST["created_at"])
    # The message of index 1: its indexes are one varint each, the length first.
    return ProtobufSchema(file.SerializeToString(), []), b"\x02\x02" + made.SerializeToString()


def decode(count: int) -> dict[str, float]:
    """Return records/s of each format: from a record's bytes to its post."""
    from stream_guard.records.decoding.json_schema import JsonSchema
    from stream_guard.records.post import PostParser
    from stream_guard.settings import PostSettings

    document = orjson.dumps(_POST)
    schemas: dict[bytes, Any] = {}
    values = {"json": document}
    for number, (name, (schema, payload)) in enumerate(
        (
            ("avro", _avro()),
            ("protobuf", _protobuf()),
            ("json_schema", (JsonSchema(), document)),
        ),
        1,
    ):
        schemas[number.to_bytes(4)] = schema
        values[name] = b"\0" + number.to_bytes(4) + payload
    settings = PostSettings(author="/author/id")
    framed = PostParser(settings, schemas)
    parsers = {name: framed if name != "json" else PostParser(settings) for name in values}
    wanted = parsers["json"].parse(document, [])
    rates: dict[str, list[float]] = {name: [] for name in values}
    for name, value in values.items():
        post = parsers[name].parse(value, [])
        if (post.id, post.text, post.author, post.created_at_ms) != (
            wanted.id,
            wanted.text,
            wanted.author,
            wanted.created_at_ms,
        ):
            message = f"{name} is not read as JSON is"
            raise AssertionError(message)
    for _ in range(_ROUNDS):
        for name, value in values.items():
            parse = parsers[name].parse
            begun_s = time.process_time()
            for _ in range(count):
                parse(value, ())
            rates[name].append(count / (time.process_time() - begun_s))
    return {name: statistics.median(each) for name, each in rates.items()}


def mixed(number: int) -> bytes:
    """Return a record of the stream: every fifth is a post."""
    if number % POSTS_EVERY == 0:
        return orjson.dumps({"kind": "post", **orjson.loads(pipeline.post(number))})
    return orjson.dumps(
        {
            "kind": "like",
            "id": f"like-{number:08d}",
            "subject": f"post-{number // 5:08d}",
            "author": f"author-{number % 1_000}",
            "note": _TEXT[:150],
        }
    )


class Rates(NamedTuple):
    """Records per second of a side: by the clock, and by its processor time."""

    wall: float
    processor: float

    @classmethod
    def since(cls, begun: tuple[float, float], count: int) -> Rates:
        """Return the rates since the two times of the first record."""
        wall_s, processor_s = begun
        return cls(count / (time.monotonic() - wall_s), count / (time.process_time() - processor_s))


def _settings(bootstrap: str, topics: list[str]) -> Any:
    settings = pipeline.settings_of(bootstrap, *topics)
    where = settings.post.model_copy(update={"where": {"/kind": ("post",)}})
    return settings.model_copy(update={"post": where})


async def produce(bootstrap: str, topic: str, count: int) -> None:
    """Send the stream, at its pace."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, max_batch_size=1 << 18)
    await producer.start()
    begun_s, step = time.monotonic(), OFFERED // 100
    for first in range(0, count, step):
        for number in range(first, min(first + step, count)):
            await producer.send(topic, mixed(number), key=b"author-%d" % (number % 1_000))
        await asyncio.sleep(max(0.0, begun_s + first / OFFERED - time.monotonic()))
    await producer.stop()


async def bare(settings: Any, count: int) -> Rates:
    """Run the bare loop."""
    kafka = settings.kafka
    consumer, producer = pipeline.bare_clients(kafka)
    constant = await pipeline.Constant.prepare(
        settings.model_copy(update={"post": type(settings.post)()})
    )
    await consumer.start()
    await producer.start()
    done, begun, committed = 0, (0.0, 0.0), time.monotonic()
    while done < count:
        for records in (await consumer.getmany(timeout_ms=500, max_records=500)).values():
            begun = begun if done else (time.monotonic(), time.process_time())
            for record in records:
                if orjson.loads(record.value)["kind"] != "post":
                    continue
                verdict, headers = constant.verdict(record.value)
                await producer.send(kafka.verdict_topic, verdict, key=record.key, headers=headers)
            done += len(records)
        if time.monotonic() - committed > 1:
            await producer.flush()
            await consumer.commit()
            committed = time.monotonic()
    await producer.flush()
    await consumer.commit()
    rates = Rates.since(begun, count)
    await producer.stop()
    await consumer.stop()
    return rates


async def guard(settings: Any, count: int) -> Rates:
    """Run Stream Guard."""
    from stream_guard.service.app import App
    from stream_guard.stream.pipeline import Pipeline

    app = App(settings)
    begun = (0.0, 0.0)
    pipelines: list[Any] = []
    accept = Pipeline.accept

    def timed_accept(self: Pipeline, offsets: Any, records: Any) -> None:
        nonlocal begun
        if not pipelines:
            begun = (time.monotonic(), time.process_time())
            pipelines.append(self)
        accept(self, offsets, records)

    Pipeline.accept = timed_accept  # type: ignore[method-assign]
    task = asyncio.create_task(app.run())
    while not pipelines or pipelines[0].finished < count:
        if task.done():
            task.result()
        await asyncio.sleep(0.02)
    rates = Rates.since(begun, count)
    app.stop()
    await task
    return rates


def _side(side: str, bootstrap: str, count: int) -> Rates:
    """Run a side in a process of its own, on a stream of its own."""
    names = [f"{name}-{uuid.uuid4().hex}" for name in ("mixed", side, "dead")]
    asyncio.run(pipeline.fill(bootstrap, names, names[0], 0))
    command = [sys.executable, "-m", "benchmarks.formats", "--count", str(count)]
    command += ["--bootstrap", bootstrap, "--topics", json.dumps(names), "--child"]
    root = Path(__file__).resolve().parent.parent
    with (
        subprocess.Popen([*command, "produce"], cwd=root) as producer,
        subprocess.Popen([*command, side], stdout=subprocess.PIPE, cwd=root, text=True) as reader,
    ):
        printed, _ = reader.communicate(timeout=900)
    if reader.returncode or producer.returncode:
        message = f"{side} ended with {reader.returncode}, its producer with {producer.returncode}"
        raise RuntimeError(message)
    return Rates(*json.loads(printed.splitlines()[-1]))


def skip(bootstrap: str, count: int, pairs: int) -> float:
    """Return the median ratio of Stream Guard's rate to that of the bare loop."""
    ratios = []
    for pair in range(1, pairs + 1):
        a, b = (_side(side, bootstrap, count) for side in ("bare", "guard"))
        ratios.append(b.wall / a.wall)
        print(
            f"pair {pair}: bare {a.wall:,.0f}/s, stream guard {b.wall:,.0f}/s, ratio {ratios[-1]:.2f}; by processor "
            f"time {a.processor:,.0f}/s and {b.processor:,.0f}/s, ratio {b.processor / a.processor:.2f}",
            flush=True,
        )
    return statistics.median(ratios)


def judge(rates: Mapping[str, float], ratio: float | None) -> list[str]:
    """Return what missed its target."""
    missed = [
        f"{name}: {rate:,.0f} records/s, at least {DECODED_MIN:,} wanted"
        for name, rate in rates.items()
        if rate < DECODED_MIN
    ]
    if ratio is not None and ratio < RATIO_MIN:
        missed.append(f"80 % not-posts: ratio {ratio:.2f}, at least {RATIO_MIN} wanted")
    return missed


def main(
    measure: Callable[[int], Mapping[str, float]] = decode,
    compare: Callable[[str, int, int], float] = skip,
) -> int:
    """Run both parts, or one side of the second in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000, help="records (default 100000)")
    parser.add_argument("--pairs", type=int, default=3, help="pairs (default 3)")
    parser.add_argument("--decode-only", action="store_true", help="without a broker")
    parser.add_argument(
        "--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), help=argparse.SUPPRESS
    )
    parser.add_argument("--child", choices=("bare", "guard", "produce"), help=argparse.SUPPRESS)
    parser.add_argument("--topics", type=json.loads, default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        import uvloop

        if options.child == "produce":
            asyncio.run(produce(options.bootstrap, options.topics[0], options.count))
            return 0
        settings = _settings(options.bootstrap, options.topics)
        side = bare if options.child == "bare" else guard
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(side(settings, options.count))))
        return 0
    rates = measure(max(1, options.count // 5))
    for name, rate in rates.items():
        print(f"{name}: {rate:,.0f} records/s, {rate / rates['json']:.2f} of JSON", flush=True)
    ratio = None
    if not options.decode_only:
        from stream_guard.testing.broker import start_broker

        with start_broker() as broker:
            print(broker.description)
            ratio = compare(broker.bootstrap_servers, options.count, options.pairs)
        print(f"80 % not-posts: median ratio {ratio:.2f} (must reach {RATIO_MIN})")
    missed = judge(rates, ratio)
    for one in missed:
        print(f"missed: {one}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
