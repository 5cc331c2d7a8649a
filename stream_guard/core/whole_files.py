"""Writes a file in one step: a reader finds the old bytes or the new ones, and never a part of them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(file: Path, content: bytes, mode: int = 0o644) -> None:
    """Write or replace a file; its bytes are on disk before it has its name.

    Where that fails, the old file stays, and nothing is left beside it.

    Args:
        file: in a folder that exists.
        content: its bytes.
        mode: its permissions.

    Raises:
        OSError: it cannot be written.
    """
    # The name of no policy, no entry of an archive and no golden set begins with a dot.
    handle, scratch = tempfile.mkstemp(dir=file.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(scratch).chmod(mode)
        Path(scratch).replace(file)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
