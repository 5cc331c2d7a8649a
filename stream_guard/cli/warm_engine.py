"""The option ``--no-studio``, and the judge of a studio for commands that ask a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from stream_guard.cli.terminal import warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.judging.contract import Judge
    from stream_guard.judging.families.family import Exchange
    from stream_guard.settings import Settings

__all__ = ["NoStudioOption", "studio_judge"]

NoStudioOption: TypeAlias = Annotated[
    bool,
    typer.Option("--no-studio", help="Start an engine of its own, even if a studio runs."),
]


def studio_judge(
    settings: Settings,
    *,
    no_studio: bool,
    listen: Callable[[Exchange], None] | None = None,
) -> Judge | None:
    """Return a judge on the engine of a studio that runs, or None. Says on stderr why a studio is not used.

    Args:
        settings: of the command.
        no_studio: the command's option.
        listen: receives each prompt and completion.
    """
    if no_studio:
        return None
    from stream_guard.offline.studio.remote_judge import find_studio

    search = find_studio(settings, listen=listen)
    if search.why_not is not None:
        warn(f"the studio is not used: {search.why_not}; --no-studio hides this line")
    return search.judge
