"""The span of one call of the model, by OpenTelemetry's GenAI conventions.

What it must never do: carry a prompt or a completion, save where ``telemetry.trace_content`` asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

import orjson
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer


_OPERATION: Final = "chat"
_PROVIDER: Final = "vllm"
"""No name of the conventions' own list is for a model in the same process."""


class Spent(Protocol):
    """What calls for one post cost together, in tokens, and how the last one ended."""

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts."""

    @property
    def cached_tokens(self) -> int:
        """Of prompts, found in the prefix cache."""

    @property
    def output_tokens(self) -> int:
        """Of all completions."""

    @property
    def finish_reason(self) -> str:
        """Of the last completion."""


class GenerationTracer(Protocol):
    """Makes the span of each call of the model, for posts that are traced."""

    def generation(self, parent: Span, call: Call) -> Span:
        """Open the span of one call, below ``parent``."""

    def generated(self, span: Span, result: Result) -> None:
        """Close it with what came of it."""


@dataclass(slots=True, frozen=True)
class Call:
    """What the model is asked.

    Attributes:
        model: as the settings name it.
        tokens_max: of the completion; None where it is not known any more.
        started_ns: Unix time in ns; None for now.
        text: returns the post's text; called only where content is asked for.
    """

    model: str
    tokens_max: int | None = None
    started_ns: int | None = None
    text: Callable[[], str] | None = None


@dataclass(slots=True, frozen=True)
class Result:
    """What came of it; counts are tokens.

    Attributes:
        finish_reason: ``error`` and ``none`` are no answers.
        finished_ns: Unix time in ns; None for now.
        error: kind of what went wrong; None where nothing did.
        text: returns the completion's text; called only where content is asked for.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str = "none"
    finished_ns: int | None = None
    error: str | None = None
    text: Callable[[], str] | None = None

    @classmethod
    def of(cls, spent: Spent, finished_ns: int) -> Self:
        """Return what all calls for one post came to together."""
        return cls(
            spent.prompt_tokens,
            spent.cached_tokens,
            spent.output_tokens,
            spent.finish_reason,
            finished_ns or None,
        )


def begin(tracer: Tracer, context: Context, call: Call, *, content: bool) -> Span:
    """Open the span."""
    span = tracer.start_span(
        f"{_OPERATION} {call.model}",
        context=context,
        # The conventions' kind where the model runs in the same process.
        kind=SpanKind.INTERNAL,
        start_time=call.started_ns,
        attributes={
            "gen_ai.operation.name": _OPERATION,
            "gen_ai.provider.name": _PROVIDER,
            "gen_ai.request.model": call.model,
            "gen_ai.output.type": "json",
        },
    )
    if call.tokens_max is not None:
        span.set_attributes(
            {"gen_ai.request.max_tokens": call.tokens_max, "gen_ai.request.temperature": 0.0}
        )
    if content and call.text is not None:
        span.set_attribute("gen_ai.input.messages", _messages("user", call.text()))
    return span


def end(span: Span, result: Result, *, content: bool) -> None:
    """Close the span."""
    span.set_attributes(
        {
            "gen_ai.usage.input_tokens": result.input_tokens,
            "gen_ai.usage.cache_read.input_tokens": result.cached_tokens,
            "gen_ai.usage.output_tokens": result.output_tokens,
            "gen_ai.response.finish_reasons": [result.finish_reason],
        }
    )
    if content and result.text is not None:
        span.set_attribute("gen_ai.output.messages", _messages("assistant", result.text()))
    if result.error is not None:
        span.set_attribute("error.type", result.error)
        span.set_status(Status(StatusCode.ERROR, result.error))
    span.end(result.finished_ns)


def _messages(role: str, text: str) -> str:
    message = {"role": role, "parts": [{"type": "text", "content": text}]}
    return orjson.dumps([message]).decode()
