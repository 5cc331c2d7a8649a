"""``stream-guard backtest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_guard.cli.options import ConfigOption, FromOption, JsonOption, ToOption
from stream_guard.cli.terminal import (
    count_of,
    run_quietly,
    say,
    show_progress,
    write_json,
    write_table,
)
from stream_guard.core.errors import SettingsError
from stream_guard.kafka.bounds import read_bound
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.kafka.sinks import Sink
    from stream_guard.offline.audit.backtest import Report
    from stream_guard.settings import Settings

PolicyOption = Annotated[
    Path,
    typer.Option(
        "--policy", "-p", metavar="PATH", help="The new policy: its folder or its policy.md."
    ),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        "--against", metavar="SLUG", help="The old policy. Default: the policy of the same name."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the verdicts as JSON lines."),
]
OutputTopicOption = Annotated[
    str | None,
    typer.Option("--output-topic", help="Send the verdicts to this topic, which must exist."),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Continue an earlier run: skip records that are in its output."),
]
LimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=0, help="Judge at most N records; 0 for all.")
]


def backtest(  # noqa: PLR0913 - each is an option
    policy: PolicyOption,
    topic: Annotated[str, typer.Option("--topic", "-t", help="The topic whose records to judge.")],
    *,
    first: FromOption = None,
    last: ToOption = None,
    against: AgainstOption = None,
    output: OutputOption = None,
    output_topic: OutputTopicOption = None,
    resume: ResumeOption = False,
    limit: LimitOption = 0,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Judge past records under a new policy, and show which decisions it would change.

    The live service, its positions and its topics stay untouched. The verdicts have route mode shadow.
    """
    from stream_guard.offline.audit.backtest_run import Plan
    from stream_guard.offline.audit.backtest_run import backtest as run
    from stream_guard.policies.store import load_policy

    settings = load_settings(config)
    if output is not None and output_topic is not None:
        raise SettingsError("--output and --output-topic exclude each other; name one")
    if resume and output is None and output_topic is None:
        raise SettingsError("--resume needs the --output or --output-topic of the earlier run")
    engine = settings.engine
    plan = Plan(
        load_policy(
            policy,
            effort=engine.effort,
            reasoning_tokens_max=engine.reasoning_tokens_max,
            answer=engine.answer,
        ),
        topic,
        read_bound(first, "--from"),
        read_bound(last, "--to"),
        against,
        limit,
        resume,
    )
    sink = _make_sink(settings, plan.topic, output, output_topic, resume=resume)

    async def judge() -> Report:
        with show_progress("judging") as progress:
            return await run(settings, plan, sink, progress)

    report = run_quietly(judge()).describe()
    if json:
        write_json(report)
    else:
        _say(report)


def _make_sink(
    settings: Settings, topic: str, output: Path | None, output_topic: str | None, *, resume: bool
) -> Sink:
    from stream_guard.kafka.sinks import (
        FileSink,
        NoSink,
        TopicSink,
        check_output_file,
        check_output_topic,
    )

    if output is not None:
        check_output_file(output, resume=resume)
        return FileSink(output, resume=resume)
    if output_topic is not None:
        check_output_topic(settings, output_topic, topic)
        return TopicSink(settings, output_topic)
    return NoSink()


def _say(report: dict[str, Any]) -> None:
    new, against = report["policy"], report["against"]
    say(
        f"{count_of(report['judged'], 'record')} of {report['topic']} judged by {new['id']}@{new['version']}; "
        f"{report['compared']:,} compared with verdicts by {against}"
    )
    unreadable = report["unreadable"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in unreadable.items())
    for count, what in (
        (report["of_an_earlier_run"], "judged by an earlier run"),
        (sum(unreadable.values()), f"not judged: {reasons}"),
        (report["left_by_limit"], "left out by --limit"),
        (report["without_old_verdict"], f"without a verdict by {against}"),
        (report["same"], "with the same outcome"),
        (report["other_decision"], "with another decision"),
        (report["other_category"], "with another category"),
        (report["other_labels"], "with other labels of the policy"),
    ):
        if count:
            say(f"{count_of(count, 'record')} {what}")
    if not report["flips"]:
        return
    rows = [
        [
            *(_side(flip, "old"), flip["old_category"] or "-"),
            *(_side(flip, "new"), flip["new_category"] or "-"),
            str(flip["count"]),
        ]
        for flip in report["flips"]
    ]
    columns = ("old", "category", "new", "category", "records")
    write_table(columns, rows, right=columns[-1:])
    for example in report["examples"]:
        say(f"{example['record']}: {example['old']} -> {example['new']}")


def _side(flip: dict[str, Any], side: str) -> str:
    return " ".join((flip[f"{side}_decision"], *flip[f"{side}_labels"]))
