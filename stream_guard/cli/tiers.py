"""The commands about what stands before and behind the model: try a classifier, fit a calibration. No logic."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from stream_guard.cli.policies import (
    ConfigOption,
    PathOption,
    SlugArgument,
    find,
    load,
    out,
    read_lines,
)
from stream_guard.core.errors import PolicyError, RecordError
from stream_guard.offline.calibrate.data import join_labels, read_labels
from stream_guard.offline.calibrate.fit import FitError, Method, fit_curve, held_out_scores
from stream_guard.records.post import PostParser
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.policies.policy import Policy

__all__ = ["CurveKind", "calibrate", "classify", "fit"]


class CurveKind(StrEnum):
    """What ``calibrate`` fits."""

    platt = "platt"
    isotonic = "isotonic"


def classify(
    classifier: Annotated[
        str, typer.Argument(metavar="CLASSIFIER", help="builtin:NAME, or a folder.")
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE.jsonl", help="One post a line, as records hold them."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Load a classifier, and print the probability that it gives each post of a file."""
    from stream_guard.judging.tiers.classifier.files import classifier_folder
    from stream_guard.judging.tiers.classifier.model import load_classifier
    from stream_guard.judging.tiers.classifier.tier import scored_text

    settings = load_settings(config)
    model = load_classifier(
        classifier_folder(classifier, Path()), threads=settings.cascade.classifier_threads
    )
    out.print(f"{model.label}: loaded and tried", markup=False)
    parser = PostParser(settings.post)
    for number, line in enumerate([] if file is None else read_lines(file), 1):
        try:
            post = parser.parse(line, ())
        except RecordError as error:
            out.print(f"line {number}: a dead letter: {error}", markup=False, soft_wrap=True)
            continue
        (score,) = model.score([scored_text(post)])
        told = "no score" if score.probability is None else f"{score.probability:.4f}"
        cut = " (its end was cut off)" if score.truncated else ""
        out.print(f"line {number}: {post.id}: {told}{cut}", markup=False, soft_wrap=True)


def calibrate(
    slug: SlugArgument,
    verdicts: Annotated[
        Path, typer.Argument(metavar="VERDICTS.jsonl", help="One verdict a line, as published.")
    ],
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS.csv", help="People's: columns id and label.")
    ],
    method: Annotated[
        CurveKind, typer.Option("--method", help="isotonic needs thousands of posts.")
    ] = CurveKind.platt,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Into the policy's folder, not to standard output.")
    ] = False,
) -> None:
    """Fit calibration.json on judged posts that people have labelled, and say what it is worth."""
    folder, policies = load(path, config)
    policy = find(policies, slug)
    try:
        known = read_labels(_bytes(labels), policy, str(labels))
    except FitError as error:
        raise PolicyError(str(error)) from error
    fit(policy, folder, _bytes(verdicts), known, str(verdicts), method, write=write)


def fit(
    policy: Policy,
    folder: Path,
    verdicts: bytes,
    labels: Mapping[str, bool],
    source: str,
    method: CurveKind,
    *,
    write: bool,
) -> None:
    """Fit a curve, write it or show it, and say what it is worth.

    Args:
        policy: for whose version it is.
        folder: of all policies.
        verdicts: one a line.
        labels: whether a post violates, by its id.
        source: of the verdicts, for messages.
        method: the curve's kind.
        write: into the policy's folder.

    Raises:
        PolicyError: no curve can be fitted on these.
    """
    chosen: Method = "isotonic" if method is CurveKind.isotonic else "platt"
    try:
        joined = join_labels(verdicts, labels, policy, source)
        by = joined.judged_by
        curve = fit_curve(
            joined.posts,
            chosen,
            policy_sha256=policy.sha256,
            model=by.model,
            revision=by.revision,
            confidence_method=by.method,
        )
        scores = held_out_scores(joined.posts, chosen)
    except FitError as error:
        raise PolicyError(str(error)) from error
    text = orjson.dumps(curve.model_dump(), option=orjson.OPT_INDENT_2).decode() + "\n"
    if write:
        target = folder / policy.id / "calibration.json"
        target.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {target}", err=True)
    else:
        sys.stdout.write(text)
    typer.echo(
        f"{len(joined.posts)} posts; mean squared error on held-out posts (Brier; less is better): "
        f"{scores.raw:.4f} before, {scores.calibrated:.4f} after",
        err=True,
    )
    for why, count in sorted(joined.passed_over.items()):
        typer.echo(f"passed over: {count} verdicts {why}", err=True)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        message = f"{file}: {error.strerror or error}"
        raise typer.BadParameter(message) from error
