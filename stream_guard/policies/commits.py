"""Commits a policy's folder in the git checkout that holds it, by the program ``git``. Nothing is pushed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_checkout", "commit_policy", "require_git"]

_TIMEOUT_S: Final = 60.0
_NAME: Final = "stream-guard console"
_ADDRESS: Final = "console@stream-guard.invalid"
_NO_GIT: Final = (
    "console.commit (STREAM_GUARD_CONSOLE__COMMIT): the program git is not installed; install it (the images of Stream "
    "Guard have none), or unset the setting"
)


def require_git() -> None:
    """Check, before anything starts, that git is installed. Raises SettingsError."""
    if shutil.which("git") is None:
        raise SettingsError(_NO_GIT)


def check_checkout(path: Path) -> None:
    """Check that a folder is in a git checkout. Raises PolicyError."""
    _git(path, "rev-parse", "--is-inside-work-tree")


def commit_policy(path: Path, slug: str, message: str, who: str) -> None:
    """Commit a policy's folder, and nothing else that is changed or staged.

    Args:
        path: the folder of policies.
        slug: the policy's id.
        message: of the commit.
        who: the author's pseudonym.

    Raises:
        PolicyError: git is not installed, or refuses; the message has what it says.
    """
    _git(path, "add", "--all", "--", slug)
    name = "".join(each for each in who if each.isprintable() and each not in "<>").strip()
    author = f"{name or _NAME} <{_ADDRESS}>"
    words = ("commit", "--quiet", "--only", f"--author={author}", "--file=-", "--", slug)
    _git(path, *words, given=message)


def _git(path: Path, *words: str, given: str = "") -> None:
    environment = {
        "GIT_COMMITTER_NAME": _NAME,
        "GIT_COMMITTER_EMAIL": _ADDRESS,
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(  # noqa: S603 - a policy's id and fixed words; the message is input
            ["git", "-C", str(path), *words],  # noqa: S607 - the git of this machine
            input=given.encode(),
            env=environment,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise PolicyError(_NO_GIT) from error
    except subprocess.TimeoutExpired as error:
        message = f"{path}: git {words[0]} did not end within {_TIMEOUT_S:g} s"
        raise PolicyError(message) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        raise PolicyError(f"{path}: git {words[0]} failed: {said}")
