"""Reads and writes the ``traceparent`` header of Kafka records (W3C Trace Context, level 1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import Span, SpanContext, TraceFlags

if TYPE_CHECKING:
    from stream_guard.core.kafka_types import Record

__all__ = ["Span", "format_traceparent", "read_traceparent"]

# An id of zeros alone is invalid.
_TRACEPARENT: Final = re.compile(
    rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)


def format_traceparent(context: SpanContext) -> str:
    """Return the header's value for a span's context."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def read_traceparent(record: Record) -> tuple[str, SpanContext] | None:
    """Return a record's first ``traceparent`` and its context; None if it is missing or malformed."""
    for name, value in record.headers:
        if name == "traceparent":
            match = _TRACEPARENT.fullmatch(value or b"")
            if match is None:
                return None
            flags = TraceFlags(int(match[3], 16) & TraceFlags.SAMPLED)
            ids = int(match[1], 16), int(match[2], 16)
            return value.decode("ascii"), SpanContext(*ids, is_remote=True, trace_flags=flags)
    return None
