"""``stream-guard classify``: command only, no logic."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import orjson
import typer
from rich.console import Console

from stream_guard.cli.policies import (
    ConfigOption,
    JsonOption,
    PathOption,
    complete_policy,
    find,
    load,
)
from stream_guard.cli.terminal import stdout_kept_clean
from stream_guard.core.errors import RecordError, SettingsError, TooLargeError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.judging.contract import JudgeRequest
from stream_guard.policies.effort import with_effort
from stream_guard.records.post import Post, PostParser
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.judging.contract import Judgement
    from stream_guard.judging.families.harmony.transcript import Exchange
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import PostSettings, Settings

__all__ = ["EffortChoice", "EffortOption", "classify"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
_NAME_CHARACTERS_MAX: Final = 60
"""A longer text is not looked for among the files: names have limits, in bytes."""


class EffortChoice(StrEnum):
    """How long the model reasons."""

    low = "low"
    medium = "medium"
    high = "high"


EffortOption = Annotated[
    EffortChoice | None,
    typer.Option(
        "--effort", help="How long the model reasons, instead of the policy's own effort."
    ),
]


class Line(NamedTuple):
    """One post to judge, or why it is none.

    Attributes:
        source: the file's name, or ``-``, or ``argument``.
        number: of its line, from 1.
        post: None where it is no post.
        fault: None where it is one.
    """

    source: str
    number: int
    post: Post | None
    fault: RecordError | None = None


def classify(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT | - | FILE.jsonl",
            help="A text; - for standard input (posts as JSON lines where it begins with '{', else one text); or a "
            "file with one post a line, as records hold them.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="SLUG",
            help="Judge by this policy; may be given again. By default by every policy of the folder.",
            autocompletion=complete_policy,
        ),
    ] = None,
    path: PathOption = None,
    config: ConfigOption = None,
    effort: EffortOption = None,
    *,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show the prompt as people read it, and the reasoning."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Judge posts without Kafka, as the service would: the same tiers, the same engine.

    A line that is no post, and would be a dead letter, is named and the others are judged; the exit code is then 2.
    """
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry)
    _, policies = load(path, config)
    chosen = [find(policies, slug) for slug in dict.fromkeys(policy or policies.policies)]
    if effort is not None:
        chosen = [with_effort(each, effort.value, settings.cascade) for each in chosen]
    lines = read_input(what, settings.post)
    asked: list[JudgeRequest] = []
    for line in lines:
        if line.post is not None:
            asked += [
                JudgeRequest(str(len(asked) + n), line.post, each, context=line)
                for n, each in enumerate(chosen)
            ]
    exchanges: dict[str, list[Exchange]] = {}
    with stdout_kept_clean():
        judged = asyncio.run(_judge(settings, asked, exchanges if explain else None))
    failed = False
    for line in lines:
        if line.fault is not None:
            _show_fault(line, line.fault, json=json)
            failed = True
    for judgement in judged:
        _show(judgement, exchanges if explain else None, json=json)
        failed = failed or judgement.error is not None
    if failed:
        raise typer.Exit(ExitCode.USAGE)


async def _judge(
    settings: Settings, asked: list[JudgeRequest], exchanges: dict[str, list[Exchange]] | None
) -> list[Judgement]:
    from stream_guard.judging.families.harmony.transcript import Exchange
    from stream_guard.offline.session import OfflineJudge

    if not asked:
        return []

    def hear(*said: Any) -> None:  # noqa: ANN401 - handed on as it is
        exchange = Exchange.of(*said)
        assert exchanges is not None, "we listen only then"
        exchanges.setdefault(exchange.request_id, []).append(exchange)

    listen = hear if exchanges is not None else None
    async with OfflineJudge(settings, listen=listen) as judge:
        with err.status("starting the engine") as status:
            return await judge.judge(
                asked,
                ready=lambda: status.update("judging"),
                progress=lambda done, total: status.update(f"judged {done} of {total}"),
            )


def _show(judgement: Judgement, exchanges: dict[str, list[Exchange]] | None, *, json: bool) -> None:
    from stream_guard.cli.views.classify import exchange_lines, verdict_lines
    from stream_guard.offline.session import verdict_of

    line = judgement.request.context
    assert isinstance(line, Line), "we put it there"
    if judgement.error is not None:
        _show_fault(line, judgement.error, json=json, policy=judgement.request.policy)
        return
    verdict = verdict_of(judgement, line.source, line.number)
    said = None if exchanges is None else exchanges.get(judgement.request.id, [])
    if json:
        extra = {} if said is None else {"explanation": [asdict(each) for each in said]}
        sys.stdout.write(orjson.dumps(verdict | extra).decode() + "\n")
        return
    for text in verdict_lines(verdict, judgement.request.policy, judgement.request.post.text):
        out.print(text, soft_wrap=True)
    for text in exchange_lines(said) if said is not None else ():
        out.print(text, soft_wrap=True)


def _show_fault(
    line: Line, fault: RecordError, *, json: bool, policy: Policy | None = None
) -> None:
    if json:
        document = {
            "source": line.source,
            "line": line.number,
            "policy": None if policy is None else policy.id,
            "error": {"reason": fault.reason, "message": str(fault)},
        }
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
        return
    under = "" if policy is None else f" under {policy.id}"
    told = f"{line.source}:{line.number}: would be a dead letter{under}: {fault}"
    err.print(told, markup=False, soft_wrap=True)


def read_input(what: str | None, settings: PostSettings) -> list[Line]:
    """Return the posts of a command line's argument, in order.

    Raises:
        SettingsError: there is no text, or the file cannot be read, or holds no post, or is not one of JSON lines.
    """
    parser = PostParser(settings)
    if what is None and sys.stdin.isatty():
        message = "give a text, a FILE.jsonl, or - and the posts on standard input"
        raise SettingsError(message)
    if what in (None, "-"):
        content, source = sys.stdin.buffer.read(), "-"
        if not content.strip():
            message = "-: standard input holds no post"
            raise SettingsError(message)
        if not content.lstrip().startswith(b"{"):
            return [_bare("-", content.decode("utf-8", "replace").strip(), settings)]
        return _json_lines(source, content, parser)
    assert what is not None, "looked at above"
    if what.endswith(".jsonl"):
        try:
            content = Path(what).read_bytes()
        except OSError as error:
            message = f"{what}: {error.strerror or error}; name a file that this user may read"
            raise SettingsError(message) from error
        lines = _json_lines(what, content, parser)
        if not lines:
            message = f"{what}: holds no post; write one JSON object a line"
            raise SettingsError(message)
        return lines
    if not what.strip():
        message = "the text is empty"
        raise SettingsError(message)
    if len(what) <= _NAME_CHARACTERS_MAX and Path(what).is_file():
        message = f"{what} is a file, and no .jsonl; judge its content as one text by: classify - < {what}"
        raise SettingsError(message)
    return [_bare("argument", what, settings)]


def _json_lines(source: str, content: bytes, parser: PostParser) -> list[Line]:
    lines = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            lines.append(Line(source, number, parser.parse(line, ())))
        except RecordError as error:
            lines.append(Line(source, number, None, error))
    return lines


def _bare(source: str, text: str, settings: PostSettings) -> Line:
    data = text.encode("utf-8", "replace")
    if len(data) > settings.max_text_bytes:
        message = (
            f"the text has {len(data)} bytes; post.max_text_bytes is {settings.max_text_bytes}"
        )
        return Line(source, 1, None, TooLargeError(message))
    return Line(source, 1, Post(source, text, hashlib.sha256(data).hexdigest(), len(data)))
