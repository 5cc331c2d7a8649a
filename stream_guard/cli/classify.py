"""``stream-guard classify``."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

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
from stream_guard.cli.posts import read_posts, settings_of_topic
from stream_guard.cli.terminal import say, show_status, stdout_kept_clean, warn, write_json_line
from stream_guard.cli.warm_engine import NoStudioOption, studio_judge
from stream_guard.core.exit_codes import ExitCode
from stream_guard.judging.contract import JudgeRequest
from stream_guard.policies.effort import with_effort
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.cli.posts import PostLine
    from stream_guard.core.errors import RecordError
    from stream_guard.judging.contract import Judgement
    from stream_guard.judging.families.family import Exchange
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

WhatArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="TEXT | - | FILE.jsonl",
        help="A text; or - for standard input (JSON lines if it begins with '{', else one text); or a file with a "
        "record's value a line.",
    ),
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="SLUG",
        help="Judge by this policy; may be repeated. Default: every policy of the folder.",
        autocompletion=complete_policy,
    ),
]
ExplainOption = Annotated[
    bool, typer.Option("--explain", help="Show the prompt and the model's reasoning.")
]


def classify(  # noqa: PLR0913 - each is an option
    what: WhatArgument = None,
    policy: PolicyOption = None,
    path: PathOption = None,
    config: ConfigOption = None,
    effort: EffortOption = None,
    topic: PostTopicOption = None,
    *,
    explain: ExplainOption = False,
    no_studio: NoStudioOption = False,
    json: JsonOption = False,
) -> None:
    """Judge posts without Kafka, with the same tiers and engine as the service.

    A line without a valid post is reported and the others are judged; the exit code is then 2.
    """
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry)
    _, policies = load_folder(path, config)
    chosen = [find_policy(policies, slug) for slug in dict.fromkeys(policy or policies.policies)]
    if effort is not None:
        chosen = [with_effort(each, effort.value, settings.cascade) for each in chosen]
    lines = read_posts(what, settings_of_topic(settings, topic))
    asked = _requests(lines, chosen)
    exchanges: dict[str, list[Exchange]] = {}
    with stdout_kept_clean():
        requests = [request for _, request in asked]
        judged = _judge(settings, requests, exchanges, explain=explain, no_studio=no_studio)
    failed = False
    for line in lines:
        if line.fault is not None:
            _report_fault(line, line.fault, json=json)
            failed = True
    for (line, request), judgement in zip(asked, judged, strict=True):
        heard = exchanges.get(request.id, []) if explain else None
        _report(line, judgement, heard, json=json)
        failed = failed or judgement.error is not None
    if failed:
        raise typer.Exit(ExitCode.USAGE)


def _requests(
    lines: Sequence[PostLine], policies: Sequence[Policy]
) -> list[tuple[PostLine, JudgeRequest]]:
    """Return a request for each post under each policy, with the line that holds the post."""
    asked: list[tuple[PostLine, JudgeRequest]] = []
    for line in lines:
        if line.post is not None:
            for policy in policies:
                asked.append((line, JudgeRequest(str(len(asked)), line.post, policy)))
    return asked


def _judge(
    settings: Settings,
    asked: list[JudgeRequest],
    exchanges: dict[str, list[Exchange]],
    *,
    explain: bool,
    no_studio: bool,
) -> list[Judgement]:
    from stream_guard.offline.session import OfflineJudge

    if not asked:
        return []

    def keep(exchange: Exchange) -> None:
        exchanges.setdefault(exchange.request_id, []).append(exchange)

    listen = keep if explain else None
    warm = studio_judge(settings, no_studio=no_studio, listen=listen)

    async def run() -> list[Judgement]:
        async with OfflineJudge(settings, judge=warm, listen=listen) as judge:
            with show_status(
                "starting the engine" if warm is None else "waiting for the studio's engine"
            ) as show:
                return await judge.judge(
                    asked,
                    ready=lambda: show("judging"),
                    progress=lambda done, total: show(f"judged {done} of {total}"),
                )

    return asyncio.run(run())


def _report(
    line: PostLine, judgement: Judgement, exchanges: list[Exchange] | None, *, json: bool
) -> None:
    from stream_guard.cli.views.classify import exchange_lines, verdict_lines
    from stream_guard.offline.session import verdict_of

    request = judgement.request
    if judgement.error is not None:
        _report_fault(line, judgement.error, json=json, policy=request.policy)
        return
    verdict = verdict_of(judgement, line.source, line.number)
    if json:
        told = [] if exchanges is None else [asdict(each) for each in exchanges]
        write_json_line(verdict | ({} if exchanges is None else {"explanation": told}))
        return
    for shown in verdict_lines(verdict, request.policy, request.post.text):
        say(shown)
    for shown in exchange_lines(exchanges) if exchanges is not None else ():
        say(shown)


def _report_fault(
    line: PostLine, fault: RecordError, *, json: bool, policy: Policy | None = None
) -> None:
    if json:
        write_json_line(
            {
                "source": line.source,
                "line": line.number,
                "policy": None if policy is None else policy.id,
                "error": {"reason": fault.reason, "message": str(fault)},
            }
        )
        return
    under = "" if policy is None else f" under {policy.id}"
    warn(f"{line.source}:{line.number}: would be a dead letter{under}: {fault}")
