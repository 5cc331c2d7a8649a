"""A logits processor that kills the real engine over one post. Loaded in the engine's process."""

# ruff: noqa: ANN401 - vLLM's and torch's objects

from __future__ import annotations

import os
import signal
from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

VARIABLE = "KILLING_TOKENS"
"""In the environment: token ids, with commas; a prompt that has them one after the other kills the engine."""


class KillingTokens(AdapterLogitsProcessor):  # type: ignore[misc]
    """Sends SIGKILL to its own process, the engine's, as the post's first token is chosen."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Take whatever there is."""

    def is_argmax_invariant(self) -> bool:
        """Say that the likeliest token may change, so that vLLM asks us."""
        return False

    def new_req_logits_processor(self, params: Any) -> Any:  # noqa: ARG002 - the base's signature
        """Return what looks at one request's prompt."""
        deadly = [int(token) for token in os.environ[VARIABLE].split(",")]
        return lambda prompt, output, logits: _look(deadly, prompt, output, logits)


def _look(deadly: list[int], prompt: list[int], output: list[int], logits: Any) -> Any:
    if not output and any(
        prompt[at : at + len(deadly)] == deadly for at in range(len(prompt) - len(deadly) + 1)
    ):
        os.kill(os.getpid(), signal.SIGKILL)
    return logits
