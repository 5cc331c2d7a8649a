"""Makes one completion by two requests, where one cannot do it.

:class:`TwoParts`: always, the reasoning without a constraint and then the answer under one. :class:`Bounded`: where
the reasoning may have reached its budget. vLLM can count against a budget itself. It then searches the tokens of each
post for the reasoning's end in each step, which costs more than a second request for a few posts.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from stream_guard.judging.engine.client import Completion, with_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vllm import SamplingParams

    from stream_guard.judging.engine.client import VllmClient
    from stream_guard.judging.families.family import Reasoning

__all__ = ["Bounded", "TwoParts"]


class TwoParts(NamedTuple):
    """The first of two requests, and the tokens around what it writes.

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

    def seeded(self, seed: int) -> TwoParts:
        """Return a copy whose first request is drawn with this seed."""
        return self._replace(thinking=with_seed(self.thinking, seed))

    async def complete(
        self,
        client: VllmClient,
        prompt: list[int],
        params: SamplingParams,
        request_id: str,
        trace_headers: dict[str, str] | None,
    ) -> Completion:
        """Complete a prompt; the result is as of one request that wrote everything. The second prompt is mostly cached.

        Args:
            client: the running engine.
            prompt: its token ids.
            params: the second request's sampling parameters.
            request_id: of the first request; the second's has "-answer" behind it.
            trace_headers: of both.

        Raises:
            PromptError: the engine rejects the prompt.
            EngineError: the engine is dead.
        """
        begun = [*prompt, *self.opening]
        first = await client.generate(begun, self.thinking, request_id, trace_headers)
        if first.finish_reason not in ("stop", "length"):
            return first
        thought = itertools.takewhile(lambda token: token not in self.stops, first.ids)
        written = [*self.opening, *thought, *self.closing]
        asked = [*prompt, *written]
        second = await client.generate(asked, params, f"{request_id}-answer", trace_headers)
        return _joined(first, written, second, len(asked))


class Bounded(NamedTuple):
    """A first request that can reach the reasoning's budget and not pass it.

    Attributes:
        reasoning: where it is, and how it ends.
        thinking: the first request's sampling parameters. Its length is the opening's and the budget.
    """

    reasoning: Reasoning
    thinking: SamplingParams

    def seeded(self, seed: int) -> Bounded:
        """Return a copy whose first request is drawn with this seed."""
        return self._replace(thinking=with_seed(self.thinking, seed))

    async def complete(
        self,
        client: VllmClient,
        prompt: list[int],
        params: SamplingParams,
        request_id: str,
        trace_headers: dict[str, str] | None,
    ) -> Completion:
        """Complete a prompt; most completions end within the first request.

        If one does not, a second request goes on behind it. If the reasoning goes on, it is ended first.

        Args:
            client: the running engine.
            prompt: its token ids.
            params: sampling parameters of the whole completion.
            request_id: of the first request; the second's has "-more" behind it.
            trace_headers: of both.

        Raises:
            PromptError: the engine rejects the prompt.
            EngineError: the engine is dead.
        """
        first = await client.generate(prompt, self.thinking, request_id, trace_headers)
        opening, ends, closing = self.reasoning
        if first.finish_reason != "length" or tuple(first.ids[: len(opening)]) != opening:
            return first
        written = list(first.ids)
        if ends.isdisjoint(written[len(opening) :]):
            written += closing
        asked = [*prompt, *written]
        rest = params.clone()
        assert params.max_tokens is not None, "every attempt has a limit"
        rest.max_tokens = params.max_tokens - len(written)
        second = await client.generate(asked, rest, f"{request_id}-more", trace_headers)
        return _joined(first, written, second, len(asked))


def _joined(
    first: Completion, written: Sequence[int], second: Completion, asked_tokens: int
) -> Completion:
    """Return two completions as one. The first one's probabilities count where the second one's follow them at once."""
    logprobs, logprobs_from = second.logprobs, len(written) + second.logprobs_from
    follow = logprobs_from == len(first.ids)
    if None not in (first.logprobs, logprobs) and follow:
        logprobs, logprobs_from = [*first.logprobs, *logprobs], first.logprobs_from
    return Completion(
        [*written, *second.ids],
        second.finish_reason,
        first.cached_tokens + second.cached_tokens,
        logprobs,
        logprobs_from,
        asked_tokens,
        len(first.ids) + len(second.ids),
    )
