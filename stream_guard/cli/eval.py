"""``stream-guard eval`` and ``eval calibrate``: commands only, no logic."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from typer.core import TyperGroup

from stream_guard.cli.classify import EffortOption  # noqa: TC001 - typer reads the annotations
from stream_guard.cli.policies import (
    ConfigOption,
    JsonOption,
    PathOption,
    complete_policy,
    find,
    load,
)
from stream_guard.cli.terminal import stdout_kept_clean
from stream_guard.cli.tiers import CurveKind, fit
from stream_guard.core.errors import LimitError, SettingsError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.offline.evaluation.thresholds import Thresholds, read_share
from stream_guard.policies.effort import with_effort
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.offline.evaluation.report import Evaluation

__all__ = ["app", "calibrate", "evaluate"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class _RunByDefault(TyperGroup):
    """``eval --policy X DATA`` is short for ``eval run --policy X DATA``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own click
        """Put ``run`` in front of what is no other command."""
        if args and args[0] in self.commands:
            return super().parse_args(ctx, args)
        return super().parse_args(ctx, ["run", *args])


app = typer.Typer(
    name="eval",
    cls=_RunByDefault,
    help="Judge a golden set without Kafka, and say how good a policy is; 'run' may be left out.",
    pretty_exceptions_enable=False,
)

PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy", metavar="SLUG", help="The policy's id.", autocompletion=complete_policy
    ),
]


def _share_option(name: str, text: str) -> Any:  # noqa: ANN401 - typer's own
    return typer.Option(name, metavar="SHARE", parser=read_share, help=text, show_default=False)


@app.command(
    "run",
    epilog="Example: stream-guard eval --policy dangerous-content golden.csv "
    "--against high --min-f1 0.85 --max-flips 2%\n\n"
    f"Exit code {ExitCode.LIMIT} where a threshold is missed. See also: stream-guard eval calibrate --help",
)
def evaluate(  # noqa: PLR0913, PLR0917 - each is an option
    policy: PolicyOption,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Labelled posts: .csv, .tsv, .jsonl or .parquet; a notice above the header is passed over. By default "
            "the policy's golden_set.",
        ),
    ] = None,
    path: PathOption = None,
    config: ConfigOption = None,
    effort: EffortOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="SIDE",
            help="Compare row by row with: an effort (low, medium, high), another policy's id, a folder with another "
            "version, or the predictions.jsonl of an earlier run.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Where report.html, report.json and predictions.jsonl go; by default eval-output/SLUG.",
        ),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="The column of the text; in .jsonl also a JSON pointer.")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="That of people's label.")] = None,
    id_column: Annotated[
        str | None, typer.Option(help="That of the post's id; by default the row's number is it.")
    ] = None,
    language_column: Annotated[str | None, typer.Option(help="That of the language.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="LABEL=MEANING",
            help="What a label means: a category, violates or safe.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="The first so many rows only.")
    ] = None,
    min_f1: Annotated[
        float | None, _share_option("--min-f1", "At least this F1 of 'violates'.")
    ] = None,
    min_precision: Annotated[
        float | None, _share_option("--min-precision", "At least this precision of 'violates'.")
    ] = None,
    min_recall: Annotated[
        float | None, _share_option("--min-recall", "At least this recall of 'violates'.")
    ] = None,
    max_undecided: Annotated[
        float | None,
        _share_option("--max-undecided", "At most this share not decided, as 2% or 0.02."),
    ] = None,
    max_flips: Annotated[
        float | None,
        _share_option("--max-flips", "With --against: at most this share of decisions differ."),
    ] = None,
    *,
    texts: Annotated[
        bool,
        typer.Option("--texts/--no-texts", help="Whether the page shows posts and rationales."),
    ] = True,
    json: JsonOption = False,
) -> None:
    """Judge labelled posts, count, compare, and write a page about it."""
    from stream_guard.offline.evaluation.golden import Columns, read_golden
    from stream_guard.offline.evaluation.sides import side_against
    from stream_guard.offline.evaluation.work import Work, write_files
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry)
    place, policies = load(path, config)
    chosen = find(policies, policy)
    if data is None:
        if chosen.golden_set is None:
            raise SettingsError(
                "name the labelled posts: DATA, or golden_set in the policy's policy.yaml"
            )
        data = place / policy / chosen.golden_set
    if effort is not None:
        chosen = with_effort(chosen, effort.value, settings.cascade)
    if max_flips is not None and against is None:
        raise SettingsError("--max-flips needs a side to compare with: name it with --against")
    other = None if against is None else side_against(against, chosen, policies, settings)
    rows = read_golden(
        data,
        chosen,
        Columns(text_column, label_column, id_column, language_column),
        labels=_mapping(labels or ()),
        text_bytes_max=settings.post.max_text_bytes,
    )[:limit]
    target = _make_folder(folder or Path("eval-output") / policy)
    thresholds = Thresholds(min_f1, min_precision, min_recall, max_undecided, max_flips)
    work = Work(settings, chosen, other, rows, str(data), thresholds)
    with (
        stdout_kept_clean(),
        Progress(console=err, transient=True, disable=not err.is_terminal) as bar,
    ):
        task = bar.add_task("starting the engine", total=None)
        evaluation, lines = asyncio.run(
            work.run(
                lambda what, done, total: bar.update(
                    task, description=what, completed=done, total=total
                )
            )
        )
    document = write_files(target, evaluation, lines, rows if texts else None)
    if json:
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _show(evaluation, target)
    missed = [each for each in evaluation.checks if not each.passed]
    if missed:
        told = "; ".join(
            f"{each.option} is {each.bound:g}, reached was "
            + (
                "nothing: there is no such figure"
                if each.reached is None
                else f"{each.reached:.3f}"
            )
            for each in missed
        )
        raise LimitError(told)


@app.command(
    "calibrate",
    epilog="Example: stream-guard eval calibrate --policy touting eval-output/touting/predictions.jsonl --write",
)
def calibrate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS.jsonl", help="As eval wrote it, labels and all.")
    ],
    policy: PolicyOption,
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
    """Fit calibration.json for a policy's version on what eval predicted, and say what it is worth."""
    from stream_guard.offline.evaluation.predictions import read_predictions

    folder, policies = load(path, config)
    chosen = find(policies, policy)
    read, lines = read_predictions(predictions)
    judged = b"\n".join(orjson.dumps(line) for line in lines if "error" not in line)
    labels = {each.id: each.violates for each in read}
    fit(chosen, folder, judged, labels, str(predictions), method, write=write)


def _show(evaluation: Evaluation, folder: Path) -> None:
    figures = evaluation.figures
    out.print(f"{evaluation.name} on {evaluation.source}: {figures.rows} posts", markup=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("label")
    for column in ("posts", "called so", "precision", "recall", "F1", "95 %"):
        table.add_column(column, justify="right")
    for score in dict.fromkeys((figures.decision, *figures.categories)):
        values = (score.precision.value, score.recall.value, score.f1.value)
        shown = ("-" if value is None else f"{value:.3f}" for value in values)
        f1 = score.f1
        interval = "" if f1.low is None or f1.high is None else f"{f1.low:.3f} to {f1.high:.3f}"
        table.add_row(score.name, str(score.support), str(score.predicted), *shown, interval)
    out.print(table)
    calibration = figures.calibration
    ece = "" if calibration is None else f"; calibration error {calibration.ece:.3f}"
    out.print(
        f"not decided: {figures.undecided}; accuracy {figures.accuracy.value or 0:.3f}{ece}; "
        f"{figures.cost.prompt_tokens:,} tokens in, {figures.cost.output_tokens:,} out, {evaluation.seconds:.1f} s",
        markup=False,
        soft_wrap=True,
    )
    comparison = evaluation.comparison
    if comparison is not None:
        out.print(
            f"against {evaluation.against}: {len(comparison.flips)} flips "
            f"({comparison.flip_share.value or 0:.1%}), {comparison.better} better, {comparison.worse} worse, "
            f"p = {comparison.p:.3g}",
            markup=False,
            soft_wrap=True,
        )
        for flip in comparison.flips[:20]:
            out.print(
                f"  row {flip.this.row}: {flip.against.decision} -> {flip.this.decision}",
                markup=False,
            )
    for each in evaluation.checks:
        reached = "no figure" if each.reached is None else f"{each.reached:.3f}"
        style = "[green]passed[/]" if each.passed else "[red]FAILED[/]"
        out.print(f"{each.option} {each.bound:g}: {reached} {style}")
    out.print(f"wrote {folder / 'report.html'}", markup=False, soft_wrap=True)


def _mapping(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, separator, meaning = pair.rpartition("=")
        if not separator or not name.strip() or not meaning.strip():
            message = f"--map {pair}: write LABEL=MEANING, for example --map bad=violates"
            raise SettingsError(message)
        found[name.strip()] = meaning.strip()
    return found


def _make_folder(folder: Path) -> Path:
    """Make the folder now, and not after minutes of judging. Raises SettingsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").touch()
    except OSError as error:
        message = (
            f"--out {folder}: {error.strerror or error}; name a folder that this user may write to"
        )
        raise SettingsError(message) from error
    return folder
