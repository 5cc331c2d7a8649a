"""Imports what the program will import, as the image's own user; run while the image is built.

A shared library that is missing stops the build here, with its name, instead of the first start.

    python -I check_image.py cpu
"""

import importlib
import sys
from pathlib import Path

BOTH = ("aiokafka", "onnxruntime", "stream_guard.service.app", "torch", "uvloop", "xgrammar")
MODULES = {
    "cpu": (*BOTH, "vllm._C", "vllm.v1.engine.async_llm", "vllm.model_executor.models.gpt_oss"),
    # What of vLLM needs the driver's library is on the node and not in the image.
    "gpu": BOTH,
}
FILES = {"cpu": ("/opt/models/demo/config.json",), "gpu": ("/opt/triton-cache",)}


def main(target: str) -> None:
    """Exit with a message for the first thing that is missing."""
    for name in FILES[target]:
        if not Path(name).exists():
            sys.exit(f"{name} is missing from the image")
    for name in MODULES[target]:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            sys.exit(f"{name} cannot be imported in the image: {error}")
    torch = sys.modules["torch"]
    if int(torch.ones(3) @ torch.ones(3)) != 3:  # noqa: PLR2004 - 1 + 1 + 1
        sys.exit("torch does not compute in the image")
    if target == "cpu" and torch.cuda.is_available():
        sys.exit("torch reports a GPU in the CPU image")
    print(f"the image has what it needs: {', '.join(MODULES[target])}")


if __name__ == "__main__":
    main(sys.argv[1])
