"""The settings in which a command and the studio must agree, because they change a verdict. Reads no model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.settings import EngineSettings

__all__ = ["describe_differences", "engine_identity"]

_FREE: Final = frozenset(
    {
        # Each policy brings its own.
        *("effort", "reasoning_tokens_max"),
        # They change when an engine is given up, and no verdict of an engine that works.
        *("start_timeout_s", "hang_timeout_s", "rebuilds_max", "rebuild_window_s"),
        *("rebuild_backoff_s_min", "rebuild_backoff_s_max", "deaths_per_post_max"),
        *("in_flight_requests_max", "in_flight_tokens_max"),
    }
)
_SCRIPTED: Final = ("kind", "scripted_violates")


def engine_identity(settings: EngineSettings) -> dict[str, str]:
    """Return the settings of an engine that change its verdicts, by name, as text.

    ``engine.extra`` may hold a secret, so it is a digest. A model in a folder also counts by its files, so that a
    model that was trained again is another model.
    """
    values: dict[str, Any] = settings.model_dump(mode="json")
    if settings.kind == "scripted":
        return {f"engine.{name}": _text(values[name]) for name in _SCRIPTED}
    values["extra"] = _digest(values["extra"]) if values["extra"] else None
    found = {f"engine.{name}": _text(value) for name, value in values.items() if name not in _FREE}
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        stats = [(file.name, file.stat()) for file in sorted(folder.iterdir()) if file.is_file()]
        files = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        found["the files of the model"] = _digest(files)
    return found


def describe_differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return in words how a studio's engine (``there``) differs from a command's; empty if it does not."""
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    # Most settings of the other kind of engine mean nothing.
    if "engine.kind" in names:
        names = ["engine.kind"]
    words = [f"{n} is {there.get(n, 'unset')} there and {here.get(n, 'unset')} here" for n in names]
    return "; ".join(words)


def _text(value: object) -> str:
    return "unset" if value is None else str(value)


def _digest(value: object) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
