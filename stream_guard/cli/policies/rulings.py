"""Where commands find what people decided about a policy's verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias

import typer

from stream_guard.cli.review.options import open_desk
from stream_guard.cli.terminal import run_quietly, show_progress
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.offline.improve.rulings import Ruling

FromTopicsOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--from-topics",
        help="Read decisions and verdicts from their topics, not from the review database. Also without "
        "kafka.review_topic.",
    ),
]


class Source(NamedTuple):
    """The database, whether it is used as it is, and whether the topics are read instead."""

    database: str | None
    offline: bool
    from_topics: bool


def find_rulings(config: Path | None, slug: str, source: Source) -> list[Ruling]:
    """Return what people decided about a policy's verdicts.

    Raises:
        SettingsError: the database cannot be opened.
        BrokerError: the broker does not answer, or a topic does not exist.
    """
    from stream_guard.offline.improve.rulings import rulings_of_review, rulings_of_topics

    settings = load_settings(config)
    if source.from_topics or settings.kafka.review_topic is None:
        with show_progress("reading") as progress:
            found: list[Ruling] = run_quietly(rulings_of_topics(settings, slug, progress))
            return found
    with open_desk(config, source.database, offline=source.offline) as desk:
        return rulings_of_review(desk.queue, slug)
