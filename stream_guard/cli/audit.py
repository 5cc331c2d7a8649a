"""The commands of an audit: commands only, no logic."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table

from stream_guard.cli.dlq import run_quietly, show_progress
from stream_guard.core.errors import SettingsError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.kafka.bounds import read_bound
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.kafka.sinks import Sink
    from stream_guard.offline.audit.backtest import Report
    from stream_guard.offline.audit.replay import Replayed

out = Console(highlight=False)
_SHOWN_MAX: Final = 50

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Settings as TOML.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="TIME|OFFSET", help="From here on.")
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="TIME|OFFSET", help="Up to here, not included.")
]


def replay(
    verdict_id: Annotated[
        list[str] | None, typer.Argument(metavar="[VERDICT-ID]...", help="Which; or a range.")
    ] = None,
    *,
    first: FromOption = None,
    last: ToOption = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", "-p", metavar="SLUG", help="Only those by this policy."),
    ] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="Judge each again, by the policy of that time.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Rebuild verdicts' prompts from record and archive: exit 0 if all are the same, 6 with the reason if not.

    The range is one of the verdict topic, by the time of publishing or by offset.
    """
    from stream_guard.offline.audit.replay import BORNE_OUT
    from stream_guard.offline.audit.replay_run import Wanted, check_ids
    from stream_guard.offline.audit.replay_run import replay as run

    if not verdict_id and first is None and last is None:
        raise SettingsError("name verdict ids, or a range by --from and --to")
    wanted = Wanted(
        check_ids(verdict_id or []),
        read_bound(first, "--from"),
        read_bound(last, "--to"),
        policy,
        judge,
    )
    settings = load_settings(config)

    async def go() -> list[Replayed]:
        with show_progress("reading") as progress:
            return await run(settings, wanted, progress)

    replayed: list[Replayed] = run_quietly(go())
    if json:
        for one in replayed:
            sys.stdout.write(orjson.dumps(one.describe()).decode() + "\n")
    else:
        _show(replayed)
    if any(one.status not in BORNE_OUT or one.judged for one in replayed):
        raise typer.Exit(ExitCode.EVIDENCE)


def _show(replayed: list[Replayed]) -> None:
    """Print what became of verdicts: one in full, many as counts and the odd ones."""
    if len(replayed) == 1:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in replayed[0].describe().items():
            shown = "; ".join(value) or "the same" if isinstance(value, list) else value
            table.add_row(name, "" if shown is None else str(shown))
        out.print(table, soft_wrap=True)
        return
    from stream_guard.offline.audit.replay import BORNE_OUT

    odd = [one for one in replayed if one.status not in BORNE_OUT or one.judged]
    for one in odd[:_SHOWN_MAX]:
        told = one.reason or "; ".join(one.judged or ())
        out.print(f"{one.verdict['id']} {one.status}: {told}", markup=False, soft_wrap=True)
    if len(odd) > _SHOWN_MAX:
        out.print(f"… and {len(odd) - _SHOWN_MAX} more; --json has all of them")
    for status, count in Counter(one.status for one in replayed).most_common():
        out.print(f"{count} {status}")


def backtest(  # noqa: PLR0913 - each an option of the command
    policy: Annotated[
        Path,
        typer.Option("--policy", "-p", metavar="PATH", help="The new policy: folder or policy.md."),
    ],
    topic: Annotated[str, typer.Option("--topic", "-t", help="Whose records are judged.")],
    *,
    first: FromOption = None,
    last: ToOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="SLUG", help="The old policy; by default the one of the same name."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The verdicts, as JSON lines."),
    ] = None,
    output_topic: Annotated[
        str | None, typer.Option("--output-topic", help="Or into this topic, which must exist.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on: what the output holds is not judged again.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="At most so many records; 0 for all.")
    ] = 0,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Judge past records under a new policy, and say what it would have changed; nothing live is touched.

    The range is one of the topic's records, by their time or by offset. The verdicts, of route mode shadow, go into a
    file or a topic of their own, or nowhere.
    """
    from stream_guard.kafka.sinks import FileSink, NoSink, TopicSink, check_output_topic
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
        load_policy(policy, effort=engine.effort, reasoning_tokens_max=engine.reasoning_tokens_max),
        topic,
        read_bound(first, "--from"),
        read_bound(last, "--to"),
        against,
        limit,
        resume,
    )
    sink: Sink = NoSink()
    if output is not None:
        sink = FileSink(output, resume=resume)
    elif output_topic is not None:
        check_output_topic(settings.kafka, output_topic, topic)
        sink = TopicSink(settings.kafka, output_topic)

    async def go() -> Report:
        with show_progress("judging") as progress:
            return await run(settings, plan, sink, progress)

    told = run_quietly(go()).describe()
    if json:
        sys.stdout.write(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    _show_backtest(told)


def _show_backtest(told: dict[str, Any]) -> None:
    new = told["policy"]
    out.print(
        f"{told['judged']} records of {told['topic']} judged by {new['id']}@{new['version']}, {told['compared']} of "
        f"them compared with verdicts by {told['against']}",
        markup=False,
        soft_wrap=True,
    )
    for count, what in (
        (told["of_an_earlier_run"], "judged by an earlier run"),
        (sum(told["unreadable"].values()), f"could not be judged {told['unreadable']}"),
        (told["left_by_limit"], "left, by --limit"),
        (told["without_old_verdict"], f"without a verdict by {told['against']}"),
        (told["same"], "the same"),
        (told["other_decision"], "with another decision"),
        (told["other_category"], "with another category"),
    ):
        if count:
            out.print(f"{count} {what}", markup=False, soft_wrap=True)
    if not told["flips"]:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("old", "category", "new", "category", "records"):
        table.add_column(column)
    for flip in told["flips"]:
        names = (
            flip["old_decision"],
            flip["old_category"],
            flip["new_decision"],
            flip["new_category"],
        )
        table.add_row(*(name or "-" for name in names), str(flip["count"]))
    out.print(table)
    for example in told["examples"]:
        out.print(f"{example['record']}: {example['old']} -> {example['new']}", markup=False)
