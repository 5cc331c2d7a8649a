"""Makes the OTLP exporter of spans: gRPC or HTTP, as the settings say. Only that one is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExporter

if TYPE_CHECKING:
    from stream_guard.settings import TelemetrySettings

__all__ = ["SpanExporter", "make_exporter"]


def make_exporter(settings: TelemetrySettings) -> SpanExporter | None:
    """Return the exporter, not yet connected; None without ``telemetry.otlp_endpoint``."""
    if settings.otlp_endpoint is None:
        return None
    if settings.otlp_protocol == "http":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter as HttpExporter,
        )

        return HttpExporter(endpoint=settings.otlp_endpoint.rstrip("/") + "/v1/traces")
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
        OTLPSpanExporter as GrpcExporter,
    )

    return GrpcExporter(
        endpoint=settings.otlp_endpoint, insecure=settings.otlp_endpoint.startswith("http://")
    )
