"""Reads ``lanes`` of ``routes.yaml``, and reports every error with its line. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, StrictStr, model_validator

from stream_guard.core.vocabulary import Severity
from stream_guard.policies.lanes import REST, Lane, LaneLimits, Lanes, Past, Quota, TenantShare
from stream_guard.policies.when import STRICT, When

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.yaml_document import Document

__all__ = ["LANES_MAX", "LaneEntry", "read_lanes"]

LANES_MAX: Final = 32
_TENANTS_MAX: Final = 500


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


_Weight = Annotated[float, Field(ge=0.01, le=1_000)]
_Seconds = Annotated[float, Field(gt=0, le=604_800)]
_Count = Annotated[int, Field(ge=1)]
_Severities = Annotated[list[Severity], BeforeValidator(_listed), Field(min_length=1)]


class _LaneWhen(When):
    """The same conditions as of a rule, and the severity of the policy."""

    EMPTY: ClassVar[str] = "has no condition; leave out when for every other post"

    severity: _Severities | None = None

    def is_empty(self) -> bool:
        """Return whether there is no condition."""
        return self.severity is None and super().is_empty()


class _Limits(BaseModel):
    model_config = STRICT

    records: _Count | None = None
    bytes: _Count | None = None
    tokens: _Count | None = None

    @model_validator(mode="after")
    def _some(self) -> _Limits:
        if not self.model_fields_set:
            raise ValueError("has no limit; set records, bytes or tokens, or remove limits")
        return self


class _Quota(BaseModel):
    model_config = STRICT

    tokens_per_s: Annotated[float, Field(gt=0, le=1e9)]
    burst_tokens: Annotated[int, Field(ge=1, le=10**12)]
    past: Past = "delay"

    def made(self) -> Quota:
        """Return the quota."""
        return Quota(self.tokens_per_s, self.burst_tokens, self.past)


class _Tenant(BaseModel):
    model_config = STRICT

    weight: _Weight = 1.0
    quota: _Quota | None = None


_Tenants = Annotated[
    dict[Annotated[StrictStr, Field(min_length=1)], _Tenant], Field(max_length=_TENANTS_MAX)
]


class LaneEntry(BaseModel):
    """One entry of ``lanes``."""

    model_config = STRICT

    # It is a label of metrics.
    name: Annotated[StrictStr, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    when: _LaneWhen | None = None
    kind: Annotated[Literal["live", "backfill"], Field(alias="class")] = "live"
    weight: _Weight = 1.0
    goal_s: _Seconds | None = None
    limits: _Limits | None = None
    quota: _Quota | None = None
    tenants: _Tenants = Field(default_factory=dict)

    def made(self) -> Lane:
        """Return the lane."""
        limits = self.limits or _Limits.model_construct()
        return Lane(
            self.name,
            () if self.when is None else tuple(self.when.conditions()),
            () if self.when is None else tuple(self.when.severity or ()),
            self.weight,
            self.goal_s,
            LaneLimits(limits.records, limits.bytes, limits.tokens),
            self.kind == "backfill",
            None if self.quota is None else self.quota.made(),
            {
                name: TenantShare(one.weight, None if one.quota is None else one.quota.made())
                for name, one in self.tenants.items()
            },
        )


def read_lanes(document: Document, entries: Sequence[LaneEntry]) -> Lanes:
    """Return the lanes of a file.

    Raises:
        PolicyError: two lanes have one name, or a lane can never take a post.
    """
    lanes = [entry.made() for entry in entries]
    for index, lane in enumerate(lanes):
        path = ("lanes", index)
        before = lanes[:index]
        if any(lane.name == one.name for one in before):
            message = f"duplicate lane {lane.name!r}; give each lane a name of its own"
            raise document.error((*path, "name"), message)
        takes_all = next((one for one in before if one.takes_all), None)
        if takes_all is not None:
            message = (
                f"lane {takes_all.name!r} has no conditions, so no post gets here; put it last"
            )
            raise document.error(path, message)
        same = next(
            (
                one
                for one in before
                if (one.conditions, one.severities) == (lane.conditions, lane.severities)
            ),
            None,
        )
        if same is not None:
            message = (
                f"lane {same.name!r} has the same conditions, so no post gets here; remove one"
            )
            raise document.error((*path, "when"), message)
        if lane.name == REST and not lane.takes_all:
            message = (
                f"{REST!r} is the lane of posts that match no other; choose another name, or leave out "
                "its conditions and put it last"
            )
            raise document.error((*path, "name"), message)
    return Lanes(lanes)
