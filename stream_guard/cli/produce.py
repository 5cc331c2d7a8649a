"""``stream-guard produce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream_guard.cli.options import ConfigOption
from stream_guard.cli.terminal import count_of, run_quietly, warn
from stream_guard.settings import load_settings


def produce(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.jsonl", help="One post a line, sent unchanged; - for standard input."
        ),
    ],
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    config: ConfigOption = None,
    key: Annotated[
        str, typer.Option(help="JSON pointer to the record's key; empty for no key.")
    ] = "/author",
) -> None:
    """Send the posts of a file to a topic."""
    from stream_guard.kafka.topics import produce_lines

    count = run_quietly(produce_lines(load_settings(config).kafka, file, topic, key))
    warn(f"sent {count_of(count, 'record')} to {topic}")
