"""Runs vLLM alone: ``LLM.generate`` gets every prompt at once. A side of ``benchmarks.engine_feed``.

    python -m benchmarks.offline POSTS RESULT

POSTS has one line of JSON per post; RESULT is written. Before the clock starts, prompts are made, grammars compiled
and prefixes cached. Answers are not read, so only the engine is timed. The engine has the arguments that Stream Guard
would give it.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.prompts import Asked, Prompts
from stream_guard.judging.engine.arguments import (
    engine_arguments,
    known_arguments,
    prepare_environment,
)
from stream_guard.judging.engine.client import VllmClient
from stream_guard.settings import Settings, load_settings


def make_engine(settings: Settings) -> Any:
    """Return vLLM's ``LLM``, started with the arguments that Stream Guard starts its engine with."""
    from vllm import LLM
    from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs

    arguments = engine_arguments(settings.engine, known_arguments(AsyncEngineArgs))
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    # Stream Guard publishes the engine's own metrics; here they are kept as well, so that they cost alike.
    arguments["disable_log_stats"] = not settings.telemetry.engine_metrics
    return LLM(**{name: value for name, value in arguments.items() if name in known})


def generate(engine: Any, asked: list[Asked], *, tokens_max: int | None = None) -> list[Any]:
    """Return the outputs of all prompts, given at once; with a maximum of tokens each if one is given."""
    from vllm.inputs import tokens_input

    params = [one.params for one in asked]
    if tokens_max is not None:
        params = [one.clone() for one in params]
        for one in params:
            one.max_tokens = tokens_max
    prompts = [tokens_input(one.ids) for one in asked]
    outputs: list[Any] = engine.generate(prompts, params, use_tqdm=False)
    return outputs


def main() -> int:
    """Run all posts; write what came of them."""
    posts, result = (Path(word) for word in sys.argv[1:])
    settings = load_settings()
    prepare_environment(settings.engine)
    client = VllmClient(settings.engine)
    prompts = Prompts(
        settings,
        lambda sampling, probabilities: client.sampling_params(
            sampling, probabilities=probabilities
        ),
    )
    values = [orjson.loads(line) for line in posts.read_bytes().splitlines()]
    engine = make_engine(settings)
    generate(engine, prompts.warm_ups(), tokens_max=1)
    asked = [prompts.of(value.encode()) for _, _, value in values]
    started_s = time.monotonic()
    outputs = generate(engine, asked)
    seconds = time.monotonic() - started_s
    answers = [output.outputs[0] for output in outputs]
    document = {
        "seconds": seconds,
        "judged": [
            [one.post, one.policy]
            for one, answer in zip(asked, answers, strict=True)
            if answer.finish_reason in ("stop", "length")
        ],
        "stopped": sum(answer.finish_reason == "stop" for answer in answers),
        "prompt_tokens": sum(len(one.ids) for one in asked),
        "cached_tokens": sum(output.num_cached_tokens or 0 for output in outputs),
        "output_tokens": sum(len(answer.token_ids) for answer in answers),
    }
    result.write_bytes(orjson.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
