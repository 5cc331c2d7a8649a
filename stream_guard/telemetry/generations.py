"""The span of one call of the model, by OpenTelemetry's GenAI conventions.

A span holds the prompt and the completion only with ``telemetry.trace_content``.
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
"""The conventions have no provider name for a model in the same process."""


class Spent(Protocol):
    """The tokens of all calls for one post together, and how the last call ended."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens found in the prefix cache."""

    @property
    def output_tokens(self) -> int:
        """Tokens of all completions."""

    @property
    def finish_reason(self) -> str:
        """The finish reason of the last completion."""


class GenerationTracer(Protocol):
    """Makes a span for each call of the model, for traced posts."""

    def generation(self, parent: Span, call: Call) -> Span:
        """Start the span of one call as a child of ``parent``."""

    def generated(self, span: Span, result: Result) -> None:
        """End the span with the result."""


@dataclass(slots=True, frozen=True)
class Call:
    """A call of the model.

    Attributes:
        model: the model's name in the settings.
        tokens_max: limit of the completion, in tokens; None if unknown.
        started_ns: start, Unix time in ns; None for now.
        text: returns the post's text; called only if spans hold content.
        temperature, top_p: how the tokens are drawn.
    """

    model: str
    tokens_max: int | None = None
    started_ns: int | None = None
    text: Callable[[], str] | None = None
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(slots=True, frozen=True)
class Result:
    """The result of a call; counts are tokens.

    Attributes:
        finish_reason: vLLM's word; ``error`` and ``none`` mean that there is no answer.
        finished_ns: end, Unix time in ns; None for now.
        error: kind of the error; None if there was none.
        text: returns the completion's text; called only if spans hold content.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str = "none"
    finished_ns: int | None = None
    error: str | None = None
    text: Callable[[], str] | None = None

    @classmethod
    def from_spent(cls, spent: Spent, finished_ns: int) -> Self:
        """Return the result of all calls for one post together."""
        return cls(
            spent.prompt_tokens,
            spent.cached_tokens,
            spent.output_tokens,
            spent.finish_reason,
            finished_ns or None,
        )


def begin(tracer: Tracer, context: Context, call: Call, *, content: bool) -> Span:
    """Start the span of a call."""
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
            {
                "gen_ai.request.max_tokens": call.tokens_max,
                "gen_ai.request.temperature": call.temperature,
                "gen_ai.request.top_p": call.top_p,
            }
        )
    if content and call.text is not None:
        span.set_attribute("gen_ai.input.messages", _messages("user", call.text()))
    return span


def end(span: Span, result: Result, *, content: bool) -> None:
    """End the span of a call."""
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
