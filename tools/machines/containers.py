"""The program that builds and runs containers: podman, docker, or buildah, which only builds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def program(*, runs: bool) -> str:
    """Return the first of podman, docker and buildah that is there, or that ``CONTAINER_ENGINE`` names.

    Args:
        runs: whether it has to run containers, which buildah does not.
    """
    named = os.environ.get("CONTAINER_ENGINE")
    known = [named] if named else ["podman", "docker", *([] if runs else ["buildah"])]
    for name in known:
        if shutil.which(name):
            return name
    sys.exit(f"none of {', '.join(known)} is here; install one, or name one in CONTAINER_ENGINE")


def git(*arguments: str) -> str:
    """Return what git prints; nothing where this is no repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def version() -> str:
    """Return the version as the wheel would have it from the last tag; 0.1.0 where there is none."""
    return git("describe", "--tags", "--abbrev=0", "--match", "v*").removeprefix("v") or "0.1.0"


def revision() -> str:
    """Return the commit, with ``-dirty`` where tracked files differ from it."""
    commit = git("rev-parse", "HEAD") or "unknown"
    return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit
