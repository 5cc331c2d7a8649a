"""``stream-guard policies calibrate``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from stream_guard.cli.options import ConfigOption, CurveKind, PathOption, SlugArgument
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.posts import read_bytes
from stream_guard.cli.terminal import (
    count_of,
    show_progress,
    stdout_kept_clean,
    warn,
    write_json,
)
from stream_guard.cli.warm_engine import NoStudioOption, studio_judge
from stream_guard.core.errors import LimitError, PolicyError, SettingsError
from stream_guard.offline.calibrate.data import join_labels, read_labels
from stream_guard.offline.calibrate.fit import FitError, Method, fit_curve, held_out_scores
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.offline.calibrate.data import LabelledSet
    from stream_guard.offline.evaluation.judging import Judged
    from stream_guard.policies.calibration import Calibration
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

JudgedArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="JUDGED.jsonl",
        help="Judged posts: predictions.jsonl of stream-guard eval, or verdicts as published, one a line. Default: "
        "judge the policy's golden_set now.",
    ),
]
LabelsArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="LABELS.csv",
        help="Human labels: columns id and label. Leave out for predictions.jsonl, which holds them.",
    ),
]


def calibrate(  # noqa: PLR0913 - each is an option
    slug: SlugArgument,
    judged: JudgedArgument = None,
    labels: LabelsArgument = None,
    method: Annotated[
        CurveKind, typer.Option("--method", help="isotonic needs thousands of posts.")
    ] = CurveKind.platt,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    write: Annotated[
        bool,
        typer.Option("--write", help="Write, or replace, calibration.json in the policy's folder."),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Write it even if it is worse than no curve on held-out posts."
        ),
    ] = False,
    no_studio: NoStudioOption = False,
) -> None:
    """Fit a policy's calibration on judged and labelled posts, and show what it gains."""
    folder, policies = load_folder(path, config)
    policy = find_policy(policies, slug)
    chosen: Method = "isotonic" if method is CurveKind.isotonic else "platt"
    try:
        if judged is None:
            source, lines = _judge_golden_set(
                load_settings(config), folder, policy, no_studio=no_studio
            )
            joined = _join_predictions(policy, lines, source)
        else:
            joined = _join(policy, judged, labels)
        curve = _fit(policy, joined, chosen)
        scores = held_out_scores(joined.posts, chosen)
    except FitError as error:
        raise PolicyError(str(error)) from error
    measured = (
        f"mean squared error on held-out posts (Brier; less is better): {scores.raw:.4f} before, "
        f"{scores.calibrated:.4f} after"
    )
    if write and scores.calibrated > scores.raw and not force:
        message = (
            f"the curve is worse than none, and is not written: {measured}; label more posts, try another --method, "
            "or write it with --force"
        )
        raise LimitError(message)
    if write:
        target = folder / policy.id / "calibration.json"
        content = orjson.dumps(curve.model_dump(), option=orjson.OPT_INDENT_2)
        replaced = target.exists()
        target.write_bytes(content + b"\n")
        warn(f"wrote {target}, in place of the earlier curve" if replaced else f"wrote {target}")
    else:
        write_json(curve.model_dump())
    warn(f"{count_of(len(joined.posts), 'post')}; {measured}")
    for why, count in sorted(joined.ignored.items()):
        warn(f"left out: {count_of(count, 'verdict')} {why}")


def _join(policy: Policy, judged: Path, labels: Path | None) -> LabelledSet:
    if labels is not None:
        known = read_labels(read_bytes(labels), policy, str(labels))
        return join_labels(read_bytes(judged), known, policy, str(judged))
    from stream_guard.offline.evaluation.predictions import read_predictions

    _, lines = read_predictions(judged)
    return _join_predictions(policy, lines, str(judged))


def _join_predictions(
    policy: Policy, lines: Sequence[Mapping[str, Any]], source: str
) -> LabelledSet:
    verdicts = b"\n".join(orjson.dumps(line) for line in lines if "error" not in line)
    known = {str(line["content"]["id"]): bool(line["golden"]["violates"]) for line in lines}
    return join_labels(verdicts, known, policy, source)


def _judge_golden_set(
    settings: Settings, folder: Path, policy: Policy, *, no_studio: bool
) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """Return the name of the policy's golden set, and a prediction for each of its rows."""
    from stream_guard.offline.evaluation.golden import Columns, read_golden
    from stream_guard.offline.evaluation.judging import judge_rows
    from stream_guard.offline.session import OfflineJudge
    from stream_guard.telemetry.logs import configure_logs

    if policy.golden_set is None:
        message = f"policy {policy.id!r} has no golden set; name JUDGED.jsonl, or set golden_set in its policy.yaml"
        raise SettingsError(message)
    configure_logs(settings.telemetry)
    file = folder / policy.id / policy.golden_set
    rows = read_golden(
        file, policy, Columns(), labels={}, text_bytes_max=settings.post.max_text_bytes
    )
    warm = studio_judge(settings, no_studio=no_studio)

    async def run() -> Judged:
        async with OfflineJudge(settings, judge=warm) as judge:
            return await judge_rows(judge, rows, policy, str(file), progress)

    with stdout_kept_clean(), show_progress("judging the golden set") as progress:
        return str(file), asyncio.run(run()).lines


def _fit(policy: Policy, joined: LabelledSet, method: Method) -> Calibration:
    by = joined.judged_by
    return fit_curve(
        joined.posts,
        method,
        policy_sha256=policy.sha256,
        model=by.model,
        revision=by.revision,
        confidence_method=by.method,
    )
