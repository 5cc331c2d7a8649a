"""The installed version of Stream Guard."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """Return the installed version, or ``0+unknown`` from a bare checkout."""
    try:
        return version("stream-guard")
    except PackageNotFoundError:
        return "0+unknown"
