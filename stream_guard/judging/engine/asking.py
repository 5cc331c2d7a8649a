"""Asks the engine about one post: attempt by attempt, until an answer can be read or no attempt is left.

Where a policy or a rung wants several samples, each of them is asked so, side by side, and they vote.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import EngineHungError, PromptError, StreamGuardError
from stream_guard.judging.contract import Answer, Judgement, Provenance, Sampled, Thought
from stream_guard.judging.engine.client import PROBE_TIMEOUT_S, with_seed
from stream_guard.judging.engine.confidence import (
    SURE,
    label_probability,
    pair_probability,
    token_probability,
)
from stream_guard.judging.engine.voting import Cast, decide, seed_of
from stream_guard.judging.families.family import exchange_of, hash_ids
from stream_guard.telemetry.generations import Call, Result
from stream_guard.telemetry.trace_context import format_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vllm import SamplingParams

    from stream_guard.core.errors import RecordError
    from stream_guard.judging.contract import FinishReason, JudgeRequest
    from stream_guard.judging.engine.client import Completion, VllmClient
    from stream_guard.judging.engine.plans import Attempt, Plan
    from stream_guard.judging.engine.steps import Compilations
    from stream_guard.judging.engine.two_parts import Bounded, TwoParts
    from stream_guard.judging.families.family import Exchange, Family, Reading
    from stream_guard.settings import EngineSettings
    from stream_guard.telemetry.generations import GenerationTracer

TIER: Final = "safeguard"
CONFIDENCE_METHOD: Final = "violation_token_probability_after_reasoning"
"""P(violation) from the label's token, given this reasoning. It saturates, so calibrate it on labelled posts."""
SAMPLES_METHOD: Final = "self_consistency"
"""The share of samples that say violation."""
_TIMEOUT: Final = Answer("undetermined", parse_status="timeout")
_RETRIED: Final = frozenset({"malformed", "empty", "truncated"})


@dataclass(slots=True, frozen=True)
class Observers:
    """Who sees more of a completion than its judgement.

    Attributes:
        keep_thoughts: whether judgements carry the chain of thought, for the reasoning topic.
        listen: called with each attempt, prompt and completion, for a person at a terminal; or None.
        tracing: makes a span of each call for a traced post; or None.
        compiled: called with what the engine compiled while it judged posts; or None.
    """

    keep_thoughts: bool = False
    listen: Callable[[Exchange], None] | None = None
    tracing: GenerationTracer | None = None
    compiled: Callable[[Compilations], None] | None = None


@dataclass(slots=True)
class _Sample:
    """One sample of a post's answers: its tokens over all attempts, and how the last attempt ended.

    Attributes:
        number: of the sample, from 0.
        answer: that of a timeout until it is finished.
    """

    number: int
    answer: Answer = field(default=_TIMEOUT)
    confidence: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    attempts: int = 0
    finish_reason: FinishReason = "none"
    reasoning_cut: bool = False
    thoughts: tuple[Thought, ...] = ()


class Asker:
    """Asks one model.

    Args:
        settings: model and timeout.
        client: the running engine.
        family: of the model.
        params: the sampling parameters of an attempt at a request.
        observers: see :class:`Observers`.
    """

    def __init__(
        self,
        settings: EngineSettings,
        client: VllmClient,
        family: Family,
        *,
        params: Callable[[JudgeRequest, Attempt], SamplingParams],
        observers: Observers,
    ) -> None:
        self._settings = settings
        self._client = client
        self._family = family
        self._params = params
        self._observers = observers
        self._ids = itertools.count()

    async def ask(
        self,
        request: JudgeRequest,
        prompt: list[int],
        plan: Plan,
        started_ns: int,
        timeout_s: float | None = None,
    ) -> Judgement | None:
        """Return the judgement of one post, or None if the engine has died.

        Args:
            request: what to judge.
            prompt: its token ids.
            plan: how to ask.
            started_ns: when the request was admitted, Unix time in ns.
            timeout_s: in place of ``engine.request_timeout_s``, where part of it is over.

        Raises:
            EngineHungError: the engine did not answer within the timeout, nor a probe after it.
            EngineError: the engine is dead.
        """
        samples = [_Sample(number) for number in range(plan.decoding.samples)]
        error: RecordError | None = None
        try:
            async with asyncio.timeout(timeout_s or self._settings.request_timeout_s):
                await self._sample_all(request, prompt, plan, samples)
        except TimeoutError:
            if not await self._client.answers():
                message = (
                    f"the engine hangs: it did not finish a post within {self._settings.request_timeout_s:g} s "
                    f"(engine.request_timeout_s), nor answer a probe within {PROBE_TIMEOUT_S} s"
                )
                raise EngineHungError(message) from None
            # Samples that are finished vote; the others have no answer.
        except PromptError as caught:
            error = caught
        if self._client.is_dead():
            return None
        outcome = decide([Cast(each.answer, each.reasoning_cut) for each in samples])
        confidence, method = samples[0].confidence, CONFIDENCE_METHOD
        if len(samples) > 1:
            confidence, method = outcome.confidence, SAMPLES_METHOD
        provenance = self._provenance(plan, samples, prompt)
        provenance.finish_reason = samples[outcome.chosen].finish_reason
        provenance.reasoning_cut = outcome.reasoning_cut
        if plan.decoding.temperature > 0:
            provenance.sampling = Sampled(*plan.decoding, votes=outcome.votes)
        return Judgement(
            request,
            answer=outcome.answer if error is None else None,
            error=error,
            provenance=provenance,
            confidence=confidence,
            confidence_method=method if confidence is not None else None,
            started_ns=started_ns,
            finished_ns=time.time_ns(),
            thoughts=tuple(itertools.chain.from_iterable(each.thoughts for each in samples)),
        )

    async def _sample_all(
        self, request: JudgeRequest, prompt: list[int], plan: Plan, samples: Sequence[_Sample]
    ) -> None:
        """Ask for all samples side by side; if one fails, stop the others."""
        if len(samples) == 1:
            await self._attempt(request, prompt, plan, samples[0])
            return
        tasks = [
            asyncio.create_task(self._attempt(request, prompt, plan, sample)) for sample in samples
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _attempt(
        self, request: JudgeRequest, prompt: list[int], plan: Plan, sample: _Sample
    ) -> None:
        """Try until an answer can be read, each time with a smaller budget."""
        answer = Answer("undetermined", parse_status="malformed")
        for attempt in plan.attempts:
            if attempt.allows is not None and plan.first.stopped:
                continue
            sample.attempts += 1
            sample.prompt_tokens += len(prompt)
            sample.reasoning_cut = False
            completion = await self._generate(request, prompt, plan, attempt, sample)
            ids = list(completion.ids)
            sample.finish_reason = completion.finish_reason
            self._count(sample, completion)
            self._show(request, prompt, plan, ids, sample)
            if attempt.allows is not None and not (
                completion.finish_reason == "stop" and attempt.allows(ids)
            ):
                # Never read leniently: the next attempt has the constraint.
                plan.first.record(counts=False)
                continue
            if completion.finish_reason not in ("stop", "length"):
                # "none" is an abort that we did not request, "error" a failed grammar: neither is an answer.
                answer = Answer("undetermined", parse_status="malformed")
                continue
            reading = self._family.read(
                ids, request.policy, complete=completion.finish_reason == "stop"
            )
            answer = reading.answer
            # At its budget the grammar ends the reasoning, and the model answers with an unfinished thought.
            sample.reasoning_cut = reading.reasoning_tokens >= attempt.reasoning_tokens_max
            if attempt.allows is not None:
                plan.first.record(counts=answer.parse_status == "ok")
                if answer.parse_status != "ok":
                    continue
            if answer.parse_status not in _RETRIED:
                sample.answer = answer  # also if the time ends before its confidence is known
                if plan.decoding.samples == 1:  # of several samples the votes are the confidence
                    sample.confidence = await self._confidence(
                        request, prompt, completion, reading, attempt, sample
                    )
                break
        sample.answer = answer

    @staticmethod
    def _count(sample: _Sample, completion: Completion) -> None:
        """Add what a completion spent, besides its first prompt."""
        written = completion.output_tokens
        sample.prompt_tokens += completion.more_prompt_tokens
        sample.cached_tokens += completion.cached_tokens
        sample.output_tokens += len(completion.ids) if written is None else written

    def _show(
        self, request: JudgeRequest, prompt: list[int], plan: Plan, ids: list[int], sample: _Sample
    ) -> None:
        """Pass the completion on to the observers that want it."""
        observers = self._observers
        if observers.keep_thoughts and (text := self._family.reasoning(ids)):
            sample.thoughts += (Thought(plan.effort, text),)
        if observers.listen is not None:
            observers.listen(exchange_of(self._family, request.id, plan.effort, prompt, ids))

    async def _generate(
        self,
        request: JudgeRequest,
        prompt: list[int],
        plan: Plan,
        attempt: Attempt,
        sample: _Sample,
    ) -> Completion:
        """Ask the engine once, in a span of its own if the post is traced."""
        params, parts = self._params(request, attempt), attempt.parts
        if plan.decoding.temperature > 0:
            seed = seed_of(request, plan.effort, sample.number, sample.attempts)
            params = with_seed(params, seed)
            if parts is not None:
                parts = parts.seeded(seed)
        request_id = f"{request.id}-{next(self._ids)}"
        tracing = self._observers.tracing
        if request.span is None or tracing is None:
            return await self._complete(prompt, params, parts, request_id, request.trace_headers)
        text, decode = request.post.text, self._family.decode
        call = Call(
            self._settings.model,
            attempt.tokens_max,
            text=lambda: text,
            temperature=plan.decoding.temperature,
            top_p=plan.decoding.top_p,
        )
        span = tracing.generation(request.span, call)
        headers = {"traceparent": format_traceparent(span.get_span_context())}
        result = Result(error="cancelled")
        try:
            completion = await self._complete(prompt, params, parts, request_id, headers)
            failed = completion.finish_reason in ("error", "none")
            result = Result(
                len(prompt),
                completion.cached_tokens,
                len(completion.ids),
                completion.finish_reason,
                error=completion.finish_reason if failed else None,
                text=lambda: decode(completion.ids),
            )
        except StreamGuardError as error:
            result = Result(error=type(error).__name__)
            raise
        finally:
            tracing.generated(span, result)
        return completion

    async def _complete(
        self,
        prompt: list[int],
        params: SamplingParams,
        parts: TwoParts | Bounded | None,
        request_id: str,
        headers: dict[str, str] | None,
    ) -> Completion:
        if parts is None:
            return await self._client.generate(prompt, params, request_id, headers)
        return await parts.complete(self._client, prompt, params, request_id, headers)

    async def _confidence(
        self,
        request: JudgeRequest,
        prompt: list[int],
        completion: Completion,
        reading: Reading,
        attempt: Attempt,
        sample: _Sample,
    ) -> float | None:
        """Return P(violates) against P(safe); None where the answer has no token for it."""
        labels, position = reading.label_tokens or self._family.labels, reading.label_position
        if labels is None or position is None:
            return None
        token = completion.ids[position]
        at = position - completion.logprobs_from
        probability = token_probability(completion.logprobs, at, token)
        if probability is None:
            return None
        if attempt.allows is None or probability >= SURE:
            return label_probability(probability, token, labels)
        return await self._pair(request, [*prompt, *completion.ids[:position]], labels, sample)

    async def _pair(
        self, request: JudgeRequest, prompt: list[int], labels: tuple[int, int], sample: _Sample
    ) -> float | None:
        """Ask for both labels' probabilities at the label's place. Most of that prompt is cached.

        Asking for both in each step of each post would cost vLLM a loop over all posts.
        """
        completion = await self._client.generate(
            prompt,
            self._client.pair_params(labels),
            f"{request.id}-{next(self._ids)}",
            request.trace_headers,
        )
        sample.prompt_tokens += len(prompt)
        self._count(sample, completion)
        if not completion.logprobs:
            return None
        return pair_probability(completion.logprobs[0], labels)

    def _provenance(self, plan: Plan, samples: Sequence[_Sample], prompt: list[int]) -> Provenance:
        """Return what all samples together spent."""
        return Provenance(
            tier=TIER,
            model=self._settings.model,
            revision=self._settings.revision,
            engine_version=self._client.version,
            effort=plan.effort,
            prompt_sha256=plan.prefix.sha256,
            prompt_tokens=sum(each.prompt_tokens for each in samples),
            cached_tokens=sum(each.cached_tokens for each in samples),
            output_tokens=sum(each.output_tokens for each in samples),
            attempts=max(1, sum(each.attempts for each in samples)),
            prompt_ids_sha256=hash_ids(prompt),
        )
