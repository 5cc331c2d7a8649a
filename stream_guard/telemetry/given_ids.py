"""Ids of spans whose ids were handed on before the span was made."""

from __future__ import annotations

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator


class GivenIds(RandomIdGenerator):
    """Random ids, save for a span that must have those that were already handed on."""

    def __init__(self) -> None:
        self.given: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        """Return the given one, or a random one."""
        return super().generate_trace_id() if self.given is None else self.given[0]

    def generate_span_id(self) -> int:
        """Return the given one, or a random one."""
        return super().generate_span_id() if self.given is None else self.given[1]
