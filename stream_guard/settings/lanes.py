"""Settings of lanes and tenants, which ``routes.yaml`` names."""

from __future__ import annotations

from pydantic import Field

from stream_guard.settings.section import Section


class LanesSettings(Section):
    """How lanes keep tenants apart. The lanes themselves are in ``routes.yaml``."""

    tenant_queues_max: int = Field(1_024, ge=1, le=65_536)
    """Tenants of a lane that have a queue of their own while they wait for the engine. If more wait, the others share
    as many queues again; a tenant that the lane names always has its own."""
    tenant_hash_s: float = Field(600, gt=0)
    """How long the same tenants share a queue, in s; then the secret of the hash changes."""
    delay_s_max: float = Field(60, gt=0)
    """Longest delay of a post past a quota with ``past: delay``, in s. A post that would have to wait longer is judged
    at low effort instead. Never more than half of ``delivery.stall_timeout_s`` and ``record_age_s_max``."""
    tenants_shown: int = Field(20, ge=0, le=200)
    """Tenants with the most tokens that ``/metrics`` shows by name; 0 shows none."""
    engine_tokens_per_s: float | None = Field(None, gt=0)
    """What one process gets done at saturation, in estimated tokens/s, as ``stream_guard_lane_tokens_total`` counts
    them. ``stream-guard doctor`` holds the goals of lanes against it."""
