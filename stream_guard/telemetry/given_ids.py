"""An id generator for spans whose ids were already sent to others."""

from __future__ import annotations

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator


class GivenIds(RandomIdGenerator):
    """Random ids, or the given ids for a span whose ids are already known elsewhere."""

    def __init__(self) -> None:
        self.given: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        """Return the given id, or a random one."""
        return super().generate_trace_id() if self.given is None else self.given[0]

    def generate_span_id(self) -> int:
        """Return the given id, or a random one."""
        return super().generate_span_id() if self.given is None else self.given[1]
