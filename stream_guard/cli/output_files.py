"""Checks the files that a command will write before its work, so that nothing is lost and no work is wasted."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from stream_guard.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["refuse_existing", "refuse_same_file"]


def refuse_existing(option: str, path: Path, *, force: bool) -> None:
    """Raise SettingsError where a file exists and ``force`` is not given, or where none can be written."""
    if path.is_dir():
        raise SettingsError(f"{option} {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise SettingsError(f"{option} {path}: there is no folder {path.parent}; create it")
    # A pipe or a device keeps nothing that could be lost.
    if path.is_file() and not force:
        message = f"{option} {path}: the file exists; name another, or replace it with --force"
        raise SettingsError(message)


def refuse_same_file(**paths: Path | None) -> None:
    """Raise SettingsError where two options name one file.

    Args:
        paths: by option; None where the option is not given.
    """
    given = [(option, path) for option, path in paths.items() if path is not None]
    for (option, path), (other, second) in combinations(given, 2):
        if path.resolve() == second.resolve():
            raise SettingsError(f"{option} and {other} name one file, {path}; name two")
