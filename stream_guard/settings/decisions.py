"""Settings of people's decisions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stream_guard.settings.section import Section

_Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class DecisionsSettings(Section):
    """People's decisions about verdicts, which come back through a topic."""

    enabled: bool = False
    """Whether decisions are read from ``kafka.decision_topic``. The service then judges nothing before it has read the
    whole topic. Off by default: a deployment without reviewers needs no such topic."""
    roles: tuple[_Role, ...] = Field(("reviewer", "lead", "system"), min_length=1)
    """The roles that may decide. A decision by another role becomes a dead letter. ``system`` is for services that
    write ``expiry`` decisions."""
    future_tolerance_s: float = Field(300.0, ge=0)
    """How much later than its record's timestamp a decision may say that it was made. A later one becomes a dead
    letter."""
    memory_bytes_max: int = Field(64 << 20, ge=1 << 20)
    """Most bytes of decisions in memory. The rest is in a temporary file, and about 100 bytes of an index for each
    decision are always in memory."""
    start_timeout_s: float = Field(300.0, gt=0)
    """How long the start may take to read the whole topic. After that the service stops with exit code 3."""
