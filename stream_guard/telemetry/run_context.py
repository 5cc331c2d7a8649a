"""The span of the run of the process, for log lines of threads, which have no context of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_current: SpanContext | None = None


def set_run_context(context: SpanContext | None) -> None:
    """Set the context of the run; None at its end."""
    global _current  # noqa: PLW0603 - threads have no other access to it
    _current = context


def run_context() -> SpanContext | None:
    """Return the context of the run; None outside one."""
    return _current
