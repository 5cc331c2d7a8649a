"""Checks a model without starting its engine: configuration, tokenizer, weights and the installed vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream_guard.core.errors import EngineError
from stream_guard.judging.engine.arguments import require_vllm
from stream_guard.judging.families.registry import supported_config

if TYPE_CHECKING:
    from stream_guard.settings import EngineSettings


def probe_model(settings: EngineSettings) -> str:
    """Return one line about the model, after checking what a start of the engine needs.

    Raises:
        EngineError: config, tokenizer or weights are missing or invalid, or vLLM is not installed.
    """
    config, kind = supported_config(settings)
    family = kind.load(settings)
    folder = Path(settings.model).expanduser()
    if (
        folder.is_dir()
        and settings.load_format != "dummy"
        and not any(folder.glob("*.safetensors"))
    ):
        message = f"engine.model: {settings.model} has no weights (*.safetensors)"
        raise EngineError(message)
    build = require_vllm()
    return (
        f"{settings.model}: {config['architectures'][0]}, {config.get('num_hidden_layers', '?')} layers, "
        f"{family.describe()}; {build}"
    )
