"""``stream-guard policies attack``."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stream_guard.cli.options import (
    ConfigOption,
    JsonOption,
    PathOption,
    PostTopicOption,
    SlugArgument,
)
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.posts import read_sample, settings_of_topic
from stream_guard.cli.terminal import (
    count_of,
    say,
    show_progress,
    stdout_kept_clean,
    write_json,
    write_table,
)
from stream_guard.cli.warm_engine import NoStudioOption, studio_judge
from stream_guard.core.errors import LimitError
from stream_guard.policies.policy import PolicySet
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.offline.attack import AttackReport

_FLIPS_SHOWN_MAX: Final = 20

PostsOption = Annotated[
    Path | None,
    typer.Option(
        "--posts",
        metavar="FILE",
        help="Posts to disguise: .jsonl with a record's value a line, .csv with a column 'text', or one text a line. "
        "Default: the policy's golden set, else the quoted examples in its text.",
    ),
]
TextColumnOption = Annotated[
    str | None,
    typer.Option(
        "--text-column",
        metavar="COLUMN",
        help="Column of the posts' text: its name or its number from 1; in .jsonl a name or a JSON pointer.",
    ),
]
HiddenMaxOption = Annotated[
    float | None,
    typer.Option(
        "--hidden-max",
        min=0,
        max=1,
        metavar="SHARE",
        help="Exit 5 if a larger share of the violating posts is judged safe in disguise.",
    ),
]


def attack(  # noqa: PLR0913 - each is an option of the command
    slug: SlugArgument,
    posts: PostsOption = None,
    text_column: TextColumnOption = None,
    path: PathOption = None,
    config: ConfigOption = None,
    topic: PostTopicOption = None,
    *,
    posts_max: Annotated[
        int, typer.Option("--posts-max", min=1, help="Use at most this many.")
    ] = 50,
    hidden_max: HiddenMaxOption = None,
    no_studio: NoStudioOption = False,
    json: JsonOption = False,
) -> None:
    """Disguise posts in known ways, judge them with the real model, and count the decisions that flip."""
    from stream_guard.judging.assembly import make_judge
    from stream_guard.offline.attack import run_attacks
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry)
    folder, policies = load_folder(path, config)
    policy = find_policy(policies, slug)
    how = settings_of_topic(settings, topic)
    found = read_sample(posts, policy, folder, how, text_column)[:posts_max]
    judge = studio_judge(settings, no_studio=no_studio) or make_judge(settings.engine)
    with stdout_kept_clean(), show_progress("judging") as progress:
        only = PolicySet({policy.id: policy}, default=(policy.id,))
        report = asyncio.run(run_attacks(judge, only, policy, found, progress=progress))
    if json:
        write_json(asdict(report) | {"hidden_share": report.hidden_share})
    else:
        _say(report)
    if hidden_max is not None and report.hidden_share > hidden_max:
        message = (
            f"{report.hidden_share:.1%} of the violating posts were judged safe in disguise; "
            f"--hidden-max is {hidden_max:.1%}"
        )
        raise LimitError(message)


def _say(report: AttackReport) -> None:
    undecided = (
        f"; {count_of(report.undecided, 'post')} left out: undecided without a disguise"
        if report.undecided
        else ""
    )
    say(
        f"{report.policy}@{report.version} by {report.model}: {count_of(report.posts, 'post')}, "
        f"{report.violating} violating{undecided}"
    )
    columns = ("attack", "held", "hidden", "accused", "escalated", "undetermined", "failed")
    rows = [[str(value) for value in asdict(result).values()] for result in report.results]
    write_table(columns, rows, right=columns[1:])
    say(f"hidden: {report.hidden_share:.1%} of violating posts in all disguises")
    for flip in report.flips[:_FLIPS_SHOWN_MAX]:
        say(f"  {flip.attack}: {flip.before} -> {flip.after}: post {flip.post}: {flip.text}")
    if len(report.flips) > _FLIPS_SHOWN_MAX:
        more = count_of(len(report.flips) - _FLIPS_SHOWN_MAX, "more flip")
        say(f"  and {more}; --json has all")
