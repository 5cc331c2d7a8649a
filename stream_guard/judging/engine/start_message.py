"""Says in one line why vLLM did not start or its worker failed, and what to do about it. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["start_message", "worker_message"]

_REMEDIES: Final = (
    ("max_model_len", "lower engine.max_model_len, which may not pass the model's own limit"),
    (
        "KV cache",
        "lower engine.max_model_len, or raise engine.gpu_memory_utilization or engine.kv_cache_memory_bytes",
    ),
    ("memory", "lower engine.gpu_memory_utilization, or set engine.kv_cache_memory_bytes"),
    ("max_num_batched_tokens", "raise engine.max_num_batched_tokens"),
    ("tensor", "check engine.tensor_parallel_size against the number of GPUs"),
    ("dtype", "check engine.dtype"),
)


def start_message(error: BaseException) -> str:
    """Return one line about a failed start, with what may help."""
    what = _what(error)
    return f"vLLM did not start ({type(error).__name__}): {what}; {_remedy(what)}"


def worker_message(error: BaseException) -> str:
    """Return one line about a call that failed in vLLM's worker after its start, with what may help."""
    what = _what(error)
    remedy = _remedy(what)
    if "memory" in what:
        # The KV cache fits by now; the longest step needs the rest.
        remedy += ", or lower engine.max_num_batched_tokens"
    return f"vLLM's worker failed: {what}; {remedy}"


def _what(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:500] or type(error).__name__


def _remedy(what: str) -> str:
    return next(
        (remedy for sign, remedy in _REMEDIES if sign in what),
        "VLLM_LOGGING_LEVEL=INFO shows vLLM's own log",
    )
