"""Predictions with their human labels: made from judgements, written as JSON lines, and read back.

A line is the verdict that the service would publish, with ``golden`` added. It never contains the post's text.
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

Predicted: TypeAlias = Literal["violates", "safe", "escalated", "undetermined", "failed"]


@dataclass(slots=True, frozen=True)
class Prediction:
    """The prediction for one row.

    Attributes:
        row: number of the row in the golden set.
        id, sha256: of the post.
        language: as in the row; None where the row has none.
        violates, category: the human label.
        decision: ``escalated`` where the policy's own label leaves the post to people; ``failed``
            where the post could not be judged, for example because it is too long.
        predicted_category: category of the decision.
        confidence: that the post violates, in [0, 1], calibrated if there is a curve; None where not measured.
        confidence_raw: before calibration.
        calibrated: whether a curve was applied.
        tier: the tier that decided.
        prompt_tokens, cached_tokens, output_tokens: tokens spent on the row.
        seconds: from submission to decision.
        rationale: the model's rationale.
        rule_ids: the rules that the decision names.
        for_people: whether the human label leaves the post to people.
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
    rule_ids: tuple[str, ...] = ()
    for_people: bool = False

    @property
    def golden(self) -> Predicted:
        """The decision of the human label."""
        if self.for_people:
            return "escalated"
        return "violates" if self.violates else "safe"


def prediction_line(row: GoldenRow, judgement: Judgement, source: str) -> dict[str, Any]:
    """Return the line of a row in ``predictions.jsonl``."""
    golden = {
        "row": row.number,
        "label": row.label,
        "violates": row.violates,
        "category": row.category,
        "escalated": row.escalated,
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
    """Return the prediction in a line. Raises KeyError or TypeError where the line is invalid."""
    golden, content = line["golden"], line["content"]
    known = {
        "row": golden["row"],
        "id": content["id"],
        "sha256": content["sha256"],
        "language": content["language"],
        "violates": bool(golden["violates"]),
        "category": golden["category"],
        "seconds": float(golden["seconds"]),
        "for_people": bool(golden.get("escalated", False)),
    }
    if "error" in line:
        return Prediction(**known, decision="failed")
    confidence, provenance = line["confidence"], line["provenance"]
    escalated = line["decision"] == "undetermined" and bool(line["policy"].get("labels"))
    return Prediction(
        **known,
        decision="escalated" if escalated else line["decision"],
        predicted_category=line["policy"]["category"],
        confidence=confidence["value"],
        confidence_raw=confidence["raw"],
        calibrated="+" in (confidence["method"] or ""),
        tier=provenance["tier"],
        prompt_tokens=provenance["prompt_tokens"],
        cached_tokens=provenance["cached_tokens"],
        output_tokens=provenance["output_tokens"],
        rationale=line["policy"]["rationale"],
        rule_ids=tuple(line["policy"]["rule_ids"]),
    )


def read_predictions(file: Path) -> tuple[list[Prediction], Sequence[Mapping[str, Any]]]:
    """Read the predictions of an earlier evaluation, and their lines.

    Raises:
        SettingsError: the file cannot be read or is empty, or a line is invalid. The message names file and line.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        message = f"{file}: {error.strerror or error}; name a readable file"
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
                f"{file}:{number}: not a prediction ({type(error).__name__}); name a predictions.jsonl that "
                "stream-guard eval wrote"
            )
            raise SettingsError(message) from error
        lines.append(document)
    if not predictions:
        message = f"{file}: empty; name a predictions.jsonl that stream-guard eval wrote"
        raise SettingsError(message)
    return predictions, lines
