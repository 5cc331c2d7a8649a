"""Typed functions over scikit-learn and statsmodels, which the extra ``evaluation`` installs.

Importing this module takes seconds. Commands import it only when they need a figure.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from stream_guard.core.errors import SettingsError

try:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics import confusion_matrix, mean_squared_error
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.proportion import proportion_confint
    from statsmodels.tools.sm_exceptions import ModelWarning
except ImportError as error:
    _MESSAGE = (
        f"the package {error.name!r} is missing, which evaluation and calibration need; "
        "run: pip install 'stream-guard[evaluation]'"
    )
    raise SettingsError(_MESSAGE) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "confusion_counts",
    "fit_monotone",
    "fit_sigmoid",
    "mcnemar_p",
    "mean_square",
    "wilson_bounds",
]

_ITERATIONS_MAX = 200
_TOLERANCE = 1e-13


def wilson_bounds(hits: int, rows: int) -> tuple[float, float]:
    """Return the ends of Wilson's 95 % score interval (1927) of a share, in [0, 1]; ``rows`` is not 0."""
    low, high = proportion_confint(hits, rows, alpha=0.05, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def mcnemar_p(better: int, worse: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (1947), in [0, 1]."""
    return float(mcnemar([[0, better], [worse, 0]], exact=True).pvalue)


def mean_square(truth: Sequence[float], predicted: Sequence[float]) -> float:
    """Return the mean squared error; of probabilities and outcomes, this is the score of Brier (1950)."""
    return float(mean_squared_error(truth, predicted))


def confusion_counts(
    truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> list[list[int]]:
    """Return counts by true label (down) and predicted label (across), both in the order of ``labels``."""
    counts: list[list[int]] = confusion_matrix(truth, predicted, labels=list(labels)).tolist()
    return counts


def fit_sigmoid(x: Sequence[float], target: Sequence[float]) -> tuple[float, float]:
    """Return a and b of the most likely sigmoid 1 / (1 + exp(-(a x + b))); targets are in [0, 1]."""
    columns = np.column_stack([np.asarray(x), np.ones(len(x))])
    with warnings.catch_warnings():
        # Platt's targets are never 0 or 1, so a perfect fit is finite.
        warnings.simplefilter("ignore", ModelWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        fitted = GLM(np.asarray(target), columns, family=Binomial()).fit(
            maxiter=_ITERATIONS_MAX, tol=_TOLERANCE
        )
    a, b = fitted.params
    return float(a), float(b)


def fit_monotone(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    """Return the corners of the curve that never falls and is nearest to the points, in squares; y is in [0, 1]."""
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(
        np.asarray(x, float), np.asarray(y, float)
    )
    return list(zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True))
