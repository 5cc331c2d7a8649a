"""Measures the host's work in one step of vLLM by part, with and without a grammar: ``make bench-step``.

The model is a stand-in: its forward pass costs nothing, and it writes one well-formed answer for every post. vLLM's own
scheduler, input batch, sampler, grammar and output processor run unchanged, in one process. The vocabulary has
201,088 tokens, as gpt-oss has. Each step makes one token for each of N posts; only steps in which all N posts write
are counted. ``ipc`` is the time to encode and decode the step's outputs as vLLM does between its processes.

The parts ``sampler`` and ``logprobs`` are mostly arithmetic over the vocabulary. A card does that itself, so ``host``
leaves them out. ``waiting`` counts the steps that vLLM must hold back until the tokens of the step before are known,
since a request in them has a grammar; asynchronous scheduling gains nothing in such a step.

Sides: ``always`` and ``on_retry`` as ``engine.constraint`` has them; ``unasked``: as ``on_retry``, without any
token's probability; ``bare``: without grammar, budget and probabilities.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from benchmarks.figures import ratios
from benchmarks.gpu import SHAPES, write_model
from benchmarks.parts import Parts
from benchmarks.report import OUTPUT, Report, Table, finish
from benchmarks.sides import add_report_options, default_model
from stream_guard.judging.engine.arguments import (
    engine_arguments,
    known_arguments,
    prepare_environment,
)
from stream_guard.judging.engine.client import VllmClient
from stream_guard.judging.families.family import Budget
from stream_guard.judging.families.harmony.family import Harmony
from stream_guard.judging.families.harmony.prompt import example
from stream_guard.judging.families.harmony.tokenizer import load_tokenizer
from stream_guard.policies.policy import make_policy
from stream_guard.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer
    from stream_guard.policies.policy import Policy

SIDES: Final = ("always", "on_retry", "unasked", "bare")
PARTS: Final = (
    *("schedule", "inputs", "runner", "budget", "grammar", "sampler", "logprobs", "output"),
    *("ipc", "front end", "other"),
)
ON_A_CARD: Final = frozenset({"sampler", "logprobs"})
"""Parts whose work a card does itself."""
PROMPT_TOKENS: Final = 48
THOUGHT_TOKENS: Final = 24
_DIGIT: Final = 128
"""A place in the answer is carried through bf16 as two digits, which it holds exactly."""
_POLICY: Final = b"""# Board rules (#B1)

## Sales (S1 - Sales)
- S1.a Selling a kettle
- S1.b Buying one

Output: `VIOLATES`
"""


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


def stand_in(model: Any, script: Sequence[int], vocabulary: int) -> None:
    """Let a loaded model write a script, whose first token follows a prompt of PROMPT_TOKENS, at no cost."""
    import torch

    written = torch.tensor(script)
    hidden_size = model.config.hidden_size

    def forward(input_ids: Any, positions: Any, *_: Any, **__: Any) -> Any:
        place = (positions - (PROMPT_TOKENS - 1)).clamp(0, len(script) - 1)
        hidden = torch.zeros(len(input_ids), hidden_size, dtype=torch.float32)
        hidden[:, 0], hidden[:, 1] = place // _DIGIT, place % _DIGIT
        return hidden

    def compute_logits(hidden: Any) -> Any:
        place = (hidden[:, 0] * _DIGIT + hidden[:, 1]).long()
        logits = torch.zeros(len(hidden), vocabulary)
        return logits.scatter_(1, written[place].unsqueeze(1), 30.0)

    model.forward, model.compute_logits = forward, compute_logits


class Steps:
    """Counts steps of an engine, and splits their time.

    Args:
        engine: vLLM's ``LLM``, with its core in this process.
        script: the completion of every post.
    """

    def __init__(self, engine: Any, script: Sequence[int]) -> None:
        from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

        inner = engine.llm_engine
        core = inner.engine_core.engine_core
        runner = core.model_executor.driver_worker.worker.model_runner
        stand_in(runner.model, script, SHAPES["vocab_size"])
        self.parts = Parts()
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
        from vllm.v1.sample.thinking_budget_state import ThinkingBudgetStateHolder
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
            (Sampler, "compute_logprobs", "logprobs"),
            (Sampler, "gather_logprobs", "logprobs"),
            (ThinkingBudgetStateHolder, "sync_batch", "budget"),
            (ThinkingBudgetStateHolder, "update_state", "budget"),
            (ThinkingBudgetStateHolder, "apply_to_logits", "budget"),
            (inner.output_processor, "process_outputs", "front end"),
        ):
            self.parts.wrap(owner, name, part)
        self.parts.wrap(self, "_travel", "ipc")

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
            self.parts.restart()
            outputs = step()
            if self._whole:
                self.found.append(self.parts.spent_s())
            return outputs

        core.scheduler.schedule, inner.step = scheduled, stepped
        inner.engine_core.get_output = lambda: self._travel(get_output())

    def _travel(self, outputs: Any) -> Any:
        """Send a step's outputs on the way that they take between vLLM's processes."""
        self._decoder.decode(self._encoder.encode(outputs))
        return outputs

    def begin(self, posts: int) -> None:
        """Drop all results. Each step has so many posts from now on."""
        self._posts = posts
        self.found, self.waiting = [], []


def params_of(side: str, family: Harmony, policy: Policy, client: VllmClient) -> Any:
    """Return the sampling parameters of a side."""
    budget = Budget(2 * THOUGHT_TOKENS, 32)
    if side == "always":
        return client.sampling_params(family.sampling(policy, budget), probabilities=True)
    sampling = family.unconstrained(policy, budget).sampling
    if side == "bare":
        sampling = sampling._replace(reasoning_tokens_max=None)
    return client.sampling_params(sampling, probabilities=side == "on_retry")


def make_engine(settings: EngineSettings, family: Harmony) -> Any:
    """Return vLLM's ``LLM`` with its core in this process."""
    prepare_environment(settings)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM
    from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs

    arguments = engine_arguments(settings, known_arguments(AsyncEngineArgs), family.markers)
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    return LLM(**{name: value for name, value in arguments.items() if name in known})


def medians_ms(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return each part's median over the steps, in ms."""
    names = {*PARTS, *(name for step in steps for name in step)}
    return {
        name: 1_000 * statistics.median(step.get(name, 0.0) for step in steps)
        for name in names
        if steps
    }


def host_ms(parts: dict[str, float]) -> float:
    """Return the host's work in a step: all parts but the stand-in and what a card does itself."""
    return sum(ms for name, ms in parts.items() if name in PARTS and name not in ON_A_CARD)


def measure(report: Report, posts: Sequence[int]) -> None:
    """Run all sides at all sizes, and fill the report."""
    with tempfile.TemporaryDirectory(prefix="stream-guard-step-") as place:
        write_stand_in(Path(place))
        settings = EngineSettings(
            model=place,
            load_format="dummy",
            constraint="on_retry",
            max_num_seqs=max(posts),
            max_model_len=512,
            max_num_batched_tokens=max(2_048, PROMPT_TOKENS * max(posts)),
            kv_cache_memory_bytes=2 << 30,
            # One thread does everything, so that each part has its own time.
            extra={"async_scheduling": False},
        )
        tokenizer = load_tokenizer(settings)
        family, client = Harmony(tokenizer, settings.prompt_date), VllmClient(settings)
        policy = make_policy("board", _POLICY)
        script = answer_ids(tokenizer, policy)
        engine = make_engine(settings, family)
        steps = Steps(engine, script)
        for count in posts:
            for side in SIDES:
                run = run_side(engine, steps, params_of(side, family, policy, client), count)
                if any(ids != script for ids in run.pop("written")):
                    report.complaints.append(f"{side}, {count} posts: another answer than its own")
                report.raw.append({"side": side, "posts": count, **run})
                print(f"{count} posts, {side}: {run['host']:.2f} ms of host a step", flush=True)
    fill_report(report)


def run_side(engine: Any, steps: Steps, params: Any, count: int) -> dict[str, Any]:
    """Run one side once to warm it up and once to measure it."""
    from vllm.inputs import tokens_input

    # Token 100 and its neighbours are ordinary; each prompt begins with a number of its own.
    for first in (0, count):
        prompts = [
            tokens_input([100 + (first + number) % 90, 200 + number, *[300] * (PROMPT_TOKENS - 2)])
            for number in range(count)
        ]
        steps.begin(count)
        outputs = engine.generate(prompts, params, use_tqdm=False)
    parts = medians_ms(steps.found)
    return {
        "parts": parts,
        "host": host_ms(parts),
        "steps": len(steps.found),
        "waiting": sum(steps.waiting),
        "all steps": len(steps.waiting),
        "written": [list(output.outputs[0].token_ids) for output in outputs],
    }


def fill_report(report: Report) -> None:
    """Add the tables and targets for the raw runs."""
    report.tables.append(
        Table(
            "Median ms of a step",
            ("posts", "side", *PARTS, "host"),
            [
                (
                    run["posts"],
                    run["side"],
                    *(run["parts"].get(part, 0.0) for part in PARTS),
                    run["host"],
                )
                for run in report.raw
            ],
        )
    )
    report.tables.append(
        Table(
            "Steps",
            ("posts", "side", "counted", "waiting", "all"),
            [
                (run["posts"], run["side"], run["steps"], run["waiting"], run["all steps"])
                for run in report.raw
            ],
        )
    )
    by_side = {
        side: [run["host"] for run in report.raw if run["side"] == side]
        for side in ("always", "on_retry")
    }
    sizes = [run["posts"] for run in report.raw if run["side"] == "always"]
    for size, ratio in zip(sizes, ratios(by_side["always"], by_side["on_retry"]), strict=True):
        if size == TARGET_POSTS:
            report.aim(f"host ms of always / on_retry, {size} posts", ratio, at_least=RATIO_MIN)


TARGET_POSTS: Final = 256
RATIO_MIN: Final = 2.0


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--posts",
        type=int,
        nargs="+",
        default=[64, 256, 1_024],
        help="posts that write side by side (default 64 256 1024)",
    )
    add_report_options(parser)
    options = parser.parse_args(words)
    if options.quick:
        options.posts = [4]
    return options


def main() -> int:
    """Measure; return the exit code."""
    options = parse()
    report = Report(
        "step",
        "The host's work in one step of vLLM, by part.",
        {"posts": options.posts},
        quick=options.quick,
    )
    measure(report, options.posts)
    return finish(report, options.output or OUTPUT)


if __name__ == "__main__":
    sys.exit(main())
