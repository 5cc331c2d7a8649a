"""``stream-guard backfill``."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stream_guard.cli.options import (
    ConfigOption,
    EffortOption,
    FromOption,
    JsonOption,
    PathOption,
    PostTopicOption,
    ToOption,
    complete_policy,
)
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.posts import settings_of_topic
from stream_guard.cli.terminal import (
    run_quietly,
    show_progress,
    show_status,
    stderr_without,
    write_json,
)
from stream_guard.core.errors import SettingsError
from stream_guard.core.json_pointer import pointer_to
from stream_guard.kafka.bounds import read_bound
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from stream_guard.offline.backfill.block_judge import Task
    from stream_guard.offline.backfill.cluster import Cluster
    from stream_guard.offline.backfill.estimate import Estimate
    from stream_guard.offline.backfill.run import Output, Report
    from stream_guard.settings import Settings

_TOPIC: Final = "topic:"
_RAYS_OWN: Final = re.compile(rb"(\x1b\[\w+m)?[\[(].*core_worker.*\.cc:\d+|\[\d{4}-.*\.cc:\d+: ")
"""What Ray's C++ part says on stderr about what Ray Data does by itself."""
_DEFAULT_BLOCK: Final = 1_000
_DEFAULT_SAMPLE: Final = 200

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="What to judge: a .parquet, .jsonl or .csv file, a folder of such files, or topic:NAME.",
    ),
]
PolicyOption = Annotated[
    list[str],
    typer.Option(
        "--policy",
        metavar="SLUG",
        help="Judge by this policy; may be repeated.",
        autocompletion=complete_policy,
    ),
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER|topic:NAME",
        help="Where the verdicts go: a folder for Parquet files, or a topic, which needs --state.",
    ),
]
StateOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="With a topic: the folder that keeps verdicts until they are in it, and dead letters.",
    ),
]
TextColumnOption = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column or field of a file that holds the text."),
]
IdColumnOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column or field of a file that holds the id. Without one, a row of a table has its place as id.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="The Ray cluster; auto for the cluster of this machine. Default: this machine alone.",
    ),
]
ActorsOption = Annotated[int, typer.Option(min=1, help="Actors; each has an engine of its own.")]
CpusOption = Annotated[float, typer.Option(min=0, help="Cores of each actor.")]
GpusOption = Annotated[float, typer.Option(min=0, help="GPUs of each actor.")]
BlockOption = Annotated[
    int,
    typer.Option(
        "--block-posts", min=1, help="Most posts of a block: of one file, and what a loss repeats."
    ),
]
EnforceOption = Annotated[
    bool,
    typer.Option(
        "--enforce",
        help="Publish in the live verdict topic, where these verdicts supersede earlier ones on the same records. "
        "Limits of actions and people's decisions apply.",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Judge a sample here, and say what all of it would take. Write nothing."
    ),
]
SampleOption = Annotated[
    int, typer.Option("--sample", min=1, help="With --dry-run: how many posts to judge.")
]
PriceOption = Annotated[
    float | None,
    typer.Option(min=0, help="With --dry-run: price of an actor's machine for an hour."),
]


@dataclass(slots=True, frozen=True)
class _Columns:
    """Where a file has its posts."""

    topic: str | None
    text: str | None
    post_id: str | None


def backfill(  # noqa: PLR0913 - each is an option
    source: SourceArgument,
    policy: PolicyOption,
    out: OutOption = None,
    state: StateOption = None,
    *,
    first: FromOption = None,
    last: ToOption = None,
    text_column: TextColumnOption = None,
    id_column: IdColumnOption = None,
    topic: PostTopicOption = None,
    effort: EffortOption = None,
    address: AddressOption = None,
    actors: ActorsOption = 1,
    cpus: CpusOption = 1,
    gpus: GpusOption = 0,
    block_posts: BlockOption = _DEFAULT_BLOCK,
    enforce: EnforceOption = False,
    dry_run: DryRunOption = False,
    sample: SampleOption = _DEFAULT_SAMPLE,
    price_per_hour: PriceOption = None,
    path: PathOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Judge history on a Ray cluster, beside the live service. Needs the extra ray.

    The same command continues after an interruption: what is written is not judged again.
    """
    from stream_guard.offline.backfill.block_judge import Task
    from stream_guard.offline.backfill.cluster import Cluster
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry)
    folder, policies = load_folder(path, config)
    slugs = tuple(find_policy(policies, slug).id for slug in dict.fromkeys(policy))
    found = _source(settings, source, (first, last), _Columns(topic, text_column, id_column))
    from stream_guard.policies.store import read_policy_files

    task = Task(
        settings, found, read_policy_files(folder), slugs, None if effort is None else effort.value
    )
    if dry_run:
        _estimate(task, block_posts, sample, (actors, price_per_hour), json=json)
        return
    output = _output(settings, source, out, state, enforce=enforce)
    _judge(task, output, Cluster(address, actors, cpus, gpus), block_posts, json=json)


def _source(
    settings: Settings, source: str, bounds: tuple[str | None, str | None], columns: _Columns
) -> Any:  # noqa: ANN401 - a source of either kind
    """Return the source. Raises SettingsError where the options do not fit it, or there is none."""
    from stream_guard.offline.backfill.files import FileSource, find_files
    from stream_guard.offline.backfill.places import place_of
    from stream_guard.offline.backfill.topic import TopicSource

    first, last = (
        read_bound(text, option) for text, option in zip(bounds, ("--from", "--to"), strict=True)
    )
    if source.startswith(_TOPIC):
        given = {
            "--text-column": columns.text,
            "--id-column": columns.post_id,
            "--topic": columns.topic,
        }
        for option, value in given.items():
            if value is not None:
                message = f"{option} {value}: is for files; records of a topic are read by the settings post"
                raise SettingsError(message)
        return TopicSource(source.removeprefix(_TOPIC), first, last)
    if first is not None or last is not None:
        message = f"--from, --to: {source} is no topic; name topic:NAME, or leave them out"
        raise SettingsError(message)
    root, names = find_files(place_of(source, "SOURCE"), source)
    post = settings_of_topic(settings, columns.topic)
    named = {"text": columns.text, "id": columns.post_id}
    changed = {k: pointer_to(v) for k, v in named.items() if v is not None}
    return FileSource(root, names, post.model_copy(update=changed))


def _output(
    settings: Settings, source: str, out: str | None, state: str | None, *, enforce: bool
) -> Output:
    """Return where the verdicts go. Raises SettingsError where the options do not fit."""
    from stream_guard.offline.backfill.places import place_of
    from stream_guard.offline.backfill.publishing import check_topic
    from stream_guard.offline.backfill.run import Output
    from stream_guard.offline.backfill.store import Store

    if out is None:
        raise SettingsError(
            "name --out: a folder for the verdicts, or topic:NAME; or try --dry-run"
        )
    if not out.startswith(_TOPIC):
        if enforce or state is not None:
            option = "--enforce" if enforce else "--state"
            message = f"{option} is for verdicts that go to a topic; write --out topic:NAME, or leave it out"
            raise SettingsError(message)
        return Output(Store(place_of(out, "--out"), "--out"))
    if state is None:
        message = (
            f"--out {out}: name --state FOLDER as well: it keeps verdicts until they are in the topic, "
            "so that an interrupted run can continue"
        )
        raise SettingsError(message)
    topic = out.removeprefix(_TOPIC)
    read = source.removeprefix(_TOPIC) if source.startswith(_TOPIC) else None
    check_topic(settings, topic, read, enforce=enforce)
    return Output(Store(place_of(state, "--state"), "--state"), topic, enforce)


def _judge(task: Task, output: Output, cluster: Cluster, block_posts: int, *, json: bool) -> None:
    from stream_guard.cli.views.backfill import say_report
    from stream_guard.offline.backfill.run import backfill as run

    async def judge() -> Report:
        began: tuple[float, int] | None = None
        with show_progress("starting") as move:

            def show(judged: int, total: int, blocks_in_topic: int | None) -> None:
                nonlocal began
                words = "starting" if began is None else _words(*began, judged)
                began = began or (time.monotonic(), judged)
                written = (
                    "" if blocks_in_topic is None else f", {blocks_in_topic} blocks in the topic"
                )
                move(judged, total, words + written)

            return await run(task, output, cluster, block_rows=block_posts, progress=show)

    with _quiet_ray():
        report: Report = run_quietly(judge())
    if json:
        write_json(report.describe())
    else:
        say_report(report, output)


def _words(began_s: float, first: int, judged: int) -> str:
    seconds = time.monotonic() - began_s
    return f"judging, {(judged - first) / max(seconds, 1e-9):,.0f} posts/s"


def _quiet_ray() -> AbstractContextManager[None]:
    return stderr_without(_RAYS_OWN)


def _estimate(
    task: Task, block_posts: int, sample: int, actors: tuple[int, float | None], *, json: bool
) -> None:
    from stream_guard.cli.views.backfill import say_estimate
    from stream_guard.offline.backfill.estimate import estimate

    async def judge() -> Estimate:
        with show_status("reading the source") as show:
            return await estimate(
                task,
                block_rows=block_posts,
                sample_rows=sample,
                actors=actors[0],
                price_per_hour=actors[1],
                show=show,
            )

    made = run_quietly(judge()).describe()
    if json:
        write_json(made)
    else:
        say_estimate(made)
