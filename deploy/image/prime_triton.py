"""Compiles, while the image is built, the one C module that Triton would compile at its first kernel.

The final stage has no compiler. Triton (3.7) needs one for ``cuda_utils`` alone, and keeps what it compiled by the hash
of its source: made here, it is found there. The driver's library is not in the builder, so an empty one stands in
while linking; the real one comes from the node.

    TRITON_CACHE_DIR=/opt/triton-cache python prime_triton.py
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    stand_in = Path(folder) / "libcuda.so.1"
    subprocess.run(
        ["gcc", "-shared", "-Wl,-soname,libcuda.so.1", "-o", stand_in, "-x", "c", "/dev/null"],  # noqa: S607 - the builder's
        check=True,
    )
    os.environ["TRITON_LIBCUDA_PATH"] = folder
    from triton.backends.nvidia import driver

    try:
        driver.compile_module_from_src(
            src=(Path(driver.__file__).parent / "driver.c").read_text(),
            name="cuda_utils",
            library_dirs=driver.library_dirs(),
            include_dirs=driver.include_dirs,
            libraries=driver.libraries,
        )
    except (ImportError, OSError) as error:
        print(f"compiled; not loaded without a driver, as expected: {error}", file=sys.stderr)

made = list(Path(os.environ["TRITON_CACHE_DIR"]).rglob("cuda_utils*.so"))
if not made:
    sys.exit(
        "Triton compiled nothing: this version works in another way; see deploy/image/prime_triton.py"
    )
print(*made)
