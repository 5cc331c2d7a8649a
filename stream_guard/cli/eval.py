"""``stream-guard eval``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer

from stream_guard.cli.options import (
    ConfigOption,
    EffortOption,
    JsonOption,
    PathOption,
    PostTopicOption,
    complete_policy,
)
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.posts import settings_of_topic
from stream_guard.cli.terminal import say, show_progress, stdout_kept_clean, warn, write_json
from stream_guard.cli.warm_engine import NoStudioOption, studio_judge
from stream_guard.core.errors import LimitError, SettingsError
from stream_guard.offline.evaluation.thresholds import BY_LANGUAGE, Thresholds, read_share
from stream_guard.policies.effort import with_effort
from stream_guard.records.post import PostParser
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.offline.evaluation.report import Evaluation
    from stream_guard.offline.evaluation.thresholds import Check
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import PostSettings


_REPORT_FILES: Final = ("report.json", "report.html", "predictions.jsonl")


def _share_option(name: str, text: str) -> Any:  # noqa: ANN401 - typer's own
    return typer.Option(name, metavar="SHARE", parser=read_share, help=text, show_default=False)


PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy", metavar="SLUG", help="The policy's id.", autocompletion=complete_policy
    ),
]
DataArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="Labelled posts: .csv, .tsv, .jsonl or .parquet. Lines before the header are ignored. Default: the "
        "policy's golden_set.",
    ),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="SIDE",
        help="Compare row by row with: an effort (low, medium, high), another policy's id, a folder with another "
        "version, or the predictions.jsonl of an earlier run.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Folder for report.html, report.json and predictions.jsonl. Default: eval-output/SLUG.",
    ),
]
TextColumnOption = Annotated[
    str | None,
    typer.Option(
        help="Column that holds the text: its name, its number from 1, or in .jsonl a JSON pointer."
    ),
]
LabelColumnOption = Annotated[str | None, typer.Option(help="Column that holds the human label.")]
IdColumnOption = Annotated[
    str | None, typer.Option(help="Column that holds the post's id. Default: the row number.")
]
LanguageColumnOption = Annotated[str | None, typer.Option(help="Column that holds the language.")]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="LABEL=MEANING",
        help="Meaning of a label: a category, violates or safe; may be repeated.",
    ),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, help="Use only the first N rows.")
]
MinF1Option = Annotated[float | None, _share_option("--min-f1", "Exit 5 below this F1.")]
MinF1ByLanguageOption = Annotated[
    float | None,
    _share_option("--min-f1-by-language", "Exit 5 if a language has an F1 below this."),
]
MinPrecisionOption = Annotated[
    float | None, _share_option("--min-precision", "Exit 5 below this precision.")
]
MinRecallOption = Annotated[
    float | None, _share_option("--min-recall", "Exit 5 below this recall.")
]
MaxUndecidedOption = Annotated[
    float | None,
    _share_option("--max-undecided", "Exit 5 if more are undecided; 2% or 0.02."),
]
MaxFlipsOption = Annotated[
    float | None,
    _share_option("--max-flips", "With --against: exit 5 if more decisions differ."),
]
RepeatOption = Annotated[
    int,
    typer.Option(
        "--repeat",
        metavar="N",
        min=1,
        max=100,
        help="Judge all posts N times, and show which decisions change from run to run, and which rules they name.",
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        "-f",
        help="Replace files in --out that are not from an earlier evaluation of this policy.",
    ),
]
TextsOption = Annotated[
    bool,
    typer.Option("--texts/--no-texts", help="Show posts and rationales in report.html."),
]


# Over 60 lines: a third of them is the list of options.
def evaluate(  # noqa: PLR0913, PLR0917 - each is an option
    policy: PolicyOption,
    data: DataArgument = None,
    path: PathOption = None,
    config: ConfigOption = None,
    effort: EffortOption = None,
    against: AgainstOption = None,
    out: OutOption = None,
    text_column: TextColumnOption = None,
    label_column: LabelColumnOption = None,
    id_column: IdColumnOption = None,
    language_column: LanguageColumnOption = None,
    labels: MapOption = None,
    limit: LimitOption = None,
    repeat: RepeatOption = 1,
    min_f1: MinF1Option = None,
    min_f1_by_language: MinF1ByLanguageOption = None,
    min_precision: MinPrecisionOption = None,
    min_recall: MinRecallOption = None,
    max_undecided: MaxUndecidedOption = None,
    max_flips: MaxFlipsOption = None,
    topic: PostTopicOption = None,
    *,
    force: ForceOption = False,
    texts: TextsOption = True,
    no_studio: NoStudioOption = False,
    json: JsonOption = False,
) -> None:
    """Judge labelled posts without Kafka, and measure how good a policy is.

    Prints precision, recall and F1 of "violates" and of each category, and writes a report. Exit code 5 if a
    threshold is missed.
    """
    from stream_guard.offline.evaluation.golden import Columns, finish_rows, read_golden
    from stream_guard.offline.evaluation.runner import EvaluationRun, write_files
    from stream_guard.offline.evaluation.sides import side_against
    from stream_guard.telemetry.logs import configure_logs

    if max_flips is not None and against is None:
        raise SettingsError("--max-flips needs a side to compare with; name it with --against")
    settings = load_settings(config)
    configure_logs(settings.telemetry)
    folder, policies = load_folder(path, config)
    chosen = find_policy(policies, policy)
    data = data or _golden_set(folder, chosen)
    if effort is not None:
        chosen = with_effort(chosen, effort.value, settings.cascade)
    how = settings_of_topic(settings, topic)
    # A file of the topic's records has the fields where the records have them.
    places = {} if topic is None or data.suffix != ".jsonl" else _places(how)
    rows = read_golden(
        data,
        chosen,
        Columns(
            text_column or places.get("text"),
            label_column,
            id_column or places.get("id"),
            language_column or places.get("language"),
        ),
        labels=_read_map(labels or ()),
        text_bytes_max=settings.post.max_text_bytes,
    )[:limit]
    finish_rows(rows, PostParser(how), data)
    if min_f1_by_language is not None and not any(row.post.language for row in rows):
        message = f"{BY_LANGUAGE}: no row of {data} has a language; name its column with --language-column"
        raise SettingsError(message)
    other = None if against is None else side_against(against, chosen, policies, settings)
    target = out or Path("eval-output") / policy
    replaces = make_folder(target, policy, force=force)
    thresholds = Thresholds(
        min_f1, min_precision, min_recall, max_undecided, max_flips, min_f1_by_language
    )
    run = EvaluationRun(settings, chosen, other, rows, str(data), thresholds, repeat)
    warm = studio_judge(settings, no_studio=no_studio)
    with stdout_kept_clean(), show_progress("starting the engine") as progress:
        evaluation, lines = asyncio.run(
            run.run(lambda what, done, total: progress(done, total, what), judge=warm)
        )
    document = write_files(target, evaluation, lines, rows if texts else None)
    if replaces:
        warn(f"the report of an earlier run in {target} was replaced; --out keeps both")
    if json:
        write_json(document)
    else:
        from stream_guard.cli.views.evaluation import say_evaluation

        say_evaluation(evaluation)
        say(f"wrote {target / 'report.html'}")
    _refuse_missed(evaluation)


def _places(settings: PostSettings) -> dict[str, str]:
    """Return the pointers of fields; of several, one a line."""
    fields = {"text": settings.text, "id": settings.id, "language": settings.language}
    return {name: at if isinstance(at, str) else "\n".join(at) for name, at in fields.items()}


def _golden_set(folder: Path, policy: Policy) -> Path:
    if policy.golden_set is None:
        message = (
            f"policy {policy.id!r} has no golden set; name the labelled posts as DATA, or set golden_set in its "
            "policy.yaml"
        )
        raise SettingsError(message)
    return folder / policy.id / policy.golden_set


def _refuse_missed(evaluation: Evaluation) -> None:
    missed = [_missed(each) for each in evaluation.checks if not each.passed]
    if missed:
        raise LimitError("; ".join(missed))


def _missed(check: Check) -> str:
    reached = (
        "nothing: there is no such figure" if check.reached is None else f"{check.reached:.3f}"
    )
    return f"{check.option} is {check.bound:g}, reached was {reached}"


def _read_map(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, separator, meaning = pair.rpartition("=")
        if not separator or not name.strip() or not meaning.strip():
            message = f"--map {pair}: write LABEL=MEANING, for example --map bad=violates"
            raise SettingsError(message)
        found[name.strip()] = meaning.strip()
    return found


def make_folder(folder: Path, policy: str, *, force: bool) -> bool:
    """Make the folder before the minutes of judging, and return whether it has a report of an earlier run.

    Raises:
        SettingsError: it cannot be made, or it has files of something else and ``force`` is not given.
    """
    # An evaluation that failed leaves an empty page.
    files = [folder / name for name in _REPORT_FILES]
    there = [file.name for file in files if file.exists() and file.stat().st_size]
    if there and not force and _policy_of_report(folder / "report.json") != policy:
        message = (
            f"--out {folder}: {there[0]} is there already, and is not of an earlier evaluation of {policy}; name "
            "another folder, or replace it with --force"
        )
        raise SettingsError(message)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").touch()
    except OSError as error:
        message = (
            f"--out {folder}: {error.strerror or error}; name a folder that this user may write to"
        )
        raise SettingsError(message) from error
    return bool(there)


def _policy_of_report(file: Path) -> str | None:
    """Return the id of the policy of an earlier report, or None where this is no report."""
    try:
        document = orjson.loads(file.read_bytes())
        return str(document["policy"]["id"]) if document["figures"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
