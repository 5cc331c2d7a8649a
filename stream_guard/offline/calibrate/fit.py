"""Fits calibration curves to labelled confidences, and says on held-out posts what they are worth. Pure.

What it must never do: judge a curve by the posts that it was fitted on.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from stream_guard.policies.calibration import (
    POINTS_MAX,
    IsotonicCalibration,
    PlattCalibration,
    logit,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.calibration import Calibration

__all__ = [
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
"""Fewer labelled posts than this say nothing that is worth a curve."""
_FOLDS: Final = 5
_STEPS_MAX: Final = 200
_RIDGE: Final = 1e-9
_A_MAX: Final = 100.0

Method: TypeAlias = Literal["platt", "isotonic"]


class FitError(ValueError):
    """These posts do not make a curve; says why, and what would."""


class Labelled(NamedTuple):
    """One post: its id, the judge's confidence in [0, 1] that it violates, and whether it does."""

    id: str
    confidence: float
    violates: bool


class HeldOut(NamedTuple):
    """Mean squared error (Brier 1950), in [0, 1], less is better, over posts that no curve had seen."""

    raw: float
    calibrated: float


def _check(posts: Sequence[Labelled]) -> None:
    violating = sum(post.violates for post in posts)
    if len(posts) < LABELLED_MIN or violating in (0, len(posts)):
        message = (
            f"{len(posts)} labelled posts with a confidence, of which {violating} violate; at least {LABELLED_MIN} are "
            "needed, some of which violate and some do not"
        )
        raise FitError(message)


def fit_platt(posts: Sequence[Labelled]) -> tuple[float, float]:
    """Return a and b of 1 / (1 + exp(-(a * logit(confidence) + b))), by maximum likelihood.

    With the smoothed targets of Platt (1999), and Newton steps that are halved while they make it worse, after Lin,
    Lin and Weng (2007), "A note on Platt's probabilistic outputs for support vector machines".

    Raises:
        FitError: too few posts, all of one kind, or a confidence that falls as posts violate more.
    """
    _check(posts)
    violating = sum(post.violates for post in posts)
    high, low = (violating + 1) / (violating + 2), 1 / (len(posts) - violating + 2)
    data = [(logit(post.confidence), high if post.violates else low) for post in posts]
    a, b = 0.0, math.log((violating + 1) / (len(posts) - violating + 1))
    loss = _loss(data, a, b)
    for _ in range(_STEPS_MAX):
        step_a, step_b = _newton(data, a, b)
        size = 1.0
        while size > 1e-10:  # noqa: PLR2004 - no step that small changes anything
            next_a, next_b = a - size * step_a, b - size * step_b
            next_loss = _loss(data, next_a, next_b)
            if next_loss < loss:
                break
            size /= 2
        else:
            break
        gain, a, b, loss = loss - next_loss, next_a, next_b, next_loss
        if gain < 1e-12 * len(data):
            break
    if not 0.0 < a <= _A_MAX:
        message = (
            "the confidence does not rise as posts violate more, so no curve helps; look at the labels, and at the "
            "policy's text"
        )
        raise FitError(message)
    return a, b


def _loss(data: Sequence[tuple[float, float]], a: float, b: float) -> float:
    total = 0.0
    for x, target in data:
        at = a * x + b
        # log(1 + exp(at)) - target * at, without overflow.
        total += max(at, 0.0) + math.log1p(math.exp(-abs(at))) - target * at
    return total


def _newton(data: Sequence[tuple[float, float]], a: float, b: float) -> tuple[float, float]:
    gradient_a = gradient_b = 0.0
    aa, ab, bb = _RIDGE, 0.0, _RIDGE
    for x, target in data:
        p = 0.5 * (1.0 + math.tanh(0.5 * (a * x + b)))
        off, weight = p - target, p * (1.0 - p)
        gradient_a += off * x
        gradient_b += off
        aa += weight * x * x
        ab += weight * x
        bb += weight
    determinant = aa * bb - ab * ab
    if determinant <= 0.0:
        return gradient_a / aa, gradient_b / bb
    return (
        (bb * gradient_a - ab * gradient_b) / determinant,
        (aa * gradient_b - ab * gradient_a) / determinant,
    )


def fit_isotonic(posts: Sequence[Labelled]) -> list[tuple[float, float]]:
    """Return the points of the curve that never falls and is nearest to the labels, in squares.

    By pooling adjacent violators (Ayer et al. 1955).

    Raises:
        FitError: too few posts, all of one kind, or over ``POINTS_MAX`` points.
    """
    _check(posts)
    by_confidence: dict[float, list[int]] = {}
    for post in posts:
        by_confidence.setdefault(post.confidence, []).append(post.violates)
    # Each block: its first and last confidence, the sum of its labels, how many they are.
    blocks: list[tuple[float, float, int, int]] = []
    for x in sorted(by_confidence):
        labels = by_confidence[x]
        block = (x, x, sum(labels), len(labels))
        while blocks and blocks[-1][2] * block[3] >= block[2] * blocks[-1][3]:
            first, _, total, count = blocks.pop()
            block = (first, block[1], total + block[2], count + block[3])
        blocks.append(block)
    points: list[tuple[float, float]] = []
    for first, last, total, count in blocks:
        points.append((first, total / count))
        if last > first:
            points.append((last, total / count))
    if len(points) > POINTS_MAX:
        message = f"the curve has {len(points)} points, over {POINTS_MAX}; use platt"
        raise FitError(message)
    return points


def brier_score(pairs: Sequence[tuple[float, bool]]) -> float:
    """Return the mean squared distance of probabilities from what was the case."""
    return sum((p - violates) ** 2 for p, violates in pairs) / len(pairs)


def fit_curve(
    posts: Sequence[Labelled],
    method: Method,
    *,
    policy_sha256: str,
    model: str,
    revision: str | None,
    confidence_method: str,
) -> Calibration:
    """Return a curve fitted on these posts, ready to be written as ``calibration.json``.

    Args:
        posts: each once.
        method: ``platt`` for tens or hundreds of posts, ``isotonic`` for thousands.
        policy_sha256: of the policy's version that the posts were judged under.
        model: what judged them.
        revision: the model's.
        confidence_method: how the confidences were measured.

    Raises:
        FitError: as :func:`fit_platt` and :func:`fit_isotonic`.
    """
    fitted: dict[str, Any] = {
        "policy_sha256": policy_sha256,
        "model": model,
        "revision": revision,
        "confidence_method": confidence_method,
        "fitted_on": len(posts),
    }
    if method == "platt":
        a, b = fit_platt(posts)
        return PlattCalibration(**fitted, method="platt", a=a, b=b)
    return IsotonicCalibration(**fitted, method="isotonic", points=tuple(fit_isotonic(posts)))


def held_out_scores(posts: Sequence[Labelled], method: Method) -> HeldOut:
    """Return how far confidences are off before and after, each post by a curve fitted on the others' folds.

    Raises:
        FitError: a fold leaves too few posts, or all of one kind.
    """
    folds: list[list[Labelled]] = [[] for _ in range(_FOLDS)]
    for post in posts:
        # By a digest, so that the same posts make the same folds in any order.
        folds[hashlib.sha256(post.id.encode()).digest()[0] % _FOLDS].append(post)
    raw: list[tuple[float, bool]] = []
    calibrated: list[tuple[float, bool]] = []
    for fold in folds:
        others = [post for other in folds if other is not fold for post in other]
        curve = fit_curve(
            others, method, policy_sha256="0" * 64, model="-", revision=None, confidence_method="-"
        )
        raw += [(post.confidence, post.violates) for post in fold]
        calibrated += [(curve.apply(post.confidence), post.violates) for post in fold]
    return HeldOut(brier_score(raw), brier_score(calibrated))
