"""Says in one line whether this container has the GPUs that the engine needs; exits 4 if not, as a failed engine does.

Without it, vLLM ends minutes later with a traceback that does not name the cause. It asks the driver's library itself
(CUDA Driver API: ``cuInit``, ``cuDeviceGetCount``), since importing torch takes seconds.

    python -I check_gpu.py 2
"""

import ctypes
import json
import sys
from datetime import UTC, datetime

NO_DRIVER = (
    "no GPU in this pod: the driver's library libcuda.so.1 is missing; in Kubernetes set gpu.count, and "
    "runtimeClassName where the nvidia runtime is not the node's default; with docker run use --gpus all"
)
NO_CARD = (
    "no GPU in this pod: the driver is there and reports no card (CUDA error {code}); in Kubernetes set gpu.count, and "
    "check that the node's device plugin is healthy"
)
TOO_FEW = (
    "not enough GPUs in this pod: it has {count} and the engine needs {wanted}; set gpu.count to "
    "config.engine.tensor_parallel_size"
)


def problem(wanted: int, library: str = "libcuda.so.1") -> str | None:
    """Return what is wrong, or None.

    Args:
        wanted: GPUs that the engine needs.
        library: the driver's.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return NO_DRIVER
    code = driver.cuInit(0)
    count = ctypes.c_int(0)
    if code == 0:
        code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code != 0 or count.value == 0:
        return NO_CARD.format(code=code)
    if count.value < wanted:
        return TOO_FEW.format(count=count.value, wanted=wanted)
    return None


def main(wanted: int) -> None:
    """Print one JSON object, as every line of the log is, and exit."""
    found = problem(wanted)
    if found is not None:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {"event": found, "level": "error", "logger": "check_gpu", "timestamp": now}
        print(json.dumps(line), file=sys.stderr)
        sys.exit(4)


if __name__ == "__main__":
    main(int(sys.argv[1]))
