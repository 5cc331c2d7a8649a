"""A logits processor that makes the real engine emit what a test wants. Loaded in the engine's process."""

# ruff: noqa: ANN401 - vLLM's and torch's objects

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor


class ScriptedTokens(AdapterLogitsProcessor):  # type: ignore[misc]
    """``extra_args["script"]``: these tokens one by one; ``["prefer"]``: this one wherever the grammar has it."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Take whatever there is."""

    def is_argmax_invariant(self) -> bool:
        """Say that the likeliest token changes."""
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        """Return what changes one request's logits, or None."""
        extra = params.extra_args or {}
        if script := extra.get("script"):
            return lambda output, logits: _force(logits, script, len(output))
        if (token := extra.get("prefer")) is not None:
            return lambda _, logits: _prefer(logits, token)
        return None


def _force(logits: Any, script: list[int], at: int) -> Any:
    if at < len(script):
        kept = logits[script[at]].clone()
        logits.fill_(float("-inf"))
        logits[script[at]] = kept
    return logits


def _prefer(logits: Any, token: int) -> Any:
    logits[token] += 1e4  # what the grammar has masked stays at minus infinity
    return logits
