"""Calibrates a judge's confidence with the curve in ``calibration.json`` beside a policy. Pure.

A model that says 0.9 may be right in seven cases of ten. The curve is fitted on labelled posts, for one policy
version, one model and one way to measure confidence. It is never applied to another one, and it keeps the order of
two confidences.
"""

from __future__ import annotations

import itertools
import json
import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictStr,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from stream_guard.core.errors import PolicyError
from stream_guard.policies.text import decode_utf8

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


__all__ = [
    "CALIBRATION_BYTES_MAX",
    "POINTS_MAX",
    "Calibration",
    "IsotonicCalibration",
    "PlattCalibration",
    "calibrate",
    "logit",
    "read_calibration",
]

CALIBRATION_BYTES_MAX: Final = 262_144
POINTS_MAX: Final = 1_000
_EDGE: Final = 1e-6
"""Confidences are clipped to this distance from 0 and 1, so that log-odds are finite."""

_Probability = Annotated[float, Field(ge=0.0, le=1.0, strict=True, allow_inf_nan=False)]


class _Fitted(BaseModel):
    """The source of a curve, which limits where it applies.

    Attributes:
        policy_sha256: digest of the policy version.
        model, revision: as in verdicts.
        confidence_method: how the confidence was measured, as in uncalibrated verdicts.
        fitted_on: number of labelled posts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy_sha256: Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]
    model: Annotated[StrictStr, Field(min_length=1, max_length=500)]
    revision: Annotated[StrictStr, Field(max_length=500)] | None = None
    confidence_method: Annotated[StrictStr, Field(min_length=1, max_length=200)]
    fitted_on: Annotated[int, Field(ge=1, strict=True)]


class PlattCalibration(_Fitted):
    """A sigmoid over the confidence's log-odds: 1 / (1 + exp(-(a * logit + b))).

    Platt (1999), "Probabilistic outputs for support vector machines"; on log-odds, a = 1 and b = 0 changes nothing.
    """

    method: Literal["platt"]
    a: Annotated[float, Field(ge=0.0, le=100.0, strict=True, allow_inf_nan=False)]
    b: Annotated[float, Field(ge=-100.0, le=100.0, strict=True, allow_inf_nan=False)]

    def apply(self, confidence: float) -> float:
        """Return the calibrated confidence, in [0, 1], for a confidence in [0, 1]."""
        at = self.a * logit(confidence) + self.b
        return 0.5 * (1.0 + math.tanh(0.5 * at))  # the sigmoid, without overflow


class IsotonicCalibration(_Fitted):
    """Straight lines between points that never fall; constant before the first point and after the last."""

    method: Literal["isotonic"]
    points: Annotated[
        tuple[tuple[_Probability, _Probability], ...], Field(min_length=1, max_length=POINTS_MAX)
    ]

    @field_validator("points")
    @classmethod
    def _check_rising(
        cls, points: tuple[tuple[float, float], ...]
    ) -> tuple[tuple[float, float], ...]:
        for number, ((x, y), (next_x, next_y)) in enumerate(itertools.pairwise(points)):
            if next_x <= x or next_y < y:
                message = (
                    f"point {number + 1}: [{next_x}, {next_y}] follows [{x}, {y}]; the first number of each point must "
                    "be greater than that of the previous point, the second must not be less: fit it again"
                )
                raise ValueError(message)
        return points

    def apply(self, confidence: float) -> float:
        """Return the calibrated confidence, in [0, 1], for a confidence in [0, 1]."""
        points = self.points
        at = bisect_right(points, (confidence, 2.0))
        if at == 0:
            return points[0][1]
        (x, y) = points[at - 1]
        if at == len(points):
            return y
        (next_x, next_y) = points[at]
        # Rounding must not exceed the next point.
        return min(next_y, y + (next_y - y) * ((confidence - x) / (next_x - x)))


Calibration: TypeAlias = PlattCalibration | IsotonicCalibration

_ADAPTER: Final[TypeAdapter[Calibration]] = TypeAdapter(
    Annotated[Calibration, Field(discriminator="method")]
)


def logit(probability: float) -> float:
    """Return the log-odds of a probability; finite, also at 0 and 1."""
    inner = min(1.0 - _EDGE, max(_EDGE, probability))
    return math.log(inner) - math.log1p(-inner)


def calibrate(
    confidence: float | None,
    method: str | None,
    curve: Calibration | None,
    *,
    policy_sha256: str,
    model: str,
    revision: str | None,
) -> tuple[float | None, str | None]:
    """Return a confidence and the name of its method, such as ``<method>+platt`` if the curve applies.

    Args:
        confidence: the probability that the post violates, in [0, 1]; None where it was not measured.
        method: how it was measured.
        curve: the curve of the policy; None where the policy has none.
        policy_sha256: digest of the policy version that judged the post.
        model: the model that judged the post.
        revision: the model's revision.
    """
    if (
        curve is None
        or confidence is None
        or curve.policy_sha256 != policy_sha256
        or (curve.confidence_method, curve.model, curve.revision) != (method, model, revision)
    ):
        return confidence, method
    return curve.apply(confidence), f"{method}+{curve.method}"


def read_calibration(content: bytes, source: str) -> Calibration:
    """Read a ``calibration.json``.

    Raises:
        PolicyError: the file is too large, not JSON or not a calibration; the message names file, line and remedy.
    """
    if len(content) > CALIBRATION_BYTES_MAX:
        message = f"{source}: over {CALIBRATION_BYTES_MAX:,} bytes; fit it again with fewer points"
        raise PolicyError(message)
    text = decode_utf8(content, source)
    try:
        value = json.loads(
            text, object_pairs_hook=_reject_duplicate_keys, parse_constant=_no_constant
        )
    except json.JSONDecodeError as error:
        message = (
            f"{source}:{error.lineno}: not JSON ({error.msg}); fit it again, or remove the file"
        )
        raise PolicyError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{source}:1: not usable JSON ({error}); fit it again, or remove the file"
        raise PolicyError(message) from error
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        faults = (_describe(detail, text, source) for detail in error.errors(include_url=False))
        raise PolicyError("\n".join(dict.fromkeys(faults))) from error


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            message = f"duplicate key {key!r}; keep one"
            raise ValueError(message)
        found[key] = value
    return found


def _no_constant(name: str) -> float:
    message = f"{name} is not a number"
    raise ValueError(message)


def _describe(detail: ErrorDetails, text: str, source: str) -> str:
    path = [part for part in detail["loc"] if part not in ("platt", "isotonic")]
    key = next((part for part in path if isinstance(part, str)), "")
    at = text.find(f'"{key}"') if key else -1
    line = text.count("\n", 0, at) + 1 if at >= 0 else 1
    place = ".".join(str(part) for part in path)
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "unknown key; remove it or correct its spelling"
    elif detail["type"].startswith("union_tag"):
        place, message = "method", "must be 'platt' or 'isotonic'"
        at = text.find('"method"')
        line = text.count("\n", 0, at) + 1 if at >= 0 else 1
    elif detail["type"] in ("model_type", "model_attributes_type"):
        message = "must be an object"
    return f"{source}:{line}: {place + ': ' if place else ''}{message}"
