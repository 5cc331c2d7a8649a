"""``stream-guard dlq list``."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_guard.cli.dlq.filter_options import with_filter
from stream_guard.cli.dlq.survey import counts, read_topic, say_counts, warn_of_unread_topic
from stream_guard.cli.options import ConfigOption, JsonOption
from stream_guard.cli.terminal import write_json, write_table
from stream_guard.cli.views.dead_letter import COLUMNS, Newest, row
from stream_guard.records.dead_letter import DeadLetterFilter
from stream_guard.settings import load_settings


@with_filter
def list_letters(
    wanted: DeadLetterFilter,
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="List the last N; 0 lists all.")
    ] = 50,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List dead letters, and count them by reason.

    The counts include dead letters that --limit leaves out of the list.
    """
    newest = Newest(limit)
    settings = load_settings(config)
    seen = read_topic(settings, wanted, newest.add)
    warn_of_unread_topic(seen, wanted, settings)
    kept = newest.letters()
    if json:
        listed = [{**letter.describe(), "replayed": letter.id in seen.replayed} for letter in kept]
        write_json({**counts(seen), "dead_letters": listed})
        return
    write_table(COLUMNS, [row(letter, replayed=letter.id in seen.replayed) for letter in kept])
    say_counts(seen, shown=len(kept))
