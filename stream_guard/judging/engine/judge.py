"""The judge that asks gpt-oss-safeguard, through vLLM in this process.

Requests wait in a queue of our own and are fed to the engine up to a limit, each for itself: a slow post holds
back no other, and the engine batches without gaps. What it must never do: take an aborted completion for an
answer, retry without end, or go on pretending once the engine has died or hangs.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import EngineError, EngineHungError, PromptError, StreamGuardError
from stream_guard.judging.contract import Answer, Judgement, Provenance
from stream_guard.judging.engine.client import (
    PROBE_TIMEOUT_S,
    VllmClient,
    in_thread,
    violation_probability,
)
from stream_guard.judging.engine.plans import Planner
from stream_guard.judging.engine.warm_up import WarmUp
from stream_guard.judging.families.harmony.answer import read_answer, violation_position
from stream_guard.judging.families.harmony.prompt import PromptBuilder, hash_ids
from stream_guard.judging.families.harmony.reasoning import read_thought
from stream_guard.judging.families.harmony.tokenizer import load_tokenizer, read_config
from stream_guard.telemetry.generations import Call, Result
from stream_guard.telemetry.trace_context import format_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vllm import SamplingParams

    from stream_guard.core.errors import RecordError
    from stream_guard.judging.contract import FinishReason, JudgeRequest, Thought
    from stream_guard.judging.engine.client import Completion
    from stream_guard.judging.engine.plans import Attempt, Plan
    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer
    from stream_guard.judging.families.harmony.transcript import Listener
    from stream_guard.judging.tiers.ladder import Rung
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import EngineSettings
    from stream_guard.telemetry.generations import GenerationTracer

TIER: Final = "safeguard"
CONFIDENCE_METHOD: Final = "violation_token_probability_after_reasoning"
"""P(violation) by the answer's 0 or 1, given this reasoning: it saturates, so calibrate it on labelled posts."""
BUILT_PER_TURN_MAX: Final = 4
"""Prompts built before the event loop gets a turn."""
_RETRIED: Final = frozenset({"malformed", "empty", "truncated"})


@dataclass(slots=True, eq=False)
class _Job:
    request: JudgeRequest
    deliver: Callable[[Sequence[Judgement]], None]
    prompt: list[int] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Spent:
    """Tokens spent on one post, over its attempts."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    attempts: int = 0
    finish_reason: FinishReason = "none"
    thoughts: tuple[Thought, ...] = ()


class VllmJudge:
    """Judges with the model that the settings name; see :class:`stream_guard.judging.contract.Judge`.

    Args:
        settings: model, engine, budgets and limits.
        rungs: efforts and budgets at which requests under a policy may ask, the commonest first; those after it
            have their grammars compiled. By default each policy's own alone.
        keep_thoughts: whether judgements carry the chain of thought.
        listen: told of each attempt, prompt and completion, for a person who asks; by default nobody is.
        tracing: makes a span of each call for a post that is traced.
    """

    def __init__(
        self,
        settings: EngineSettings,
        rungs: Callable[[Policy], Sequence[Rung]] | None = None,
        *,
        keep_thoughts: bool = False,
        listen: Listener | None = None,
        tracing: GenerationTracer | None = None,
    ) -> None:
        self._settings = settings
        self._keep_thoughts = keep_thoughts
        self._listen = listen
        self._tracing = tracing
        self._rungs = rungs or (lambda _: ())
        self._client = VllmClient(settings)
        self._requests_max = settings.in_flight_requests_max or 2 * settings.max_num_seqs
        self._tokens_max = settings.in_flight_tokens_max
        self._jobs: dict[str, _Job] = {}
        self._queue: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._running_tokens = 0
        self._done: list[tuple[_Job, Judgement]] = []
        self._wake = asyncio.Event()
        self._failed: asyncio.Future[BaseException] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ids = itertools.count()
        self._model_len_max = settings.max_model_len
        self._digits: tuple[int, int] | None = None
        self._tokenizer: HarmonyTokenizer
        self._builder: PromptBuilder
        self._planner: Planner

    # Life

    async def start(self, policies: PolicySet) -> None:
        """Start the engine and try every policy once, so that no post meets a cold start."""
        self._failed = asyncio.get_running_loop().create_future()
        read = asyncio.create_task(in_thread(self._read_model))
        try:
            # What is wrong with the model shows in a second; vLLM would say so after twenty, less plainly.
            await read
            await self._client.start()
            self._model_len_max = self._client.model_len_max
            self._tasks = [
                asyncio.create_task(self._feed(), name="engine feed"),
                asyncio.create_task(self._watch(), name="engine watch"),
            ]
            await self.prepare(policies)
        except BaseException:
            if not read.done():
                await asyncio.gather(read, return_exceptions=True)
            raise

    def _read_model(self) -> None:
        read_config(self._settings)
        self._tokenizer = load_tokenizer(self._settings)
        self._builder = PromptBuilder(
            self._tokenizer, self._tokenizer.control, self._settings.prompt_date
        )
        zero, one = self._tokenizer.token_id("0"), self._tokenizer.token_id("1")
        self._digits = (zero, one) if zero is not None and one is not None else None
        self._planner = Planner(
            self._settings, self._builder, self._tokenizer.control, self._make_params
        )

    def _make_params(self, tag: str, tokens_max: int) -> SamplingParams:
        return self._client.sampling_params(
            tag=tag, tokens_max=tokens_max, probabilities=self._digits is not None
        )

    async def prepare(self, policies: PolicySet) -> None:
        """Compile every policy's grammars, and put its prefix into the engine's cache.

        Raises:
            PolicyError: a policy leaves no room for an answer.
            EngineError: the engine cannot complete a policy's prompt.
        """
        warm_up = WarmUp(
            self._client,
            self._planner,
            self._builder,
            self._tokenizer.control,
            self._model_len_max,
        )
        for policy in policies.policies.values():
            await warm_up.run(policy, self._rungs(policy))

    async def wait_failed(self) -> BaseException:
        """Return the error after which nothing more is delivered."""
        assert self._failed is not None, "start() comes first"
        return await asyncio.shield(self._failed)

    def describe(self) -> Mapping[str, str]:
        """Name the model, its revision, and the engine's build."""
        return {
            "engine": "vllm",
            "version": self._client.version,
            "model": self._settings.model,
            "revision": self._settings.revision or "",
        }

    async def kill(self) -> None:
        """End the engine's processes at once, stopped ones too; :meth:`close` comes after."""
        await self._client.kill()

    async def close(self) -> None:
        """Drop what is in flight and stop the engine; no process of it is left."""
        tasks = [*self._tasks, *(job.task for job in self._running if job.task)]
        self._jobs.clear()
        self._queue.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        del tasks
        await self._client.close()

    async def _watch(self) -> None:
        self._fail(await self._client.wait_dead())

    def _fail(self, error: BaseException) -> None:
        """Deliver nothing any more, and say why."""
        assert self._failed is not None
        self._done.clear()
        if not self._failed.done():
            self._failed.set_result(error)

    def _has_failed(self) -> bool:
        return self._failed is not None and self._failed.done()

    # Requests

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        """Queue requests; each comes back in some call of ``deliver``."""
        for request in requests:
            job = _Job(request, deliver)
            self._jobs[request.id] = job
            self._queue.append(job)
        self._wake.set()

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        """Stop work on these; none of them is delivered any more."""
        for request in requests:
            job = self._jobs.pop(request.id, None)
            if job is not None and job.task is not None:
                job.task.cancel()

    def in_flight(self) -> int:
        """Requests taken and not yet delivered."""
        return len(self._jobs)

    async def _feed(self) -> None:
        """Admit queued requests to the engine while there is room."""
        built = 0
        while True:
            if not self._queue or not self._has_room():
                self._wake.clear()
                await self._wake.wait()
                built = 0
                continue
            job = self._queue.popleft()
            if self._jobs.get(job.request.id) is not job or self._has_failed():
                continue
            self._admit(job)
            built += 1
            if built % BUILT_PER_TURN_MAX == 0:
                await asyncio.sleep(0)

    def _has_room(self) -> bool:
        if len(self._running) >= self._requests_max:
            return False
        return self._tokens_max is None or self._running_tokens < self._tokens_max

    def _admit(self, job: _Job) -> None:
        """Build the prompt and give it to the engine, or settle what cannot be given."""
        started_ns = time.time_ns()
        try:
            request = job.request
            plan = self._planner.plan(request.policy, request.effort, request.reasoning_tokens_max)
            job.prompt = self._builder.build(request.post, plan.prefix)
            self._check_length(job.prompt, plan)
        except PromptError as error:
            self._settle(
                job,
                Judgement(
                    job.request, error=error, started_ns=started_ns, finished_ns=time.time_ns()
                ),
            )
            return
        self._running.add(job)
        self._running_tokens += len(job.prompt)
        job.task = asyncio.create_task(self._run(job, plan, started_ns))
        job.task.add_done_callback(lambda _: self._release(job))

    def _check_length(self, prompt: list[int], plan: Plan) -> None:
        answer_max = plan.attempts[0].tokens_max
        if len(prompt) + answer_max > self._model_len_max:
            message = (
                f"the prompt has {len(prompt)} tokens and the answer up to {answer_max}, over the "
                f"engine's {self._model_len_max} (engine.max_model_len)"
            )
            raise PromptError(message)

    def _release(self, job: _Job) -> None:
        self._running.discard(job)
        self._running_tokens -= len(job.prompt)
        self._wake.set()

    def _settle(self, job: _Job, judgement: Judgement) -> None:
        """Deliver with all else that is settled in this turn of the event loop."""
        if not self._done:
            asyncio.get_running_loop().call_soon(self._flush)
        self._done.append((job, judgement))

    def _flush(self) -> None:
        done, self._done = self._done, []
        groups: dict[Callable[[Sequence[Judgement]], None], list[Judgement]] = {}
        for job, judgement in done:
            # Cancelled in the meantime: not delivered any more.
            if self._jobs.get(job.request.id) is job:
                del self._jobs[job.request.id]
                groups.setdefault(job.deliver, []).append(judgement)
        for deliver, judgements in groups.items():
            deliver(judgements)

    # One post

    async def _run(self, job: _Job, plan: Plan, started_ns: int) -> None:
        spent = _Spent()
        confidence: float | None = None
        error: RecordError | None = None
        answer: Answer | None = None
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                answer, confidence = await self._judge(job, plan, spent)
        except TimeoutError:
            if not await self._client.answers():
                message = (
                    f"the engine hangs: it finished nothing of a post within {self._settings.request_timeout_s:g} s "
                    f"(engine.request_timeout_s), nor answered a call within {PROBE_TIMEOUT_S} s"
                )
                self._fail(EngineHungError(message))
                return
            answer = Answer("undetermined", parse_status="timeout")
        except PromptError as caught:
            error = caught
        except EngineError as caught:
            self._fail(caught)
            return
        if self._client.is_dead():
            return
        self._settle(
            job,
            Judgement(
                job.request,
                answer=answer,
                error=error,
                provenance=self._provenance(plan, spent, job.prompt),
                confidence=confidence,
                confidence_method=CONFIDENCE_METHOD if confidence is not None else None,
                started_ns=started_ns,
                finished_ns=time.time_ns(),
                thoughts=spent.thoughts,
            ),
        )

    async def _judge(self, job: _Job, plan: Plan, spent: _Spent) -> tuple[Answer, float | None]:
        """Try until an answer can be read, each time with a smaller budget."""
        answer = Answer("undetermined", parse_status="malformed")
        taxonomy, tokenizer = job.request.policy.taxonomy, self._tokenizer
        for attempt in plan.attempts:
            spent.attempts += 1
            spent.prompt_tokens += len(job.prompt)
            completion = await self._generate(job, attempt)
            ids = list(completion.ids)
            spent.finish_reason = completion.finish_reason
            spent.cached_tokens += completion.cached_tokens
            spent.output_tokens += len(ids)
            if self._keep_thoughts:
                spent.thoughts += read_thought(ids, tokenizer.control, tokenizer, plan.effort)
            if self._listen is not None:
                self._listen(job.request.id, plan.effort, job.prompt, ids, self._tokenizer)
            if completion.finish_reason not in ("stop", "length"):
                # "none" is an abort that we did not ask for, "error" a grammar gone wrong: neither answers.
                answer = Answer("undetermined", parse_status="malformed")
                continue
            reading = read_answer(
                ids,
                taxonomy,
                tokenizer.control,
                tokenizer,
                complete=completion.finish_reason == "stop",
            )
            answer = reading.answer
            if answer.parse_status not in _RETRIED:
                return answer, self._confidence(completion, reading)
        return answer, None

    async def _generate(self, job: _Job, attempt: Attempt) -> Completion:
        """Ask the engine once, in a span of its own where the post is traced."""
        request, params = job.request, self._params(job, attempt)
        request_id = f"{request.id}-{next(self._ids)}"
        if request.span is None or self._tracing is None:
            return await self._client.generate(
                job.prompt, params, request_id, request.trace_headers
            )
        text, decode = request.post.text, self._tokenizer.decode
        call = Call(self._settings.model, attempt.tokens_max, text=lambda: text)
        span = self._tracing.generation(request.span, call)
        headers = {"traceparent": format_traceparent(span.get_span_context())}
        result = Result(error="cancelled")
        try:
            completion = await self._client.generate(job.prompt, params, request_id, headers)
            result = Result(
                len(job.prompt),
                completion.cached_tokens,
                len(completion.ids),
                completion.finish_reason,
                error=completion.finish_reason
                if completion.finish_reason in ("error", "none")
                else None,
                text=lambda: decode(completion.ids),
            )
        except StreamGuardError as error:
            result = Result(error=type(error).__name__)
            raise
        finally:
            self._tracing.generated(span, result)
        return completion

    def _params(self, job: _Job, attempt: Attempt) -> SamplingParams:  # noqa: ARG002 - tests script the job
        return attempt.params

    def _confidence(self, completion: Completion, reading: Any) -> float | None:  # noqa: ANN401
        if self._digits is None or completion.logprobs is None:
            return None
        position = violation_position(reading, self._digits, self._tokenizer)
        if position is None:
            return None
        return violation_probability(
            completion.logprobs, position, completion.ids[position], self._digits
        )

    def _provenance(self, plan: Plan, spent: _Spent, prompt: list[int]) -> Provenance:
        return Provenance(
            tier=TIER,
            model=self._settings.model,
            revision=self._settings.revision,
            engine_version=self._client.version,
            effort=plan.effort,
            prompt_sha256=plan.prefix.sha256,
            prompt_tokens=spent.prompt_tokens,
            cached_tokens=spent.cached_tokens,
            output_tokens=spent.output_tokens,
            finish_reason=spent.finish_reason,
            attempts=max(1, spent.attempts),
            prompt_ids_sha256=hash_ids(prompt),
        )
