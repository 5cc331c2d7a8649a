"""``stream-guard review show``."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_guard.cli.options import ConfigOption, JsonOption
from stream_guard.cli.review.options import (
    DatabaseOption,
    ItemArgument,
    OfflineOption,
    RoleChoice,
    now_ms,
    open_desk,
    record_access,
)
from stream_guard.cli.terminal import run_quietly, say, write_json


def show_item(
    item_id: ItemArgument,
    *,
    by: Annotated[
        str, typer.Option("--by", metavar="PSEUDONYM", help="Who looks; never a real name.")
    ],
    role: Annotated[RoleChoice, typer.Option(help="The role.")] = RoleChoice.reviewer,
    database: DatabaseOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show an item with the post's text, which is read from the post's own topic unless the item holds it.

    While people still review an item, nobody but a lead sees the decisions of others. With kafka.audit_topic, who looks
    is written there first, also with --offline.
    """
    from stream_guard.offline.review.follow import post_text
    from stream_guard.offline.review.queue import Person

    with open_desk(config, database, offline=offline) as desk:
        person = Person(by, role.value)
        run_quietly(record_access(desk, person, item_id, "show"))
        item = desk.queue.show(item_id, person, now_ms())
        if item["text"] is None and item["state"] != "withdrawn" and not offline:
            item["text"] = run_quietly(post_text(desk.settings, item))
    if json:
        write_json(item)
        return
    verdict, source = item["verdict"], item["source"]
    say(f"{item['id']}  {item['state']}  why: {', '.join(item['why'])}")
    say(f"policy    {item['policy']['id']} {item['policy']['version']}")
    category = f" {verdict['category']}" if verdict["category"] else ""
    say(f"verdict   {verdict['decision']}{category}, action {verdict['action']}, {verdict['tier']}")
    say(f"record    {source['topic']}/{source['partition']}/{source['offset']}")
    say(f"content   {item['content']['id']}")
    say("text      " + (item["text"] if item["text"] is not None else "(not to be had any more)"))
    for made in item["decisions"]:
        outcome = made["outcome"]
        what = made["kind"] if outcome is None else f"{outcome['decision']} ({outcome['action']})"
        who = made["decided_by"]
        say(
            f"decision  {what} by {who['id']}, {who['role']}: {made['reason'] or 'no reason given'}"
        )
