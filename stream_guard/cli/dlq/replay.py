"""``stream-guard dlq replay``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stream_guard.cli.dlq.filter_options import with_filter
from stream_guard.cli.dlq.survey import counts, say_counts, warn_of_unread_topic
from stream_guard.cli.options import ConfigOption, JsonOption
from stream_guard.cli.terminal import count_of, run_quietly, say, show_progress, write_json
from stream_guard.records.dead_letter import DeadLetterFilter
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.kafka.dead_letter_reader import Survey


@with_filter
def replay(
    wanted: DeadLetterFilter,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")
    ] = False,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="TOPIC",
            help="Send back to this topic although kafka.topics does not read it; may be repeated.",
        ),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Send the records of dead letters back to the topics that the service reads.

    Each record is sent once, even if you run the command again.
    """
    from stream_guard.kafka.dead_letter_replay import replay as send_back

    settings = load_settings(config)

    async def send() -> Survey:
        with show_progress("replaying") as progress:
            return await send_back(
                settings, wanted, dry_run=dry_run, also_to=frozenset(to or ()), progress=progress
            )

    seen: Survey = run_quietly(send())
    warn_of_unread_topic(seen, wanted, settings)
    if json:
        write_json({**counts(seen), "sent": seen.sent, "would_send": len(seen.chosen)})
        return
    say_counts(seen)
    where = f" back to {', '.join(sorted(seen.source_topics))}" if seen.source_topics else ""
    count = len(seen.chosen) if dry_run else seen.sent
    say(f"{'would send' if dry_run else 'sent'} {count_of(count, 'record')}{where}")
