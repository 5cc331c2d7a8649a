"""Writes the demo model's card from measurements: no figure in it is typed by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from stream_guard.judging.families.harmony.prompt import TEMPLATE_SHA256, TEMPLATE_VERSION
from tools.demo_model.evaluate import Figure
from tools.demo_model.targets import AT_LEAST, AT_MOST, missed
from tools.demo_model.words import HELD_OUT_PERCENT

CARD: Final = "README.md"
_ERRORS_SHOWN: Final = 12
_PERCENT: Final = 100

_ANEW: Final = "make demo-model"
_FURTHER: Final = "python -m tools.demo_model train --from FOLDER"

_TEMPLATE: Final = Path(__file__).with_name("card.md")


def write_card(
    folder: Path,
    measured: dict[str, Any],
    made: dict[str, Any],
    remark: str = "",
    again: dict[str, Any] | None = None,
) -> None:
    """Write the card into a model's folder.

    Args:
        folder: of the model.
        measured: what ``evaluate`` wrote.
        made: steps, tokens, time in s and processes of the training, whether it began with another model's weights,
            and the number of weights.
        remark: what else is to be said of how it was made.
        again: what ``evaluate`` wrote of another model that the same command made.
    """
    figures = [Figure(**figure) for figure in measured["figures"]]
    shares = [f for f in figures if not f.name.startswith("output tokens")]
    tokens = [f for f in figures if f.name.startswith("output tokens")]
    accuracy = next(f for f in figures if f.name == "accuracy")
    complaints = missed(figures)
    (folder / CARD).write_text(
        _TEMPLATE.read_text(encoding="utf-8").format(
            held_out=HELD_OUT_PERCENT,
            command=_FURTHER if made.get("started") else _ANEW,
            start="It began with the weights of the demo model for prompt template 1"
            if made.get("started")
            else "From nothing but the seed",
            steps=made["steps"],
            tokens=made["tokens"] / 1e6,
            hours=made["spent_s"] / 3600,
            processes=made["processes"],
            weights=made["weights"],
            bytes=sum(path.stat().st_size for path in parts(folder)) / 1e6,
            remark=f"\n{remark}\n" if remark else "",
            template=TEMPLATE_VERSION,
            template_sha256=TEMPLATE_SHA256,
            policies=measured["policies"],
            figures="\n".join(_row(figure) for figure in shares),
            again="" if again is None else _again(shares, again),
            verdict=_verdict(complaints),
            efforts=_efforts(tokens),
            mistakes=len(measured["wrong"]),
            count=accuracy.count,
            errors="\n".join(_error(wrong) for wrong in measured["wrong"][:_ERRORS_SHOWN]),
            checksums=checksums(folder),
        ),
        encoding="utf-8",
    )


def parts(folder: Path) -> list[Path]:
    """Return the files of a model, without its card."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != CARD)


def checksums(folder: Path) -> str:
    """Return a line for each file, as ``sha256sum`` writes it."""
    return "\n".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in parts(folder)
    )


def _row(figure: Figure) -> str:
    name = figure.name
    target = ""
    if name in AT_LEAST:
        target = f"at least {AT_LEAST[name] * _PERCENT:g} %"
    elif name in AT_MOST:
        target = f"under {AT_MOST[name] * _PERCENT:g} %"
    low, high = figure.low * _PERCENT, figure.high * _PERCENT
    return f"| {name} | {figure.value * _PERCENT:.1f} % | {low:.1f} to {high:.1f} | {figure.count} | {target} |"


def _again(shares: list[Figure], again: dict[str, Any]) -> str:
    others = {figure["name"]: Figure(**figure) for figure in again["figures"]}
    pairs = [(one, others[one.name]) for one in shares]
    outside = [one.name for one, other in pairs if not one.low <= other.value <= one.high]
    said = ", ".join(f"{one.name} {other.value * _PERCENT:.1f} %" for one, other in pairs)
    tokens = _efforts([one for name, one in others.items() if name.startswith("output tokens")])
    where = (
        f"outside the intervals above: {', '.join(outside)}"
        if outside
        else "each within its interval above"
    )
    return f"\nMade once more from nothing by the same command, measured alike, {where}: {said}. {tokens}"


def _verdict(complaints: list[str]) -> str:
    if not complaints:
        return "\nEvery target is reached.\n"
    return "\n**Target missed:** " + "; ".join(complaints) + ".\n"


def _efforts(tokens: list[Figure]) -> str:
    said = ", ".join(f"{f.value:.0f} at {f.name.rpartition(' ')[2]}" for f in tokens)
    return f"Tokens of an answer, on average: {said}.\n"


def _error(wrong: dict[str, Any]) -> str:
    right = f"`{wrong['rule_id']}`" if wrong["rule_id"] else "no rule"
    thread = " (in a thread)" if wrong["thread"] else ""
    said = f"{wrong['decision']} {' '.join(f'`{rule}`' for rule in wrong['rule_ids'])}".strip()
    return (
        f"- {json.dumps(wrong['post'])}{thread}: right was {wrong['right']} by {right} "
        f"({wrong['kind']}, {wrong['answer']}), it said {said}: {wrong['rationale'] or 'no rationale'}"
    )
