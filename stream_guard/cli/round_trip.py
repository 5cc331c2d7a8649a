"""``stream-guard round-trip``."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import orjson
import typer

from stream_guard.cli.options import ConfigOption
from stream_guard.cli.terminal import run_quietly, write_json_line
from stream_guard.settings import load_settings


def round_trip(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic that a service judges.")],
    config: ConfigOption = None,
    text: Annotated[
        str, typer.Option(help="The post's text.")
    ] = "A made-up post, sent to see whether a verdict comes.",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the verdict.")] = 120,
) -> None:
    """Send one post and wait for its verdict: prints it as JSON, or exits 5 if none comes."""
    from stream_guard.kafka import round_trip as trip

    post_id = f"round-trip-{uuid4().hex}"
    verdict = run_quietly(
        trip.round_trip(load_settings(config), topic, post_id=post_id, text=text, timeout_s=timeout)
    )
    write_json_line(orjson.loads(verdict))
