"""A real receiver of OTLP over gRPC, by the protocol's own published definitions, that keeps what it is sent."""

from __future__ import annotations

import contextlib
from concurrent import futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass
class Span:
    """One span as it came over the wire; ids are hex digits, as in a ``traceparent``."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    service: str
    error: bool
    attributes: dict[str, Any]
    links: list[tuple[str, str]]

    @property
    def place(self) -> tuple[str, str]:
        """Return what a link to it says."""
        return self.trace_id, self.span_id


@dataclass
class Receiver(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc] # generated, without types
    """Takes exports, and keeps each as its bytes and as its spans."""

    port: int = 0
    raw: list[bytes] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def Export(  # noqa: N802 - the protocol's name
        self, request: ExportTraceServiceRequest, context: object
    ) -> ExportTraceServiceResponse:
        """Take one export."""
        del context
        self.raw.append(request.SerializeToString())
        self.spans += spans_of(request)
        return ExportTraceServiceResponse()

    def named(self, prefix: str, trace_id: str | None = None) -> list[Span]:
        """Return the spans whose name begins so, of one trace or of all."""
        return [
            span
            for span in self.spans
            if span.name.startswith(prefix) and trace_id in (None, span.trace_id)
        ]


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    """Return the spans of one export."""
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.kind,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            next(a.value.string_value for a in part.resource.attributes if a.key == "service.name"),
            span.status.code == span.status.STATUS_CODE_ERROR,
            {pair.key: _value(pair.value) for pair in span.attributes},
            [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        )
        for part in request.resource_spans
        for scope in part.scope_spans
        for span in scope.spans
    ]


def _value(value: AnyValue) -> Any:  # noqa: ANN401 - whatever it holds
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    receiver.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver
    finally:
        server.stop(1).wait()
