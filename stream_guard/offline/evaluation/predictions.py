"""What was predicted of each row, beside what people say: made of judgements, kept as JSON lines, read back.

A line is the verdict that the service would have published, with ``golden`` added. What it must never do: hold the
post's text, which stays in the golden set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson

from stream_guard.core.errors import SettingsError
from stream_guard.offline.session import verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stream_guard.judging.contract import Judgement
    from stream_guard.offline.evaluation.golden import GoldenRow

__all__ = ["Predicted", "Prediction", "predict", "prediction_line", "read_predictions"]

Predicted: TypeAlias = Literal["violates", "safe", "undetermined", "failed"]


@dataclass(slots=True, frozen=True)
class Prediction:
    """One row, judged.

    Attributes:
        row: its number in the golden set.
        id, sha256: of the post.
        language: as the row gives it; None where it gives none.
        violates, category: what people say.
        decision: ``failed`` where it could not be judged at all, as a post that is too long.
        predicted_category: of the decision.
        confidence: that it violates, in [0, 1], calibrated where there is a curve; None where it was not measured.
        confidence_raw: before calibration.
        calibrated: whether there was a curve.
        tier: that decided.
        prompt_tokens, cached_tokens, output_tokens: spent on it.
        seconds: from being taken up to the decision.
        rationale: the model's.
    """

    row: int
    id: str
    sha256: str
    language: str | None
    violates: bool
    category: str | None
    decision: Predicted
    predicted_category: str | None = None
    confidence: float | None = None
    confidence_raw: float | None = None
    calibrated: bool = False
    tier: str = "none"
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    rationale: str | None = None


def prediction_line(row: GoldenRow, judgement: Judgement, source: str) -> dict[str, Any]:
    """Return a row's line of ``predictions.jsonl``."""
    golden = {
        "row": row.number,
        "label": row.label,
        "violates": row.violates,
        "category": row.category,
        "seconds": max(0, judgement.finished_ns - judgement.started_ns) / 1e9,
    }
    if judgement.error is not None:
        post, policy = row.post, judgement.request.policy
        return {
            "content": {"id": post.id, "sha256": post.sha256, "language": post.language},
            "policy": {"id": policy.id, "version": policy.version, "sha256": policy.sha256},
            "error": {"reason": judgement.error.reason, "message": str(judgement.error)},
            "golden": golden,
        }
    return {**verdict_of(judgement, source, row.number), "golden": golden}


def predict(line: Mapping[str, Any]) -> Prediction:
    """Return a line's prediction. Raises KeyError, TypeError where it is none."""
    golden, content = line["golden"], line["content"]
    known = {
        "row": golden["row"],
        "id": content["id"],
        "sha256": content["sha256"],
        "language": content["language"],
        "violates": bool(golden["violates"]),
        "category": golden["category"],
        "seconds": float(golden["seconds"]),
    }
    if "error" in line:
        return Prediction(**known, decision="failed")
    confidence, provenance = line["confidence"], line["provenance"]
    return Prediction(
        **known,
        decision=line["decision"],
        predicted_category=line["policy"]["category"],
        confidence=confidence["value"],
        confidence_raw=confidence["raw"],
        calibrated="+" in (confidence["method"] or ""),
        tier=provenance["tier"],
        prompt_tokens=provenance["prompt_tokens"],
        cached_tokens=provenance["cached_tokens"],
        output_tokens=provenance["output_tokens"],
        rationale=line["policy"]["rationale"],
    )


def read_predictions(file: Path) -> tuple[list[Prediction], Sequence[Mapping[str, Any]]]:
    """Read what an earlier evaluation wrote: the predictions, and the lines that they are made of.

    Raises:
        SettingsError: it cannot be read, is empty, or a line is no prediction; names file and line.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        message = f"{file}: {error.strerror or error}; name a file that this user may read"
        raise SettingsError(message) from error
    lines: list[Mapping[str, Any]] = []
    predictions: list[Prediction] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            document = orjson.loads(line)
            predictions.append(predict(document))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            message = (
                f"{file}:{number}: no prediction ({type(error).__name__}); name a predictions.jsonl that "
                "stream-guard eval wrote"
            )
            raise SettingsError(message) from error
        lines.append(document)
    if not predictions:
        message = f"{file}: empty; name a predictions.jsonl that stream-guard eval wrote"
        raise SettingsError(message)
    return predictions, lines
