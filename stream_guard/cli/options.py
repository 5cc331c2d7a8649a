"""The options and arguments that several commands share, and the completion of policy ids."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from stream_guard.core.english import did_you_mean
from stream_guard.core.errors import SettingsError
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "ConfigOption",
    "CurveKind",
    "EffortOption",
    "FromOption",
    "JsonOption",
    "PathOption",
    "SlugArgument",
    "ToOption",
    "complete_policy",
    "refuse_unknown",
    "valid_until",
]


class EffortChoice(StrEnum):
    """How long the model reasons."""

    low = "low"
    medium = "medium"
    high = "high"


class CurveKind(StrEnum):
    """The kind of curve that ``policies calibrate`` fits."""

    platt = "platt"
    isotonic = "isotonic"


def complete_policy(context: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of policies that begin with ``incomplete``; empty where the folder cannot be read."""
    try:
        folder = (
            context.params.get("path") or load_settings(context.params.get("config")).policies.path
        )
        found = sorted(file.parent.name for file in Path(folder).glob("*/policy.md"))
    except (OSError, SettingsError):
        return []
    return [slug for slug in found if slug.startswith(incomplete)]


def refuse_unknown(option: str, word: str, known: Collection[str]) -> None:
    """Raise SettingsError where a word is none of those that an option knows; the message names the closest."""
    if word not in known:
        meant = did_you_mean(word, known)
        message = f"{option} {word}: unknown{meant}; use one of: {', '.join(known) or 'none'}"
        raise SettingsError(message)


ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Settings file (TOML). Environment variables override it.",
    ),
]
PathOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--path",
        "-p",
        metavar="FOLDER",
        help="Folder of policies. Default: the setting policies.path.",
    ),
]
PostTopicOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--topic",
        metavar="TOPIC",
        help="Read posts by this topic's own settings under post.topics.",
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SlugArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="POLICY",
        help="Policy id: the name of its folder.",
        autocompletion=complete_policy,
    ),
]
EffortOption: TypeAlias = Annotated[
    EffortChoice | None,
    typer.Option("--effort", help="Reasoning effort, in place of the policy's own."),
]
FromOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="TIME|OFFSET", help="Start of the range: an ISO 8601 time or an offset."
    ),
]
ToOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="TIME|OFFSET", help="End of the range; this time or offset is excluded."
    ),
]
DeciderOption: TypeAlias = Annotated[
    str, typer.Option("--by", metavar="PSEUDONYM", help="Who decides; never a real name.")
]
CategoryOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="CODE", help="The policy's category that applies.")
]
ReasonOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Why. It is published: do not quote the post.")
]
ValidDaysOption: TypeAlias = Annotated[
    int | None, typer.Option(min=1, max=36_500, help="Days until the decision expires.")
]
_DAY_MS: Final = 86_400_000


def valid_until(valid_days: int | None, now_ms: int) -> int | None:
    """Return when a decision expires, Unix time in ms, by a :data:`ValidDaysOption`; None without one."""
    return None if valid_days is None else now_ms + valid_days * _DAY_MS
