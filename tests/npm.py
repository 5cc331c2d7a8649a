"""Fetches one package from npm, at a pinned version with its digest. npm itself comes in a wheel.

npm finds its registry and proxies as it always does.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path


def fetch_package(package: str, sha512: str, scratch: Path) -> bytes:
    """Return the archive (``.tgz``) of a package.

    Args:
        package: with its version, such as ``axe-core@4.10.3``.
        sha512: of the archive, in hexadecimal digits.
        scratch: a folder for what npm writes.

    Raises:
        RuntimeError: npm cannot fetch it, or what it fetched is something else.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("npm")),
                *("pack", package, "--pack-destination", folder, "--loglevel", "error"),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            message = f"npm cannot fetch {package}: {done.stderr[-1_000:]}"
            raise RuntimeError(message)
        content = found[0].read_bytes()
    if hashlib.sha512(content).hexdigest() != sha512:
        message = f"{package} is not what it was: its sha512 differs"
        raise RuntimeError(message)
    return content
