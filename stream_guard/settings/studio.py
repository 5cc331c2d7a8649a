"""Settings of the studio: a local process that keeps an engine warm for other commands."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from stream_guard.settings.section import Section


class StudioSettings(Section):
    """The engine that ``stream-guard studio`` keeps warm for the commands of the same user."""

    socket: Path | None = None
    """The Unix socket at which commands find the studio. Its folder must belong to this user alone. Default:
    ``stream-guard/studio.sock`` in ``$XDG_RUNTIME_DIR``, or ``/tmp/stream-guard-UID/studio.sock``."""
    idle_timeout_s: float = Field(1_800, gt=0)
    """The studio ends after this long without a command, a typed post or an edited policy, in s."""
