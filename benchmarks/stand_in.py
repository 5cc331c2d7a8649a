"""A vLLM engine whose model costs nothing and writes one answer; its steps are timed by part. For ``benchmarks.step``.

vLLM's own scheduler, input batch, sampler, grammar and output processor run unchanged, in one process. The arithmetic
over the vocabulary, which a card does itself, is left out: the logits are one row for all posts, the chosen token is
the script's, and a mask is made and not applied. What the host does to start that arithmetic stays.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import orjson

from benchmarks.gpu import SHAPES, write_model
from benchmarks.parts import Parts
from benchmarks.sides import default_model
from stream_guard.judging.engine.arguments import (
    engine_arguments,
    hold_outputs,
    known_arguments,
    prepare_environment,
)
from stream_guard.judging.families.harmony.prompt import example

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import EngineSettings

PROMPT_TOKENS: Final = 48
THOUGHT_TOKENS: Final = 128
_DIGIT: Final = 128
"""A place in the answer is carried through bf16 as two digits, which it holds exactly."""
_COLUMNS: Final = 8
"""So many logits of a post are looked at in place of all."""


def write_stand_in(folder: Path) -> None:
    """Write the model: the shapes of the demo model, and the vocabulary of gpt-oss."""
    write_model(folder)
    config = orjson.loads((default_model() / "config.json").read_bytes())
    config["vocab_size"] = SHAPES["vocab_size"]
    (folder / "config.json").write_bytes(orjson.dumps(config))


def answer_ids(tokenizer: HarmonyTokenizer, policy: Policy) -> list[int]:
    """Return the completion that every post gets."""
    control, encode = tokenizer.control, tokenizer.encode
    thought = (encode(" I saw a kettle on my way home.") * THOUGHT_TOKENS)[:THOUGHT_TOKENS]
    answer = example(policy.taxonomy, policy.taxonomy.outcomes[0])
    return [
        *(control.channel, *encode("analysis"), control.message, *thought, control.end),
        *(control.start, *encode("assistant"), control.channel, *encode("final")),
        *(control.message, *encode(answer), control.return_),
    ]


def make_engine(settings: EngineSettings) -> Any:
    """Return vLLM's ``LLM`` with its core in this process, and outputs held as Stream Guard holds them."""
    prepare_environment(settings)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM
    from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs

    arguments = engine_arguments(settings, known_arguments(AsyncEngineArgs))
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    create = EngineArgs.create_engine_config

    def holding(*given: Any, **named: Any) -> Any:
        config = create(*given, **named)
        hold_outputs(config)
        return config

    EngineArgs.create_engine_config = holding  # type: ignore[method-assign] # to see what it makes
    try:
        return LLM(**{name: value for name, value in arguments.items() if name in known})
    finally:
        EngineArgs.create_engine_config = create  # type: ignore[method-assign] # as above


def stand_in(model: Any, script: Sequence[int], vocabulary: int) -> None:
    """Let a loaded model write a script, whose first token follows a prompt of PROMPT_TOKENS, at no cost.

    From then on, vLLM's sampler and grammar in this process do no arithmetic over a vocabulary.
    """
    import torch
    import xgrammar
    from vllm.v1.sample.sampler import Sampler

    sampler: Any = Sampler  # its methods are exchanged
    written = torch.tensor(script)
    hidden_size = model.config.hidden_size
    row = torch.zeros(1, vocabulary)
    chosen: list[Any] = [written]

    def forward(input_ids: Any, positions: Any, *_: Any, **__: Any) -> Any:
        place = (positions - (PROMPT_TOKENS - 1)).clamp(0, len(script) - 1)
        hidden = torch.zeros(len(input_ids), hidden_size, dtype=torch.float32)
        hidden[:, 0], hidden[:, 1] = place // _DIGIT, place % _DIGIT
        return hidden

    def compute_logits(hidden: Any) -> Any:
        chosen[0] = written[(hidden[:, 0] * _DIGIT + hidden[:, 1]).long()]
        return row.expand(len(hidden), vocabulary)

    gather = sampler.gather_logprobs

    def gather_few(logprobs: Any, count: int, token_ids: Any) -> Any:
        return gather(logprobs[:, :_COLUMNS], count, token_ids % _COLUMNS)

    model.forward, model.compute_logits = forward, compute_logits
    sampler.greedy_sample = staticmethod(lambda _: chosen[0])
    sampler.compute_logprobs = staticmethod(lambda logits: logits)
    sampler.gather_logprobs = staticmethod(gather_few)
    xgrammar.apply_token_bitmask_inplace = lambda *_, **__: None


class Steps:
    """Counts steps of an engine, and splits their time.

    Args:
        engine: vLLM's ``LLM``, with its core in this process.
        script: the completion of every post.

    Attributes:
        found: s of each part, for each step in which all posts wrote one token.
        waiting: of all steps, whether vLLM had to know the tokens of the step before.
    """

    def __init__(self, engine: Any, script: Sequence[int]) -> None:
        from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

        inner = engine.llm_engine
        core = inner.engine_core.engine_core
        runner = core.model_executor.driver_worker.worker.model_runner
        stand_in(runner.model, script, SHAPES["vocab_size"])
        self._scheduler = core.scheduler
        self._parts = Parts()
        self.found: list[dict[str, float]] = []
        self.waiting: list[bool] = []
        self._posts = 0
        self._whole = False
        self._wrap(inner, core, runner)
        self._encoder = MsgpackEncoder()
        outputs_type = sys.modules["vllm.v1.engine"].EngineCoreOutputs
        self._decoder = MsgpackDecoder(outputs_type)
        self._watch(inner, core)

    def _wrap(self, inner: Any, core: Any, runner: Any) -> None:
        from vllm.v1.sample.sampler import Sampler
        from vllm.v1.structured_output.backend_xgrammar import XgrammarGrammar
        from vllm.v1.worker import gpu_model_runner

        for owner, name, part in (
            (core.scheduler, "schedule", "schedule"),
            (core.scheduler, "update_from_output", "output"),
            (core.scheduler, "get_grammar_bitmask", "grammar"),
            (XgrammarGrammar, "accept_tokens", "grammar"),
            (gpu_model_runner, "apply_grammar_bitmask", "grammar"),
            (runner, "execute_model", "runner"),
            (runner, "sample_tokens", "runner"),
            (runner, "_update_states", "inputs"),
            (runner, "_prepare_inputs", "inputs"),
            (runner.model, "forward", "model"),
            (runner.model, "compute_logits", "model"),
            (Sampler, "forward", "sampler"),
            (Sampler, "gather_logprobs", "logprobs"),
            (inner.output_processor, "process_outputs", "front end"),
        ):
            self._parts.wrap(owner, name, part)
        self._parts.wrap(self, "_travel", "ipc")

    def _watch(self, inner: Any, core: Any) -> None:
        """Look at each step's schedule and outputs, and at its end."""
        schedule, step = core.scheduler.schedule, inner.step
        get_output = inner.engine_core.get_output

        def scheduled(*args: Any, **named: Any) -> Any:
            found = schedule(*args, **named)
            tokens = found.num_scheduled_tokens
            self._whole = len(tokens) == self._posts == found.total_num_scheduled_tokens
            requests = core.scheduler.requests
            self.waiting.append(any(requests[name].use_structured_output for name in tokens))
            return found

        def stepped() -> Any:
            self._whole = False
            self._parts.restart()
            outputs = step()
            if self._whole:
                self.found.append(self._parts.spent_s())
            return outputs

        core.scheduler.schedule, inner.step = scheduled, stepped
        inner.engine_core.get_output = lambda: self._travel(get_output())

    def _travel(self, outputs: Any) -> Any:
        """Send a step's outputs on the way that they take between vLLM's processes."""
        self._decoder.decode(self._encoder.encode(outputs))
        return outputs

    def begin(self, posts: int, *, holds: bool) -> None:
        """Drop all results. Each step has so many posts from now on, and its outputs are held or not."""
        self._posts = posts
        self._scheduler.holds = holds
        self.found, self.waiting = [], []
