"""The figures that the demo model must reach on held-out data. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.demo_model.evaluate import Figure

AT_LEAST: Final = {
    "accuracy: structured": 0.95,
    "accuracy: native": 0.95,
    "flips right (both of a pair): structured": 0.90,
    "flips right (both of a pair): native": 0.90,
    "rule id right, of violations (structured)": 0.90,
    "escalations right": 0.85,
    "posts in a thread right": 0.85,
}
AT_MOST: Final = {"parse failures": 0.005}
BASELINES: Final = ("baseline always safe: accuracy", "baseline words alone: accuracy")
LEAD: Final = 0.25
"""How far below the accuracy both baselines have to be."""


def missed(figures: Sequence[Figure]) -> list[str]:
    """Return a sentence for each target that is missed; none where all are reached."""
    values = {figure.name: figure.value for figure in figures}
    found = [
        f"{name} is {values[name]:.4f}, and has to be at least {target:g}"
        for name, target in AT_LEAST.items()
        if values[name] < target
    ]
    found += [
        f"{name} is {values[name]:.4f}, and has to be below {target:g}"
        for name, target in AT_MOST.items()
        if values[name] >= target
    ]
    found += [
        f"{name} is {values[name]:.4f}, and has to be {LEAD:g} below the accuracy of {values['accuracy']:.4f}"
        for name in BASELINES
        if values["accuracy"] - values[name] < LEAD
    ]
    return found
