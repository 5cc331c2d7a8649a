"""Renders an evaluation as a JSON document, and as an HTML page that loads nothing from the network.

The page escapes every text of a post.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from stream_guard.offline.evaluation.figures import is_wrong, labels_of
from stream_guard.offline.evaluation.plots import bars_of, confusion_shades, reliability_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.offline.evaluation.comparison import Comparison, Flip
    from stream_guard.offline.evaluation.figures import Figures, Interval
    from stream_guard.offline.evaluation.predictions import Prediction
    from stream_guard.offline.evaluation.repetition import Repetition, Runs
    from stream_guard.offline.evaluation.thresholds import Check

__all__ = ["WRONG_SHOWN_MAX", "Evaluation", "plots_of", "to_document", "to_html"]

WRONG_SHOWN_MAX: Final = 200
"""How many rows of a kind the page shows; ``predictions.jsonl`` has all rows."""


@dataclass(slots=True, frozen=True)
class Evaluation:
    """The content of a report.

    Attributes:
        name: name of this side.
        policy: id, version, sha256 and effort.
        source: name of the golden set.
        made_at: time of the report, RFC 3339.
        program: version of Stream Guard.
        model: the model, as the engine describes it.
        seconds: duration of judging this side, in all runs, without the engine's start.
        figures: figures of this side.
        predictions: predictions of this side.
        against: name of the other side, or None.
        figures_against: figures of the other side.
        comparison: of both sides.
        repetition: of the runs of this side, where there are several. The figures are those of the first.
        checks: the thresholds that were set.
    """

    name: str
    policy: Mapping[str, str]
    source: str
    made_at: str
    program: str
    model: Mapping[str, str]
    seconds: float
    figures: Figures
    predictions: Sequence[Prediction]
    against: str | None
    figures_against: Figures | None
    comparison: Comparison | None
    repetition: Repetition | None
    checks: Sequence[Check]


def to_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return the report as plain data, without posts' texts and rationales."""
    comparison = evaluation.comparison
    compared: dict[str, Any] | None = None
    if comparison is not None:
        compared = {
            "against": evaluation.against,
            "figures": _plain(evaluation.figures_against),
            "rows": comparison.rows,
            "flips": [_flip(flip) for flip in comparison.flips],
            "flip_share": _named(comparison.flip_share),
            "moved": [_flip(flip) for flip in comparison.moved],
            "better": comparison.better,
            "worse": comparison.worse,
            "p": comparison.p,
        }
    return {
        "name": evaluation.name,
        "policy": evaluation.policy,
        "source": evaluation.source,
        "made_at": evaluation.made_at,
        "program": evaluation.program,
        "model": evaluation.model,
        "seconds": evaluation.seconds,
        "figures": _plain(evaluation.figures),
        "comparison": compared,
        "repetition": None if evaluation.repetition is None else _repetition(evaluation.repetition),
        "checks": [check._asdict() for check in evaluation.checks],
        "passed": all(check.passed for check in evaluation.checks),
    }


def to_html(evaluation: Evaluation, texts: Mapping[int, str] | None) -> str:
    """Return the page.

    Args:
        evaluation: the content.
        texts: of posts, by row; None omits the texts and the model's rationales.
    """
    figures = evaluation.figures
    wrong = [each for each in evaluation.predictions if is_wrong(each)]
    # Most confident first: there, the policy or the label may be wrong.
    wrong.sort(
        key=lambda each: -abs((each.confidence if each.confidence is not None else 0.5) - 0.5)
    )
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            e=evaluation,
            f=figures,
            bars=bars_of(figures),
            reliability=reliability_of(figures.calibration),
            shades=confusion_shades(figures.confusion),
            wrong=wrong[:WRONG_SHOWN_MAX],
            wrong_rows=len(wrong),
            labels_of=labels_of,
            texts=texts,
            shown_max=WRONG_SHOWN_MAX,
        )
    )


def plots_of(figures: Figures) -> tuple[str, ...]:
    """Return the plots of an evaluation as SVG elements, for a page that has the report's style sheet."""
    found: list[tuple[str, dict[str, Any]]] = [("bars.svg.j2", {"bars": bars_of(figures)})]
    if (reliability := reliability_of(figures.calibration)) is not None:
        found.append(("reliability.svg.j2", {"reliability": reliability, "f": figures}))
    environment = _environment()
    return tuple(environment.get_template(name).render(**values) for name, values in found)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("stream_guard.offline.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "interval": _interval, "signed": _signed}
    return environment


def _repetition(repetition: Repetition) -> dict[str, Any]:
    return {
        "runs": repetition.runs,
        "rows": repetition.rows,
        "flips": [_runs(row) for row in repetition.flips],
        "flip_share": _named(repetition.flip_share),
        "moved": [_runs(row) for row in repetition.moved],
        "rules": _named(repetition.rules),
        "f1": repetition.f1,
        "accuracy": repetition.accuracy,
    }


def _runs(row: Runs) -> dict[str, Any]:
    return {
        "row": row[0].row,
        "id": row[0].id,
        "golden": labels_of(row[0])[0],
        "runs": [
            {
                "decision": each.decision,
                "category": each.predicted_category,
                "rule_ids": each.rule_ids,
            }
            for each in row
        ],
    }


def _flip(flip: Flip) -> dict[str, Any]:
    this, other = flip
    return {
        "row": this.row,
        "id": this.id,
        "golden": labels_of(this)[0],
        "this": {"decision": this.decision, "category": this.predicted_category},
        "against": {"decision": other.decision, "category": other.predicted_category},
    }


def _plain(figures: Figures | None) -> Any:  # noqa: ANN401 - JSON
    return None if figures is None else _named(asdict(figures))


def _named(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Turn named tuples into objects, at every depth."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _named(each) for name, each in value._asdict().items()}
    if isinstance(value, dict):
        return {name: _named(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_named(each) for each in value]
    return value


def _share(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.3f}"


def _interval(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _signed(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:+.3f}".replace("-", "\u2212")
