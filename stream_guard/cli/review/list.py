"""``stream-guard review list``."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from stream_guard.cli.options import ConfigOption, JsonOption, refuse_unknown
from stream_guard.cli.review.options import (
    DatabaseOption,
    OfflineOption,
    PolicyOption,
    StateChoice,
    open_desk,
    refuse_unknown_policy,
)
from stream_guard.cli.terminal import count_of, say, write_json, write_table
from stream_guard.records.review_item import WHY

_COLUMNS = ("item", "policy", "verdict", "category", "why", "score", "since (UTC)", "content")


def list_items(
    *,
    state: Annotated[StateChoice, typer.Option(help="Which items.")] = StateChoice.open,
    policy: PolicyOption = None,
    why: Annotated[
        str | None,
        typer.Option(metavar="WORD", help=f"Only items with this reason: {', '.join(WHY)}."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="List the first N.")] = 20,
    database: DatabaseOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List verdicts that people should review, most urgent first."""
    if why is not None:
        refuse_unknown("--why", why, WHY)
    with open_desk(config, database, offline=offline) as desk:
        refuse_unknown_policy(desk, policy)
        found = desk.queue.listed(state=state.value, policy=policy, why=why, limit=limit)
        counts = desk.queue.counts()
    if json:
        write_json({"counts": counts, "items": found})
        return
    write_table(_COLUMNS, [_row(item) for item in found], right=("score",))
    say(", ".join(f"{number:,} {name}" for name, number in counts.items()) + " in all")
    if len(found) == limit:
        say(f"the first {count_of(limit, 'item')}; --limit lists more")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    verdict = item["verdict"]
    since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(item["created_at"] / 1_000))
    return (
        item["id"],
        item["policy"]["id"],
        verdict["decision"],
        verdict["category"] or "",
        ", ".join(item["why"]),
        f"{item['priority']['score']:.3f}",
        since,
        item["content"]["id"],
    )
