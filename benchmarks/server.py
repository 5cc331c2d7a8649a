"""Starts ``vllm serve`` with the engine arguments of Stream Guard. A side of ``benchmarks.serving``.

    python -m benchmarks.server PORT

Becomes vLLM's OpenAI-compatible server.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from stream_guard.judging.engine.arguments import (
    engine_arguments,
    known_arguments,
    prepare_environment,
)
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "judge"
"""What requests call the model."""


def command_line(arguments: Mapping[str, Any], port: int) -> list[str]:
    """Return the server's command line for the engine arguments that are not vLLM's own defaults."""
    words = ["--port", str(port), "--host", "127.0.0.1", "--served-model-name", MODEL]
    words.append("--disable-uvicorn-access-log")
    for name, value in arguments.items():
        option = "--" + name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            # The disabled feature is on by default and has no option that enables it.
            if value or not name.startswith("disable_"):
                words.append(option if value else "--no-" + name.replace("_", "-"))
        elif isinstance(value, dict):
            words += [option, json.dumps(value)]
        else:
            words += [option, str(value)]
    return words


def main() -> None:
    """Become the server."""
    settings = load_settings()
    prepare_environment(settings.engine)
    from vllm.engine.arg_utils import AsyncEngineArgs

    arguments = engine_arguments(settings.engine, known_arguments(AsyncEngineArgs))
    arguments["disable_log_stats"] = not settings.telemetry.engine_metrics
    words = command_line(arguments, int(sys.argv[1]))
    module = "vllm.entrypoints.openai.api_server"
    os.execv(sys.executable, [sys.executable, "-m", module, *words])  # noqa: S606 - this very Python


if __name__ == "__main__":
    main()
