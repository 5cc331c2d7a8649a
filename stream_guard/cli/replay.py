"""``stream-guard replay``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stream_guard.cli.options import ConfigOption, FromOption, JsonOption, ToOption, complete_policy
from stream_guard.cli.terminal import (
    count_of,
    run_quietly,
    say,
    show_progress,
    write_json_line,
)
from stream_guard.core.errors import SettingsError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.kafka.bounds import read_bound
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.offline.audit.replay import Replayed

_SHOWN_MAX: Final = 50


def replay(
    verdict_id: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VERDICT-ID]...", help="Verdict ids; or give a range."),
    ] = None,
    *,
    first: FromOption = None,
    last: ToOption = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            "-p",
            metavar="SLUG",
            help="Only verdicts of this policy.",
            autocompletion=complete_policy,
        ),
    ] = None,
    judge: Annotated[
        bool,
        typer.Option("--judge", help="Judge each post again, by the policy version of that time."),
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Prove verdicts: rebuild each prompt from the record and the policy archive, and compare digests.

    The range is one of the verdict topic. Exit code 6, with the reason, if a prompt cannot be proven.
    """
    from stream_guard.offline.audit.replay_run import Wanted, check_ids
    from stream_guard.offline.audit.replay_run import replay as run

    if not verdict_id and first is None and last is None:
        raise SettingsError("name verdict ids, or a range with --from and --to")
    wanted = Wanted(
        check_ids(verdict_id or []),
        read_bound(first, "--from"),
        read_bound(last, "--to"),
        policy,
        judge,
    )
    settings = load_settings(config)

    async def rebuild() -> list[Replayed]:
        with show_progress("reading") as progress:
            return await run(settings, wanted, progress)

    replayed: list[Replayed] = run_quietly(rebuild())
    if json:
        for one in replayed:
            write_json_line(one.describe())
    elif len(replayed) == 1:
        _say_one(replayed[0])
    else:
        _say_many(replayed)
    if any(_is_odd(one) for one in replayed):
        raise typer.Exit(ExitCode.EVIDENCE)


def _is_odd(one: Replayed) -> bool:
    from stream_guard.offline.audit.replay import SUPPORTED

    return one.status not in SUPPORTED or bool(one.judged)


def _say_one(one: Replayed) -> None:
    rows = []
    for name, value in one.describe().items():
        shown = "; ".join(value) or "the same" if isinstance(value, list) else value
        rows.append((name, "" if shown is None else str(shown)))
    width = max(len(name) for name, _ in rows)
    for name, shown in rows:
        say(f"{name:<{width}} {shown}".rstrip())


def _say_many(replayed: list[Replayed]) -> None:
    odd = [one for one in replayed if _is_odd(one)]
    for one in odd[:_SHOWN_MAX]:
        reason = one.reason or "; ".join(one.judged or ())
        say(f"{one.verdict['id']} {one.status}: {reason}")
    if len(odd) > _SHOWN_MAX:
        say(f"… and {len(odd) - _SHOWN_MAX} more; --json shows all of them")
    for status, count in Counter(one.status for one in replayed).most_common():
        say(f"{count_of(count, 'verdict')} {status}")
