"""Compiles, while the image is built, the one C module that Triton would compile at its first kernel.

The final stage has no compiler. Triton (3.7) needs one for ``cuda_utils`` alone, and keeps what it compiled by the hash
of its source: made here, it is found there. The driver's library is not in the builder, so one of the same name stands
in while linking; the real one comes from the node. It has to define the functions that are called: a linker leaves out
a library of which nothing is used, and the module could then not be loaded on the node.

    TRITON_CACHE_DIR=/opt/triton-cache python prime_triton.py
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_LOADED = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"

with tempfile.TemporaryDirectory() as folder:
    os.environ["TRITON_LIBCUDA_PATH"] = folder
    from triton.backends.nvidia import driver

    source = (Path(driver.__file__).parent / "driver.c").read_text()
    functions = sorted(set(re.findall(r"\bcu[A-Z]\w*(?=\()", source)))
    stand_in, code = Path(folder) / "libcuda.so.1", Path(folder) / "libcuda.c"
    code.write_text("".join(f"void {name}(void) {{}}\n" for name in functions))
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", stand_in, code],  # noqa: S607 - the builder's
        check=True,
    )
    try:
        driver.compile_module_from_src(
            src=source,
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
    # As a node with a driver would: it has to name the library that it needs, and find in it all that it calls.
    loaded = subprocess.run(
        [sys.executable, "-c", _LOADED, made[0]],
        env={**os.environ, "LD_LIBRARY_PATH": folder},
        check=False,
    )
    if loaded.returncode:
        sys.exit(f"{made[0]} would not be loaded on a node with a driver: see above")
print(*made)
