"""The judge that asks a model through vLLM in this process.

Requests wait in a queue and enter the engine one by one, up to a limit. So a slow post delays no other, and the engine
batches without gaps. A post that fails is retried a bounded number of times. After the engine has died or hangs,
nothing more is delivered.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import EngineError, PromptError
from stream_guard.judging.contract import Judgement
from stream_guard.judging.delivery import Pending, by_caller, hand_out
from stream_guard.judging.engine.arguments import choose_constraint, warms_steps
from stream_guard.judging.engine.asking import CONFIDENCE_METHOD, TIER, Asker, Observers
from stream_guard.judging.engine.client import VllmClient, in_thread
from stream_guard.judging.engine.plans import Planner
from stream_guard.judging.engine.prefixes import PrefixCache, PrefixKey, prefix_key
from stream_guard.judging.engine.steps import warm_steps, watch
from stream_guard.judging.engine.waiting import FirstComeFirstServed
from stream_guard.judging.engine.warm_up import WarmUp
from stream_guard.judging.engine.windowed import ask_fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vllm import SamplingParams

    from stream_guard.core.decoding import Decoding
    from stream_guard.judging.contract import JudgeRequest
    from stream_guard.judging.delivery import Deliver
    from stream_guard.judging.engine.plans import Attempt, Plan
    from stream_guard.judging.engine.waiting import Waiting
    from stream_guard.judging.families.family import Family, Sampling
    from stream_guard.judging.tiers.ladder import Rung
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import EngineSettings

__all__ = ["BUILT_PER_TURN_MAX", "CONFIDENCE_METHOD", "TIER", "Observers", "VllmJudge"]

BUILT_PER_TURN_MAX: Final = 4
"""Prompts built before the event loop gets a turn."""


class _Job(Pending):
    """A request, its completions and their prompt tokens in the engine, and the task that asks the engine."""

    __slots__ = ("completions", "prompt_tokens", "task")

    def __init__(self, request: JudgeRequest, deliver: Deliver) -> None:
        super().__init__(request, deliver)
        self.completions = (request.decoding or request.policy.decoding).samples
        self.prompt_tokens = 0
        self.task: asyncio.Task[None] | None = None


class VllmJudge:
    """Judges with the model that the settings name; see :class:`stream_guard.judging.contract.Judge`.

    Args:
        settings: model, engine, budgets and limits.
        load_family: reads the model's tokenizer, as its family does; called in a thread.
        rungs: efforts and budgets at which requests under a policy may ask, the policy's own first. The constraints
            of the others are compiled at the start. By default each policy has its own alone.
        observers: who sees more than the judgements; by default nobody.
        prefixes: a model of the engine's prefix cache, which this keeps true; by default nobody's.
        make_client: makes the engine's client, not started.
    """

    def __init__(
        self,
        settings: EngineSettings,
        load_family: Callable[[EngineSettings], Family],
        rungs: Callable[[Policy], Sequence[Rung]] | None = None,
        observers: Observers | None = None,
        *,
        prefixes: PrefixCache | None = None,
        make_client: Callable[[EngineSettings], VllmClient] = VllmClient,
    ) -> None:
        self._settings = settings
        self._load_family = load_family
        self._observers = observers or Observers()
        self._rungs = rungs or (lambda _: ())
        self._prefixes = PrefixCache() if prefixes is None else prefixes
        self._client = make_client(settings)
        self._requests_max = settings.requests_max
        self._tokens_max = settings.in_flight_tokens_max
        self._jobs: dict[str, _Job] = {}
        self._waiting: Waiting[_Job] = FirstComeFirstServed()
        self._running: set[_Job] = set()
        self._running_completions = 0
        self._running_tokens = 0
        self._done: list[tuple[_Job, Judgement]] = []
        self._wake = asyncio.Event()
        self._failed: asyncio.Future[BaseException] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._model_len_max = 0
        self._family: Family
        self._planner: Planner
        self._asker: Asker

    # Life

    async def start(self, policies: PolicySet) -> None:
        """Start the engine and try every policy once, so that no post waits for a cold start."""
        self._failed = asyncio.get_running_loop().create_future()
        read = asyncio.create_task(in_thread(self._read_model))
        try:
            # It finds a wrong model within a second. vLLM takes twenty, and its message is less clear.
            await read
            await self._client.start()
            self._model_len_max = self._client.model_len_max
            self._prefixes.reset(self._client.cache_room)
            if warms_steps(self._settings):
                await warm_steps(self._client)
            self._tasks = [
                asyncio.create_task(self._feed(), name="engine feed"),
                asyncio.create_task(self._watch(), name="engine watch"),
            ]
            await self.prepare(policies)
            counting = watch(self._client, self._observers.compiled)
            self._tasks.append(asyncio.create_task(counting, name="engine compilations"))
        except BaseException:
            if not read.done():
                await asyncio.gather(read, return_exceptions=True)
            raise

    def _read_model(self) -> None:
        self._family = family = self._load_family(self._settings)
        self._planner = Planner(self._settings, family, self._make_params)
        self._asker = Asker(
            self._settings, self._client, family, params=self._params, observers=self._observers
        )

    def _make_params(self, sampling: Sampling, decoding: Decoding) -> SamplingParams:
        return self._client.sampling_params(
            sampling,
            probabilities=self._family.labels is not None and sampling.labelled,
            decoding=decoding,
        )

    def _params(self, request: JudgeRequest, attempt: Attempt) -> SamplingParams:  # noqa: ARG002 - tests script by the request
        return attempt.params

    async def prepare(self, policies: PolicySet) -> None:
        """Compile every policy's constraints, and put its prefix into the engine's cache.

        Raises:
            PolicyError: a policy leaves no room for an answer.
            EngineError: the engine cannot complete a policy's prompt.
        """
        warm_up = WarmUp(self._client, self._planner, self._family, self._model_len_max)
        plans = [(one, self._planner.plan(one)) for one in policies.policies.values()]
        keys = [PrefixKey(policy.sha256, plan.effort) for policy, plan in plans]
        self._prefixes.expect(
            {key: len(plan.prefix.ids) for key, (_, plan) in zip(keys, plans, strict=True)},
            max((plan.attempts[0].tokens_max for _, plan in plans), default=0),
        )
        for key, (policy, _) in zip(keys, plans, strict=True):
            await warm_up.run(policy, self._rungs(policy))
            self._prefixes.enter(key, f"warm-up {policy.id}")

    async def wait_failed(self) -> BaseException:
        """Return the error after which nothing more is delivered."""
        assert self._failed is not None, "start() comes first"
        return await asyncio.shield(self._failed)

    def describe(self) -> Mapping[str, str]:
        """Name the model, its revision, the engine's build, and when answers are constrained and why."""
        chosen = choose_constraint(self._settings)
        return {
            "engine": "vllm",
            "version": self._client.version,
            "model": self._settings.model,
            "revision": self._settings.revision or "",
            "constraint": chosen.constraint,
            "constraint_reason": chosen.reason,
        }

    async def kill(self) -> None:
        """End the engine's processes at once, also stopped ones. Call :meth:`close` afterwards."""
        await self._client.kill()

    async def close(self) -> None:
        """Drop what is in flight and stop the engine with all its processes."""
        tasks = [*self._tasks, *(job.task for job in self._running if job.task)]
        self._jobs.clear()
        self._waiting.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        del tasks
        await self._client.close()

    async def _watch(self) -> None:
        self._fail(await self._client.wait_dead())

    def _fail(self, error: BaseException) -> None:
        """Stop delivering, and keep the error for :meth:`wait_failed`."""
        assert self._failed is not None
        self._done.clear()
        if not self._failed.done():
            self._failed.set_result(error)

    def _has_failed(self) -> bool:
        return self._failed is not None and self._failed.done()

    # Requests

    def submit(self, requests: Sequence[JudgeRequest], deliver: Deliver) -> None:
        """Queue requests. Each is delivered once, in some call of ``deliver``."""
        jobs = {request.id: _Job(request, deliver) for request in requests}
        self._jobs.update(jobs)
        self._waiting.add(jobs.values(), time.monotonic())
        self._wake.set()

    def cancel(self, requests: Sequence[JudgeRequest]) -> None:
        """Stop work on these requests, and do not deliver them."""
        for request in requests:
            job = self._jobs.pop(request.id, None)
            if job is None:
                continue
            self._waiting.discard(request.id)
            if job.task is not None:
                job.task.cancel()

    def in_flight(self) -> int:
        """Return how many requests are accepted and not delivered."""
        return len(self._jobs)

    async def _feed(self) -> None:
        """Admit queued requests to the engine while there is room."""
        built = 0
        job: _Job | None = None
        while True:
            if job is None and self._has_room(1):
                job = self._waiting.next(time.monotonic())
            if job is None or not self._has_room(job.completions):
                self._wake.clear()
                await self._wake.wait()
                built = 0
                continue
            admitted, job = job, None
            if self._jobs.get(admitted.request.id) is not admitted or self._has_failed():
                continue
            self._admit(admitted)
            built += 1
            if built % BUILT_PER_TURN_MAX == 0:
                await asyncio.sleep(0)

    def _has_room(self, completions: int) -> bool:
        """Return whether the engine may take so many completions more; an idle engine takes any number."""
        if self._running and self._running_completions + completions > self._requests_max:
            return False
        return self._tokens_max is None or self._running_tokens < self._tokens_max

    def _admit(self, job: _Job) -> None:
        """Build the prompt and give it to the engine; settle the request if that is impossible."""
        started_ns = time.time_ns()
        request = job.request
        try:
            plan = self._planner.plan(
                request.policy, request.effort, request.reasoning_tokens_max, request.decoding
            )
            prompt = self._family.prompt(request.post, plan.prefix)
        except PromptError as error:
            finished_ns = time.time_ns()
            self._settle(
                job,
                Judgement(request, error=error, started_ns=started_ns, finished_ns=finished_ns),
            )
            return
        job.prompt_tokens = len(prompt) * job.completions
        self._running.add(job)
        self._running_completions += job.completions
        self._running_tokens += job.prompt_tokens
        job.task = asyncio.create_task(self._run(job, prompt, plan, started_ns))
        job.task.add_done_callback(lambda _: self._release(job))

    async def _run(self, job: _Job, prompt: list[int], plan: Plan, started_ns: int) -> None:
        try:
            tokens_max = self._model_len_max - plan.attempts[0].tokens_max
            if len(prompt) <= tokens_max:
                judgement = await self._asker.ask(job.request, prompt, plan, started_ns)
            else:
                judgement = await ask_fitted(
                    self._asker,
                    self._family,
                    self._settings,
                    job.request,
                    plan,
                    tokens_max,
                    started_ns,
                )
        except EngineError as error:
            self._fail(error)
            return
        if judgement is not None:
            own = len(prompt) - len(plan.prefix.ids)
            if judgement.provenance is not None:
                own += judgement.provenance.output_tokens
            key = prefix_key(job.request)
            self._prefixes.leave(key, job.request.id, len(plan.prefix.ids), own)
            self._settle(job, judgement)

    def _release(self, job: _Job) -> None:
        self._running.discard(job)
        self._running_completions -= job.completions
        self._running_tokens -= job.prompt_tokens
        self._wake.set()

    def _settle(self, job: _Job, judgement: Judgement) -> None:
        """Deliver together with everything else that is settled in this turn of the event loop."""
        if not self._done:
            asyncio.get_running_loop().call_soon(self._flush)
        self._done.append((job, judgement))

    def _flush(self) -> None:
        done, self._done = self._done, []
        # A request that was cancelled in the meantime is not delivered.
        still = [one for one in done if self._jobs.get(one[0].request.id) is one[0]]
        for job, _ in still:
            del self._jobs[job.request.id]
        hand_out(by_caller(still), self._fail)
