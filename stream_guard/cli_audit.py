"""The commands of an audit: commands only, no logic."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from stream_guard.audit.bounds import read_bound
from stream_guard.cli_dlq import run_quietly, show_progress
from stream_guard.errors import EXIT_EVIDENCE, SettingsError
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.audit.replay import Replayed

out = Console(highlight=False)
_SHOWN_MAX = 50

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
    from stream_guard.audit.replay import BORNE_OUT
    from stream_guard.audit.replay_run import Wanted, check_ids
    from stream_guard.audit.replay_run import replay as run

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
        raise typer.Exit(EXIT_EVIDENCE)


def _show(replayed: list[Replayed]) -> None:
    """Print what became of verdicts: one in full, many as counts and the odd ones."""
    if len(replayed) == 1:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in replayed[0].describe().items():
            shown = "; ".join(value) or "the same" if isinstance(value, list) else value
            table.add_row(name, "" if shown is None else str(shown))
        out.print(table, soft_wrap=True)
        return
    from stream_guard.audit.replay import BORNE_OUT

    odd = [one for one in replayed if one.status not in BORNE_OUT or one.judged]
    for one in odd[:_SHOWN_MAX]:
        told = one.reason or "; ".join(one.judged or ())
        out.print(f"{one.verdict['id']} {one.status}: {told}", markup=False, soft_wrap=True)
    if len(odd) > _SHOWN_MAX:
        out.print(f"… and {len(odd) - _SHOWN_MAX} more; --json has all of them")
    for status, count in Counter(one.status for one in replayed).most_common():
        out.print(f"{count} {status}")
