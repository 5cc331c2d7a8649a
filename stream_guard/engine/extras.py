"""Whether the engine that the settings ask for is installed. Imports nothing of it, so that asking is free."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from stream_guard.errors import SettingsError

if TYPE_CHECKING:
    from stream_guard.settings import EngineSettings


def require_engine(settings: EngineSettings) -> None:
    """Refuse to go on without vLLM where it is to judge.

    Raises:
        SettingsError: it is not installed; the message says how to install it.
    """
    if settings.kind == "vllm" and find_spec("vllm") is None:
        message = (
            "engine.kind (STREAM_GUARD_ENGINE__KIND): vllm is not installed; pip install 'stream-guard[gpu]' on a "
            "GPU node, or 'stream-guard[cpu]' without a GPU (they exclude each other); or set it to scripted, which "
            "judges by a fixed rule, for load tests"
        )
        raise SettingsError(message)
