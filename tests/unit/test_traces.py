"""Traces: what is sampled, what is handed on, and that no span holds text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from stream_guard.errors import PromptError
from stream_guard.offsets import PartitionOffsets
from stream_guard.pipeline import Pipeline
from stream_guard.policy import PolicySet, make_policy
from stream_guard.ports import Partition
from stream_guard.post import PostParser
from stream_guard.settings import BatchingSettings, Settings, TelemetrySettings
from stream_guard.telemetry.metrics import Metrics
from stream_guard.telemetry.traces import Tracing
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBroker,
    MemoryPublisher,
    MemoryRecord,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()
UNSAMPLED = f"00-{TRACE}-{PARENT}-00".encode()
VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")
WORDS = "Zebra-77"
PARTITION = Partition("posts", 0)
POLICIES = {name: make_policy(name, name.encode()) for name in ("a", "b")}


class Rig:
    """A pipeline with two policies and everything in memory."""

    def __init__(self, ratio: float = 0.0) -> None:
        settings = Settings(batching=BatchingSettings(age_max_ms=0))
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(
            TelemetrySettings(trace_ratio=ratio), group="g", exporter=self.exporter
        )
        self.clock = ManualClock()
        self.judge = ManualJudge(self.clock)
        self.broker = MemoryBroker()
        self.topics = (settings.kafka.verdict_topic, settings.kafka.dead_letter_topic)
        self.broker.create_topics(*self.topics)
        self.publisher = MemoryPublisher(self.broker, manual=True)
        self.pipeline = Pipeline(
            settings,
            PolicySet(POLICIES, default=("a", "b")),
            parser=PostParser(settings.post),
            judge=self.judge,
            publisher=self.publisher,
            clock=self.clock,
            metrics=Metrics(CollectorRegistry()),
            tracing=self.tracing,
        )

    def accept(self, headers: Sequence[tuple[str, bytes]], value: bytes | None = None) -> None:
        value = value or b'{"id": "1", "text": "Zebra-77"}'
        record = MemoryRecord(*PARTITION, 7, 0, b"k", value, [*headers])
        self.pipeline.accept(PartitionOffsets(PARTITION, 1), [record])
        self.clock.advance(1)
        self.pipeline.dispatch()
        self.clock.advance(1)

    def finish(self) -> None:
        self.judge.answer()
        self.clock.advance(1)
        self.publisher.acknowledge()

    def spans(self) -> list[ReadableSpan]:
        self.tracing.close()
        return list(self.exporter.get_finished_spans())

    def traceparents(self) -> set[str]:
        records = [record for topic in self.topics for record in self.broker.records(topic)]
        return {dict(record.headers)["traceparent"].decode() for record in records}


async def test_a_sampled_record_has_a_process_span_with_its_children() -> None:
    rig = Rig()
    rig.accept([("x", b""), ("traceparent", SAMPLED)])
    contexts = [request.trace_headers for request in rig.judge.waiting]
    rig.finish()
    spans = rig.spans()
    by_name: dict[str, list[ReadableSpan]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    assert {name: len(found) for name, found in by_name.items()} == {
        "process posts": 1,
        "wait": 2,
        "judge": 2,
        "publish stream-guard.verdicts": 2,
    }
    (process,) = by_name["process posts"]
    assert process.parent is not None
    assert process.parent.span_id == int(PARENT, 16)
    assert [link.context.span_id for link in process.links] == [int(PARENT, 16)]
    assert process.kind is SpanKind.CONSUMER
    assert process.attributes is not None
    assert process.attributes["messaging.kafka.offset"] == 7
    for span in spans:
        assert span.context is not None
        assert process.context is not None
        assert span.context.trace_id == int(TRACE, 16)
        if span is not process:
            assert span.parent is not None
            assert span.parent.span_id == process.context.span_id
        assert WORDS not in span.to_json()
    # The engine hangs its own spans under ours; the verdict goes on from the record's.
    judges = {span.context.span_id for span in by_name["judge"] if span.context}
    assert {context["traceparent"] for context in contexts if context} == {
        f"00-{TRACE}-{span_id:016x}-01" for span_id in judges
    }
    assert rig.traceparents() == {f"00-{TRACE}-{process.context.span_id:016x}-01"}
    seconds = {s.name: ((s.end_time or 0) - (s.start_time or 0)) // 10**9 for s in spans}
    assert seconds == {
        "process posts": 3,
        "wait": 1,
        "judge": 1,
        "publish stream-guard.verdicts": 1,
    }


async def test_a_record_that_its_sender_did_not_sample_is_handed_on_unchanged() -> None:
    rig = Rig(ratio=1.0)
    rig.accept([("traceparent", UNSAMPLED)])
    assert [request.trace_headers for request in rig.judge.waiting] == [None, None]
    rig.finish()
    assert rig.traceparents() == {UNSAMPLED.decode()}
    assert rig.spans() == []


async def test_a_record_without_a_parent_gets_a_valid_unsampled_one() -> None:
    rig = Rig(ratio=0.0)
    rig.accept([])
    rig.finish()
    (made,) = rig.traceparents()
    assert VALID.fullmatch(made)
    assert made.endswith("-00")
    assert rig.spans() == []


async def test_a_record_without_a_parent_is_traced_at_the_ratio() -> None:
    rig = Rig(ratio=1.0)
    rig.accept([])
    rig.finish()
    (process,) = (span for span in rig.spans() if span.name == "process posts")
    assert process.parent is None
    (made,) = rig.traceparents()
    assert VALID.fullmatch(made)
    assert int(made[-2:], 16) & 1


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\xff",
        SAMPLED[:-1],
        SAMPLED + b"-00",
        SAMPLED.upper(),
        b"ff" + SAMPLED[2:],
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-00".encode(),
        None,
    ],
)
async def test_a_malformed_parent_is_as_good_as_none(bad: bytes) -> None:
    rig = Rig(ratio=0.0)
    rig.accept([("traceparent", bad)])
    rig.finish()
    (made,) = rig.traceparents()
    assert VALID.fullmatch(made)
    assert made.encode() != bad
    assert made.endswith("-00")


async def test_without_an_exporter_a_sampled_parent_is_handed_on() -> None:
    tracing = Tracing(TelemetrySettings(trace_ratio=1.0), group="g")
    record = MemoryRecord(*PARTITION, 7, headers=[("traceparent", SAMPLED)])
    assert tracing.begin(record, 0).traceparent == SAMPLED.decode()
    made = tracing.begin(MemoryRecord(*PARTITION, 8), 0)
    assert VALID.fullmatch(made.traceparent)
    assert made.span is None


async def test_a_bad_record_ends_its_span_with_the_reason() -> None:
    rig = Rig()
    rig.accept([("traceparent", SAMPLED)], b"Zebra-77")
    rig.publisher.acknowledge()
    process, publish = sorted(rig.spans(), key=lambda span: span.name)
    assert publish.name == "publish stream-guard.dead-letters"
    assert process.attributes is not None
    assert process.attributes["error.type"] == "json"
    assert WORDS not in process.to_json()


async def test_a_post_that_cannot_be_judged_marks_its_judge_span() -> None:
    rig = Rig()
    rig.accept([("traceparent", SAMPLED)])
    rig.judge.answer(error=PromptError("too long"))
    rig.publisher.acknowledge()
    judges = [span for span in rig.spans() if span.name == "judge"]
    assert [(s.status.status_code, s.status.description) for s in judges] == [
        (StatusCode.ERROR, "prompt")
    ] * 2


async def test_what_is_abandoned_ends_every_span_that_was_opened() -> None:
    rig = Rig()
    rig.accept([("traceparent", SAMPLED)])
    assert rig.pipeline.abandon([PARTITION]) == 1
    spans = {span.name: span for span in rig.spans()}
    process = spans["process posts"]
    assert process.attributes is not None
    assert process.attributes["stream_guard.abandoned"] is True
    assert "judge" in spans
