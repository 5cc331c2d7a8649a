"""Makes one completion by two requests: the reasoning without a constraint, then the answer under one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from stream_guard.judging.engine.client import Completion

if TYPE_CHECKING:
    from vllm import SamplingParams

    from stream_guard.judging.engine.client import VllmClient

__all__ = ["TwoParts", "complete_in_parts"]


class TwoParts(NamedTuple):
    """The first request, and the tokens around what it writes.

    Attributes:
        opening: tokens before the reasoning.
        thinking: the first request's sampling parameters.
        stops: tokens that end the reasoning.
        closing: tokens between reasoning and answer.
    """

    opening: tuple[int, ...]
    thinking: SamplingParams
    stops: frozenset[int]
    closing: tuple[int, ...]


async def complete_in_parts(
    client: VllmClient,
    prompt: list[int],
    parts: TwoParts,
    params: SamplingParams,
    request_id: str,
    trace_headers: dict[str, str] | None,
) -> Completion:
    """Complete a prompt; the result is as of one request that wrote everything. The second prompt is mostly cached.

    Args:
        client: the running engine.
        prompt: its token ids.
        parts: the first request.
        params: the second request's sampling parameters.
        request_id: of the first request; the second's has "-answer" behind it.
        trace_headers: of both.

    Raises:
        PromptError: the engine rejects the prompt.
        EngineError: the engine is dead.
    """
    begun = [*prompt, *parts.opening]
    first = await client.generate(begun, parts.thinking, request_id, trace_headers)
    if first.finish_reason not in ("stop", "length"):
        return first
    thought = itertools.takewhile(lambda token: token not in parts.stops, first.ids)
    written = [*parts.opening, *thought, *parts.closing]
    asked = [*prompt, *written]
    second = await client.generate(asked, params, f"{request_id}-answer", trace_headers)
    return Completion(
        [*written, *second.ids],
        second.finish_reason,
        first.cached_tokens + second.cached_tokens,
        second.logprobs,
        len(written),
        len(asked),
        len(first.ids) + len(second.ids),
    )
