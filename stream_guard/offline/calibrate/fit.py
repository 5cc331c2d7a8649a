"""Fits calibration curves to labelled confidences, and measures them on held-out posts. Pure.

A curve is never measured on the posts that it was fitted on.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from stream_guard.policies.calibration import (
    POINTS_MAX,
    IsotonicCalibration,
    PlattCalibration,
    logit,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.policies.calibration import Calibration

__all__ = [
    "KIND_MIN",
    "LABELLED_MIN",
    "FitError",
    "HeldOut",
    "Labelled",
    "Method",
    "brier_score",
    "fit_curve",
    "fit_isotonic",
    "fit_platt",
    "held_out_scores",
]

LABELLED_MIN: Final = 20
"""A curve needs at least this many labelled posts."""
_FOLDS: Final = 5
KIND_MIN: Final = _FOLDS
"""Of them, at least so many must violate and as many be safe: one of each kind for each fold."""
_NOBODY: Final = {
    "policy_sha256": "0" * 64,
    "model": "-",
    "revision": None,
    "confidence_method": "-",
}
"""Names no policy and no model: of a curve that is only measured."""
_COEFFICIENT_MAX: Final = 100.0
"""Of a and b in either direction, as in ``calibration.json``."""

Method: TypeAlias = Literal["platt", "isotonic"]


class FitError(ValueError):
    """No curve fits these posts; the message says why and what to do."""


class Labelled(NamedTuple):
    """One post: its id, the judge's confidence in [0, 1] that it violates, and the human label."""

    id: str
    confidence: float
    violates: bool


class HeldOut(NamedTuple):
    """Mean squared error (Brier 1950) on held-out posts, in [0, 1]; lower is better."""

    raw: float
    calibrated: float


def _check(posts: Sequence[Labelled]) -> None:
    violating = sum(post.violates for post in posts)
    safe = len(posts) - violating
    if len(posts) < LABELLED_MIN or min(violating, safe) < KIND_MIN:
        message = (
            f"{len(posts)} labelled posts with a confidence: {violating} violating and {safe} safe; a curve needs "
            f"{LABELLED_MIN}, of which {KIND_MIN} violating and {KIND_MIN} safe: label more posts"
        )
        raise FitError(message)


def fit_platt(posts: Sequence[Labelled]) -> tuple[float, float]:
    """Return a and b of the sigmoid over log-odds that fits best.

    Uses the smoothed targets of Platt (1999), "Probabilistic outputs for support vector machines".

    Raises:
        FitError: too few posts, posts of one kind only, or a confidence that falls as posts violate more.
        SettingsError: the extra ``evaluation`` is not installed.
    """
    _check(posts)
    return _platt(posts)


def _platt(posts: Sequence[Labelled]) -> tuple[float, float]:
    from stream_guard.offline.calibrate.libraries import fit_sigmoid

    violating = sum(post.violates for post in posts)
    high, low = (violating + 1) / (violating + 2), 1 / (len(posts) - violating + 2)
    a, b = fit_sigmoid(
        [logit(post.confidence) for post in posts],
        [high if post.violates else low for post in posts],
    )
    if not (0.0 < a <= _COEFFICIENT_MAX and abs(b) <= _COEFFICIENT_MAX):
        message = (
            "the confidence does not rise as posts violate more, so no curve helps; check the labels "
            "and the policy's text"
        )
        raise FitError(message)
    return a, b


def fit_isotonic(posts: Sequence[Labelled]) -> list[tuple[float, float]]:
    """Return the points of the curve that never falls and is nearest to the labels, in squares.

    Isotonic regression pools adjacent violators (Ayer et al. 1955).

    Raises:
        FitError: too few posts, posts of one kind only, or over ``POINTS_MAX`` points.
        SettingsError: the extra ``evaluation`` is not installed.
    """
    _check(posts)
    return _isotonic(posts)


def _isotonic(posts: Sequence[Labelled]) -> list[tuple[float, float]]:
    from stream_guard.offline.calibrate.libraries import fit_monotone

    points = fit_monotone(
        [post.confidence for post in posts], [float(post.violates) for post in posts]
    )
    if len(points) > POINTS_MAX:
        message = f"the curve has {len(points)} points, over {POINTS_MAX}; use platt"
        raise FitError(message)
    return points


def brier_score(pairs: Sequence[tuple[float, bool]]) -> float:
    """Return the score of Brier (1950): the mean squared error of probabilities, in [0, 1]."""
    from stream_guard.offline.calibrate.libraries import mean_square

    return mean_square([float(violates) for _, violates in pairs], [p for p, _ in pairs])


def fit_curve(
    posts: Sequence[Labelled],
    method: Method,
    *,
    policy_sha256: str,
    model: str,
    revision: str | None,
    confidence_method: str,
) -> Calibration:
    """Fit a curve to these posts, and return it in the form of ``calibration.json``.

    Args:
        posts: each post once.
        method: ``platt`` for tens or hundreds of posts, ``isotonic`` for thousands.
        policy_sha256: digest of the policy version that the posts were judged under.
        model: the model that judged them.
        revision: the model's revision.
        confidence_method: how the confidences were measured.

    Raises:
        FitError: as :func:`fit_platt` and :func:`fit_isotonic`.
    """
    _check(posts)
    about = {
        "policy_sha256": policy_sha256,
        "model": model,
        "revision": revision,
        "confidence_method": confidence_method,
    }
    return _curve(posts, method, about)


def _curve(
    posts: Sequence[Labelled], method: Method, about: Mapping[str, str | None]
) -> Calibration:
    fitted: dict[str, Any] = {**about, "fitted_on": len(posts)}
    if method == "platt":
        a, b = _platt(posts)
        return PlattCalibration(**fitted, method="platt", a=a, b=b)
    return IsotonicCalibration(**fitted, method="isotonic", points=tuple(_isotonic(posts)))


def held_out_scores(posts: Sequence[Labelled], method: Method) -> HeldOut:
    """Return the error before and after calibration, by cross-validation in five folds.

    Each fold has its share of violating and of safe posts (stratified), so that the minimum of posts is the same for
    a curve and for its check.

    Raises:
        FitError: too few posts, or posts of one kind only.
    """
    _check(posts)
    # By digest, so that the order of the posts does not change the folds.
    ordered = sorted(
        posts, key=lambda post: (post.violates, hashlib.sha256(post.id.encode()).digest())
    )
    folds = [ordered[number::_FOLDS] for number in range(_FOLDS)]
    raw: list[tuple[float, bool]] = []
    calibrated: list[tuple[float, bool]] = []
    for fold in folds:
        others = [post for other in folds if other is not fold for post in other]
        curve = _curve(others, method, _NOBODY)
        raw += [(post.confidence, post.violates) for post in fold]
        calibrated += [(curve.apply(post.confidence), post.violates) for post in fold]
    return HeldOut(brier_score(raw), brier_score(calibrated))
