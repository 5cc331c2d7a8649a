"""Compares the figures of a draft with the limits of its gates. Pure.

The gates of the live version count. A draft can add gates and cannot lower one: its own limits count once it is live.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_guard.core.errors import PolicyError

if TYPE_CHECKING:
    from stream_guard.policies.metadata import Gates

__all__ = ["Gate", "GoldenFigures", "Measured", "Share", "check_gates", "gates_of"]


class Share(NamedTuple):
    """A part of a whole: ``part`` of ``total`` posts."""

    part: int
    total: int

    @property
    def value(self) -> float | None:
        """The share, in [0, 1]; None of no posts."""
        return self.part / self.total if self.total else None


@dataclass(slots=True, frozen=True)
class GoldenFigures:
    """Both versions on the golden set.

    Attributes:
        file: its name, and ``sha256`` the digest of its bytes.
        rows: number of rows.
        f1_old, f1_new: F1 of "violates" of the live version and of the draft; None without a violating row.
        flips: rows with another decision; ``better`` of them towards the label, ``worse`` away from it.
    """

    file: str
    sha256: str
    rows: int
    f1_old: float | None
    f1_new: float | None
    flips: int
    better: int
    worse: int


@dataclass(slots=True, frozen=True)
class Measured:
    """Everything that was measured; a share of no posts where a measure was not taken.

    Attributes:
        golden: on the golden set.
        backtests: the report of each topic, as :meth:`.Report.describe` returns it.
        backtest_flips: records with another decision, of those with a published verdict by the policy.
        people: posts on which the draft decides as people did, of those that people decided on.
        shadow_flips: the same as ``backtest_flips`` for the verdicts of a shadow with the draft's text.
        shadow_people: the same as ``people`` for the shadow.
    """

    golden: GoldenFigures
    backtests: tuple[dict[str, Any], ...] = ()
    backtest_flips: Share = field(default=Share(0, 0))
    people: Share = field(default=Share(0, 0))
    shadow_flips: Share = field(default=Share(0, 0))
    shadow_people: Share = field(default=Share(0, 0))

    def describe(self) -> dict[str, Any]:
        """Return the figures as plain data for JSON, without texts and without the examples of backtests."""
        shares = ("backtest_flips", "people", "shadow_flips", "shadow_people")
        described = asdict(self)
        for report in described["backtests"]:
            report.pop("examples", None)
        return described | {name: getattr(self, name)._asdict() for name in shares}


class Gate(NamedTuple):
    """One gate, held against one figure.

    Attributes:
        name: as in ``policy.yaml``.
        limit: in [0, 1].
        value: the figure; None where nothing could be measured.
        held: whether the value is within the limit. A missing value never is.
        of: the posts behind the figure, in words.
    """

    name: str
    limit: float
    value: float | None
    held: bool
    of: str

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name} is {self.limit:g}, and nothing was measured ({self.of})"
        return f"{self.name} is {self.limit:g}, measured was {self.value:.4g} ({self.of})"


def gates_of(live: Gates, draft: Gates, slug: str) -> dict[str, float]:
    """Return the limits that count, by gate.

    Args:
        live: gates of the live version.
        draft: gates of the draft, for those that the live version does not have.
        slug: the policy's id, for the message.

    Raises:
        PolicyError: neither has a gate.
    """
    limits = draft.model_dump(exclude_none=True) | live.model_dump(exclude_none=True)
    if not limits:
        message = (
            f"{slug}: has no gates, so nothing would say whether the draft is good enough; add them to the draft's "
            "policy.yaml, for example gates: {min_f1: 0.85, max_flips: 0.02}"
        )
        raise PolicyError(message)
    return limits


def check_gates(limits: dict[str, float], measured: Measured) -> tuple[Gate, ...]:
    """Return each gate with its figure; a gate on real posts has one for the backtest and one for the shadow."""
    golden = measured.golden
    figures: dict[str, list[tuple[float | None, str]]] = {
        "min_f1": [(golden.f1_new, f"{golden.rows} rows of {golden.file}")],
        "max_flips": _on_posts(measured.backtest_flips, measured.shadow_flips, "backtest"),
        "min_agreement": _on_posts(measured.people, measured.shadow_people, "judged again"),
    }
    gates = []
    for name, limit in sorted(limits.items()):
        for value, of in figures[name]:
            fits = value is not None and (value <= limit if name == "max_flips" else value >= limit)
            gates.append(Gate(name, limit, value, fits, of))
    return tuple(gates)


def _on_posts(judged: Share, shadow: Share, how: str) -> list[tuple[float | None, str]]:
    """Return the figures of both ways of judging real posts; of the shadow only where there is one."""
    found = []
    if judged.total or not shadow.total:
        found.append((judged.value, f"{how}: {judged.part} of {judged.total} posts"))
    if shadow.total:
        found.append((shadow.value, f"shadow: {shadow.part} of {shadow.total} posts"))
    return found
