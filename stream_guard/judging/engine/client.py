"""Runs vLLM's AsyncLLM in this process, reduced to what a judge needs: token ids in, one completion out.

It imports vLLM only when an engine is built. The engine starts and stops in a thread, so that the event loop never
blocks. An aborted completion is never returned as a finished one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from stream_guard.core.decoding import GREEDY
from stream_guard.core.errors import EngineError, PromptError, StreamGuardError
from stream_guard.judging.engine import core_process
from stream_guard.judging.engine.arguments import (
    engine_arguments,
    hold_outputs,
    known_arguments,
    prepare_environment,
    require_vllm,
)
from stream_guard.judging.engine.held_outputs import LABEL_AFTER
from stream_guard.judging.engine.prefixes import CacheRoom
from stream_guard.judging.engine.start_message import start_message, worker_message
from stream_guard.judging.engine.steps import Compilations, StepLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.process import BaseProcess

    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    from stream_guard.core.decoding import Decoding
    from stream_guard.judging.contract import FinishReason
    from stream_guard.judging.engine.core_process import EngineProcess
    from stream_guard.judging.families.family import Sampling
    from stream_guard.settings import EngineSettings

_T = TypeVar("_T")
PROBE_TIMEOUT_S: Final = 30
"""If posts time out and the engine answers no probe for so long, it hangs."""


class Completion(NamedTuple):
    """What the engine wrote for one prompt.

    Attributes:
        ids: the tokens, including the stop token.
        finish_reason: ``none`` if it was aborted, which is never an answer.
        cached_tokens: tokens of the prompt that came from the prefix cache.
        logprobs: of each token from ``logprobs_from`` on, if they were requested.
        logprobs_from: position of the first token with one.
        more_prompt_tokens: of a second prompt, where two requests made it.
        output_tokens: that the engine wrote; None: all of ``ids``.
    """

    ids: Sequence[int]
    finish_reason: FinishReason
    cached_tokens: int
    logprobs: Any
    logprobs_from: int = 0
    more_prompt_tokens: int = 0
    output_tokens: int | None = None


_UNTRACED: Final = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
_FAILED: Final = Completion((), "error", 0, None)
_REASONS: Final[dict[str | None, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "error": "error",
}


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run blocking work in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001 - handed over to the awaiting task
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="stream-guard-engine", daemon=True).start()
    return await future


class VllmClient:
    """One engine, from :meth:`start` to :meth:`close`."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._engine: AsyncLLM | None = None
        self._building: asyncio.Task[None] | None = None
        self._processes: list[EngineProcess] = []
        self._served = False
        self._traced = "otlp_traces_endpoint" in settings.extra
        self.version = ""

    async def start(self) -> None:
        """Return when the engine is up.

        Raises:
            EngineError: vLLM is not installed or did not start.
        """
        self.version = require_vllm()
        prepare_environment(self._settings)
        self._served = core_process.start_server()
        # A task of its own: if start() is cancelled, close() can still wait for the engine and stop it.
        self._building = asyncio.create_task(in_thread(self._build), name="engine build")
        await asyncio.shield(self._building)
        # Inside the first request, an engine that is killed at this moment would never answer it.
        await self._running().get_supported_tasks()

    def _build(self) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = engine_arguments(self._settings, known_arguments(AsyncEngineArgs))
        try:
            config = AsyncEngineArgs(**arguments).create_engine_config()
            hold_outputs(config)
            with contextlib.ExitStack() as stack:
                if self._served:
                    self._processes = stack.enter_context(core_process.from_server())
                # Set here, not returned: a longer-lived future would keep the engine alive.
                self._engine = AsyncLLM.from_vllm_config(
                    config, disable_log_stats=arguments["disable_log_stats"]
                )
        except StreamGuardError:
            raise
        except Exception as error:  # an engine fails to start with any of many errors
            raise EngineError(start_message(error)) from error

    def sampling_params(
        self,
        sampling: Sampling,
        *,
        probabilities: bool,
        decoding: Decoding = GREEDY,
        extra_args: dict[str, Any] | None = None,
    ) -> SamplingParams:
        """Return parameters for one kind of completion; any number of calls may share them.

        Where tokens are drawn, each call needs a copy with a seed: see :func:`with_seed`.

        Args:
            sampling: constraint, length and stops.
            probabilities: whether to return each token's log probability.
            decoding: how tokens are chosen. Its samples are calls of their own; they share the cached prompt.
            extra_args: for logits processors.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        constraint = sampling.constraint
        bounds: dict[str, Any] = {} if constraint is None else {constraint.kind: constraint.value}
        if probabilities and sampling.label_after is not None:
            extra_args = {LABEL_AFTER: sampling.label_after, **(extra_args or {})}
        return SamplingParams(
            max_tokens=sampling.tokens_max,
            stop_token_ids=list(sampling.stops) or None,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,
            skip_special_tokens=False,
            skip_clone=True,
            structured_outputs=StructuredOutputsParams(**bounds) if bounds else None,
            # Of the chosen token alone: named tokens (logprob_token_ids) cost a loop over all posts in each step.
            logprobs=0 if probabilities else None,
            flat_logprobs=probabilities,
            extra_args=extra_args,
        )

    def pair_params(self, labels: tuple[int, int]) -> SamplingParams:
        """Return parameters for one token with the log probabilities of these two, whatever token it is."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=1,
            temperature=0,
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,
            skip_clone=True,
            logprob_token_ids=list(labels),
            flat_logprobs=True,
        )

    @property
    def model_len_max(self) -> int:
        """Longest prompt and completion together, in tokens, as the engine reports it."""
        return int(self._running().model_config.max_model_len)

    @property
    def cache_room(self) -> CacheRoom | None:
        """Size of the prefix cache, as the engine reports it; None if it has none."""
        config = self._running().vllm_config
        tokens = config.cache_config.kv_cache_size_tokens
        if not tokens or not config.cache_config.enable_prefix_caching:
            return None
        block_tokens = int(config.cache_config.block_size)
        return CacheRoom(int(tokens), block_tokens, config.scheduler_config.max_num_seqs)

    @property
    def step_limits(self) -> StepLimits:
        """Lengths of the engine's steps."""
        config = self._running().vllm_config
        captured = config.compilation_config.cudagraph_capture_sizes or [0]
        return StepLimits(max(captured), config.scheduler_config.max_num_batched_tokens)

    async def try_step(self, tokens: int) -> None:
        """Run the model once on so many tokens, without a post.

        Raises:
            EngineError: the engine is dead, or the step failed.
        """
        await self._call("stream_guard_try_step", tokens)

    async def compilations(self) -> Compilations:
        """Return what the engine has compiled since the first call.

        Raises:
            EngineError: the engine is dead, or does not answer in time.
        """
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                workers = await self._call("stream_guard_compilations")
        except TimeoutError as error:
            raise EngineError("the engine does not say what it has compiled") from error
        # Several workers compile the same.
        return Compilations(*(max(counts) for counts in zip(*workers, strict=True)))

    async def _call(self, method: str, *args: int) -> list[Any]:
        """Call a method of :class:`stream_guard.judging.engine.step_worker.StepWorker` in each worker."""
        from vllm.v1.engine.exceptions import EngineDeadError

        engine = self._running()
        try:
            return list(await engine.collective_rpc(method, args=args))
        except EngineDeadError as error:
            raise EngineError(_DEAD) from error
        except Exception as error:  # what the worker raised, as a bare Exception with its text
            raise EngineError(worker_message(error)) from error

    async def generate(
        self,
        ids: list[int],
        params: SamplingParams,
        request_id: str,
        trace_headers: dict[str, str] | None,
    ) -> Completion:
        """Complete a prompt. Cancelling the call stops the engine's work on it.

        Raises:
            PromptError: the engine rejects the prompt.
            EngineError: the engine is dead.
        """
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        outputs = self._running().generate(
            tokens_input(ids),
            params,
            request_id,
            # Without our context, vLLM starts a trace of its own for each request.
            trace_headers=(trace_headers or _UNTRACED) if self._traced else None,
        )
        try:
            async for output in outputs:
                completion = output.outputs[0]
                written, logprobs = completion.token_ids, completion.logprobs
                return Completion(
                    written,
                    _REASONS.get(completion.finish_reason, "none"),
                    output.num_cached_tokens or 0,
                    logprobs,
                    0 if logprobs is None else len(written) - len(logprobs),
                )
        except VLLMClientError as error:
            # Its message can quote the post, so only its type is passed on.
            message = f"the engine rejected a prompt of {len(ids)} tokens ({type(error).__name__})"
            raise PromptError(message) from error
        except EngineDeadError as error:
            raise EngineError(_DEAD) from error
        except EngineGenerateError:
            return _FAILED
        return _FAILED

    def is_dead(self) -> bool:
        """Return whether the engine's process has died."""
        return self._engine is not None and bool(self._engine.errored)

    async def wait_dead(self) -> EngineError:
        """Return once the engine's process has died."""
        engine = self._running()
        while not engine.errored:
            # The handler ends with the engine. Before it starts, or if it ends late, poll.
            handler = (
                {engine.output_handler}
                if engine.output_handler and not engine.output_handler.done()
                else set()
            )
            if handler:
                await asyncio.wait(handler, timeout=1)
            else:
                await asyncio.sleep(0.2)
        return EngineError(_DEAD)

    async def answers(self) -> bool:
        """Return whether the engine still answers a probe; a hanging engine does not."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._running().is_sleeping()
        except TimeoutError:
            return False
        except Exception:  # noqa: BLE001 - a dead engine raises any error; wait_dead reports it
            return not self.is_dead()
        return True

    async def kill(self) -> None:
        """Kill the engine's processes and their children at once, also while they start or are stopped."""
        await in_thread(self._kill)

    def _kill(self) -> None:
        processes = self._processes or _own_processes(self._engine)
        for process in processes:
            if process.is_alive() and process.pid is not None:
                from vllm.utils.system_utils import kill_process_tree

                kill_process_tree(process.pid)

    async def close(self) -> None:
        """Stop the engine, dead or alive, and its fork server."""
        await self._shut_down()
        # Reference cycles hold the engine. At the interpreter's exit its finalizer would fail with a message.
        gc.collect()
        if self._served:
            self._served = False
            await in_thread(core_process.stop_server)

    async def _shut_down(self) -> None:
        building, self._building = self._building, None
        if building is not None:
            await asyncio.gather(building, return_exceptions=True)
        engine, self._engine = self._engine, None
        if engine is not None:
            await _end_handler(engine)
            await in_thread(engine.shutdown)

    def _running(self) -> AsyncLLM:
        if self._engine is None:
            message = "the engine is not running"
            raise EngineError(message)
        return self._engine


async def _end_handler(engine: AsyncLLM) -> None:
    """End vLLM's reader of outputs first: it logs a traceback if it finds the engine's process gone."""
    handler = engine.output_handler
    if handler is not None and not handler.done():
        handler.cancel()
        await asyncio.wait({handler})


def _own_processes(engine: AsyncLLM | None) -> Sequence[BaseProcess]:
    """Return the processes that vLLM started without our fork server."""
    resources = getattr(getattr(engine, "engine_core", None), "resources", None)
    return getattr(getattr(resources, "engine_manager", None), "processes", ())


_DEAD: Final = (
    "the engine's process died; vLLM's log above, or the kernel's (out of memory), says why"
)


def with_seed(params: SamplingParams, seed: int) -> SamplingParams:
    """Return a copy of sampling parameters whose tokens are drawn with this seed, in [0, 2**63)."""
    seeded = params.clone()
    seeded.seed = seed
    return seeded
