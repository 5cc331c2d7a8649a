"""Traces: what is sampled, what is handed on, and that no span holds text."""

from __future__ import annotations

import gzip
import inspect
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, messaging_attributes
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import PromptError
from stream_guard.core.kafka_types import Partition
from stream_guard.judging.assembly import _telemetry_arguments
from stream_guard.judging.contract import Answer, Provenance
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import PostParser
from stream_guard.settings import BatchingSettings, Settings, TelemetrySettings
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing import spans as spans_module
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry import generations
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBroker,
    MemoryPublisher,
    MemoryRecord,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from stream_guard.policies.policy import Policy

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()
UNSAMPLED = f"00-{TRACE}-{PARENT}-00".encode()
VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")
WORDS = "Zebra-77"
PARTITION = Partition("posts", 0)
SEVERE = make_policy(
    "severe",
    b"S1: threats. S2: insults.",
    metadata=b"categories: {S1: {violates: true, severity: critical}, S2: {violates: true, severity: low}}",
)
POLICIES = {name: make_policy(name, name.encode()) for name in ("a", "b")}


class Rig:
    """A pipeline with two policies and everything in memory."""

    def __init__(
        self,
        ratio: float = 0.0,
        *,
        policies: Mapping[str, Policy] = POLICIES,
        **telemetry: Any,  # noqa: ANN401 - settings of the section
    ) -> None:
        settings = Settings(batching=BatchingSettings(age_max_ms=0))
        self.exporter = InMemorySpanExporter()
        self.metrics = Metrics(CollectorRegistry())
        self.tracing = Tracing(
            TelemetrySettings(trace_ratio=ratio, **{"trace_keep": (), **telemetry}),
            group="g",
            exporter=self.exporter,
            severe=("critical",),
            metrics=self.metrics,
        )
        self.clock = ManualClock()
        self.judge = ManualJudge(self.clock)
        self.broker = MemoryBroker()
        self.topics = (settings.kafka.verdict_topic, settings.kafka.dead_letter_topic)
        self.broker.create_topics(*self.topics)
        self.publisher = MemoryPublisher(self.broker, manual=True)
        self.pipeline = Pipeline(
            settings,
            PolicySet(policies, default=tuple(policies)),
            parser=PostParser(settings.post),
            judge=self.judge,
            publisher=self.publisher,
            clock=self.clock,
            metrics=self.metrics,
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

    def named(self) -> dict[str, list[ReadableSpan]]:
        by_name: dict[str, list[ReadableSpan]] = {}
        for span in self.spans():
            by_name.setdefault(span.name, []).append(span)
        return by_name

    def counted(self, why: str) -> float:
        return (
            self.metrics.registry.get_sample_value("stream_guard_traces_total", {"why": why}) or 0
        )

    def traceparents(self) -> set[str]:
        records = [record for topic in self.topics for record in self.broker.records(topic)]
        return {dict(record.headers)["traceparent"].decode() for record in records}


async def test_a_sampled_record_has_a_process_span_with_its_children() -> None:
    rig = Rig()
    rig.accept([("x", b""), ("traceparent", SAMPLED)])
    contexts = [request.trace_headers for request in rig.judge.waiting]
    rig.finish()
    by_name = rig.named()
    assert {name: len(found) for name, found in by_name.items()} == {
        "receive posts": 1,
        "process posts": 1,
        "batch a": 1,
        "batch b": 1,
        "wait": 2,
        "judge": 2,
        "send stream-guard.verdicts": 2,
    }
    (process,) = by_name["process posts"]
    assert process.parent is not None
    assert process.parent.span_id == int(PARENT, 16)
    assert process.kind is SpanKind.CONSUMER
    assert process.attributes is not None
    assert process.attributes["messaging.kafka.offset"] == 7
    for name in ("wait", "judge", "send stream-guard.verdicts"):
        for span in by_name[name]:
            assert span.context is not None
            assert process.context is not None
            assert span.context.trace_id == int(TRACE, 16)
            assert span.parent is not None
            assert span.parent.span_id == process.context.span_id
    # The engine hangs its own spans under ours; whoever reads a verdict goes on from what sent it.
    judges = {span.context.span_id for span in by_name["judge"] if span.context}
    assert {context["traceparent"] for context in contexts if context} == {
        f"00-{TRACE}-{span_id:016x}-01" for span_id in judges
    }
    sends = by_name["send stream-guard.verdicts"]
    assert {span.kind for span in sends} == {SpanKind.PRODUCER}
    assert rig.traceparents() == {
        f"00-{TRACE}-{span.context.span_id:016x}-01" for span in sends if span.context
    }
    seconds = {
        name: ((found[0].end_time or 0) - (found[0].start_time or 0)) // 10**9
        for name, found in by_name.items()
        if not name.startswith(("batch", "receive"))
    }
    assert seconds == {
        "process posts": 3,
        "wait": 1,
        "judge": 1,
        "send stream-guard.verdicts": 1,
    }


async def test_a_poll_and_a_batch_are_linked_with_what_was_in_them() -> None:
    rig = Rig()
    records = [
        MemoryRecord(*PARTITION, n, 0, b"k", b'{"id": "%d", "text": "x"}' % n, headers)
        for n, headers in enumerate([[("traceparent", SAMPLED)], [], [("traceparent", SAMPLED)]])
    ]
    rig.pipeline.accept(PartitionOffsets(PARTITION, 1), records)
    rig.pipeline.dispatch()
    rig.finish()
    by_name = rig.named()
    (receive,) = by_name["receive posts"]
    assert receive.parent is None
    assert receive.attributes is not None
    assert receive.attributes["messaging.batch.message_count"] == 3
    assert [link.context.span_id for link in receive.links] == [int(PARENT, 16)] * 2
    assert receive.context is not None
    for process in by_name["process posts"]:
        linked = {link.context.span_id for link in process.links}
        assert linked == {int(PARENT, 16), receive.context.span_id}
    batches = {
        span.context.span_id: span
        for name in "ab"
        for span in by_name[f"batch {name}"]
        if span.context
    }
    assert {
        (span.attributes or {})["messaging.batch.message_count"] for span in batches.values()
    } == {3}
    judges = {span.context.span_id: span for span in by_name["judge"] if span.context}
    assert len(judges) == 4
    for judge in judges.values():
        (link,) = judge.links
        assert judge.context is not None
        assert judge.context.span_id in {
            one.context.span_id for one in batches[link.context.span_id].links
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
    assert process.context is not None
    for made in rig.traceparents():
        assert VALID.fullmatch(made)
        assert int(made[-2:], 16) & 1
        assert made[3:35] == f"{process.context.trace_id:032x}"


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
    by_name = rig.named()
    (process,) = by_name["process posts"]
    assert len(by_name["send stream-guard.dead-letters"]) == 1
    assert process.attributes is not None
    assert process.attributes["error.type"] == "json"
    assert process.status.status_code is StatusCode.ERROR


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


async def test_what_is_abandoned_while_it_is_sent_ends_its_span_too() -> None:
    rig = Rig()
    rig.accept([("traceparent", SAMPLED)])
    rig.judge.answer()
    assert rig.pipeline.abandon([PARTITION]) == 1
    rig.publisher.acknowledge()  # written all the same
    names = [span.name for span in rig.spans()]
    assert names.count("send stream-guard.verdicts") == 2
    assert names.count("process posts") == 1


def kept(rig: Rig, why: str) -> list[ReadableSpan]:
    """Return the spans of the one record, which was kept for this reason."""
    assert rig.counted(why) == 1
    spans = rig.spans()
    (process,) = (span for span in spans if span.name == "process posts")
    assert process.attributes is not None
    assert process.attributes["stream_guard.kept"] == why
    return spans


UNDETERMINED = Answer("undetermined", parse_status="timeout")
PROVENANCE = Provenance(
    "safeguard", "model", prompt_tokens=9, cached_tokens=4, output_tokens=3, finish_reason="length"
)


@pytest.mark.parametrize("headers", [[], [("traceparent", UNSAMPLED)]])
async def test_what_is_undetermined_is_traced_all_the_same(
    headers: list[tuple[str, bytes]],
) -> None:
    rig = Rig(trace_keep=("undetermined",))
    rig.accept(headers)
    rig.judge.answer(answer=UNDETERMINED, provenance=PROVENANCE)
    rig.clock.advance(1)
    rig.publisher.acknowledge()
    headers_out = rig.traceparents()
    spans = kept(rig, "undetermined")
    assert Counter(span.name for span in spans) == {
        "process posts": 1,
        "wait": 2,
        "judge": 2,
        "chat model": 2,
        "send stream-guard.verdicts": 2,
    }
    traces = {span.context.trace_id for span in spans if span.context}
    assert len(traces) == 1
    if headers:
        assert traces == {int(TRACE, 16)}
    assert {made[3:35] for made in headers_out} == {f"{traces.pop():032x}"}
    assert all(int(made[-2:], 16) & 1 for made in headers_out)
    chat = next(span for span in spans if span.name == "chat model")
    assert chat.attributes is not None
    assert chat.attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert chat.attributes["gen_ai.response.finish_reasons"] == ("length",)


@pytest.mark.parametrize(("category", "expected"), [("S1", 1), ("S2", 0)])
async def test_a_violation_is_kept_where_it_is_severe(category: str, expected: int) -> None:
    rig = Rig(trace_keep=("severe",), policies={"severe": SEVERE})
    rig.accept([])
    rig.judge.answer(answer=Answer("violates", category=category))
    rig.publisher.acknowledge()
    assert rig.counted("severe") == expected
    assert bool(rig.spans()) == bool(expected)


async def test_a_dead_letter_is_kept() -> None:
    rig = Rig(trace_keep=("dead_letter",))
    rig.accept([], b"Zebra-77")
    rig.publisher.acknowledge()
    names = {span.name for span in kept(rig, "dead_letter")}
    assert names == {"process posts", "send stream-guard.dead-letters"}


async def test_a_verdict_that_took_long_is_kept() -> None:
    rig = Rig(trace_keep=("slow",), trace_slow_s=2)
    rig.accept([])  # takes two seconds
    rig.finish()
    assert {span.name for span in kept(rig, "slow")} >= {"process posts", "wait", "judge"}


async def test_a_record_that_the_broker_took_long_to_acknowledge_is_kept() -> None:
    rig = Rig(trace_keep=("slow",), trace_slow_s=3)
    rig.accept([])
    rig.finish()  # one second more
    names = {span.name for span in kept(rig, "slow")}
    assert names == {"process posts", "send stream-guard.verdicts"}


async def test_nothing_is_kept_that_nobody_asked_for() -> None:
    rig = Rig(trace_keep=(), trace_slow_s=1)
    rig.accept([])
    rig.judge.answer(answer=UNDETERMINED)
    rig.publisher.acknowledge()
    rig.accept([], b"no JSON")
    rig.publisher.acknowledge()
    assert rig.spans() == []


async def test_no_more_are_kept_a_second_than_is_allowed() -> None:
    rig = Rig(trace_keep=("dead_letter",), trace_kept_per_s_max=1)
    for _ in range(3):
        rig.accept([], b"no JSON")  # takes two seconds
    assert (rig.counted("dead_letter"), rig.counted("refused")) == (3, 0)
    offsets = PartitionOffsets(PARTITION, 2)
    rig.pipeline.accept(offsets, [MemoryRecord(*PARTITION, n, value=b"no JSON") for n in range(9)])
    assert (rig.counted("dead_letter"), rig.counted("refused")) == (4, 8)


async def test_a_verdict_goes_out_before_its_record_is_kept_and_the_ids_agree() -> None:
    """Of two policies, the first decides before anything is worth keeping: its header already names the span."""
    rig = Rig(trace_keep=("undetermined",))
    rig.accept([])
    rig.judge.answer(rig.judge.waiting[:1])
    rig.judge.answer(answer=UNDETERMINED)
    rig.publisher.acknowledge()
    first, second = sorted(rig.traceparents(), key=lambda made: made[-2:])
    (process,) = (span for span in rig.spans() if span.name == "process posts")
    assert process.context is not None
    assert first == f"00-{process.context.trace_id:032x}-{process.context.span_id:016x}-00"
    assert second[3:35] == first[3:35]


def test_attributes_bear_the_conventions_names() -> None:
    source = "".join(inspect.getsource(module) for module in (spans_module, generations))
    used = set(re.findall(r'"((?:gen_ai|messaging)\.[a-z_.]+)"', source))
    known = {
        value
        for module in (gen_ai_attributes, messaging_attributes)
        for name, value in vars(module).items()
        if name.isupper()
    }
    assert len(used) > 12
    assert used <= known


@pytest.mark.parametrize("content", [False, True])
def test_content_is_in_a_span_only_where_that_is_asked_for(content: bool) -> None:  # noqa: FBT001
    rig = Rig(trace_content=content)
    begun = rig.tracing.begin(MemoryRecord(*PARTITION, 7, headers=[("traceparent", SAMPLED)]), 0)
    assert begun.span is not None
    call = generations.Call("model", 16, text=lambda: WORDS)
    span = rig.tracing.generation(begun.span, call)
    rig.tracing.generated(span, generations.Result(1, 0, 2, "stop", text=lambda: WORDS))
    (chat,) = rig.spans()
    assert (WORDS in chat.to_json()) is content


class Deaf(SpanExporter):
    """Takes spans, and never comes to an end."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        self.released.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.released.wait()


def test_a_collector_that_does_not_answer_does_not_keep_the_process() -> None:
    deaf = Deaf()
    tracing = Tracing(TelemetrySettings(), group="g", exporter=deaf)
    begun = tracing.begin(MemoryRecord(*PARTITION, 7, headers=[("traceparent", SAMPLED)]), 0)
    assert begun.span is not None
    begun.span.end()
    tracing.close(0.01)
    (thread,) = (one for one in threading.enumerate() if one.name == "last spans")
    assert thread.daemon
    deaf.released.set()
    thread.join()


class Collector(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP."""

    got: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_spans_leave_over_http_too() -> None:
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        tracing = Tracing(
            TelemetrySettings(otlp_endpoint=endpoint, otlp_protocol="http"), group="g"
        )
        record = MemoryRecord(*PARTITION, 7, headers=[("traceparent", SAMPLED)])
        begun = tracing.begin(record, 0)
        assert begun.span is not None
        begun.span.end()
        tracing.close()
        server.shutdown()
        thread.join()
    ((path, body),) = Collector.got
    assert path == "/v1/traces"
    request = ExportTraceServiceRequest.FromString(body)
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("process posts", TRACE)


def test_without_an_endpoint_nothing_of_the_engine_is_traced() -> None:
    assert _telemetry_arguments(TelemetrySettings()) == {"disable_log_stats": False}
    assert _telemetry_arguments(TelemetrySettings(engine_metrics=False)) == {}
    with_one = TelemetrySettings(otlp_endpoint="http://c:4317", engine_metrics=False)
    assert _telemetry_arguments(with_one) == {"otlp_traces_endpoint": "http://c:4317"}
    without = with_one.model_copy(update={"trace_engine": False})
    assert _telemetry_arguments(without) == {}
