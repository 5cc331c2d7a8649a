"""``stream-guard dlq show``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_guard.cli.dlq.survey import read_topic
from stream_guard.cli.options import ConfigOption, JsonOption
from stream_guard.cli.terminal import run_quietly, say, write_json
from stream_guard.cli.views.dead_letter import details
from stream_guard.core.errors import OperatorError
from stream_guard.records.dead_letter import DeadLetterFilter, Place
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.records.dead_letter import DeadLetter
    from stream_guard.settings import Settings


def show(
    which: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC/PARTITION/OFFSET|ID",
            help="Place of the dead letter or of its record, or its id.",
        ),
    ],
    *,
    content: Annotated[
        bool, typer.Option("--content", help="Show the record's key and value as well.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show a dead letter: where and when it failed, the reason, and the record's headers."""
    letters = _find(load_settings(config), which)
    if not letters:
        message = f"no dead letter {which!r}; stream-guard dlq list shows which exist"
        raise OperatorError(message)
    for letter in letters:
        if json:
            write_json(_document(letter, content=content))
            continue
        for line in details(letter, content=content):
            say(line)


def _find(settings: Settings, which: str) -> list[DeadLetter]:
    """Return the dead letter at a place of its topic, or those of the record with this place or id."""
    place = Place.parse(which)
    if place is not None and place.topic == settings.kafka.dead_letter_topic:
        one = run_quietly(_read_one(settings, place))
        return [] if one is None else [one]
    wanted = DeadLetterFilter(ids=frozenset([which]))
    if place is not None:
        wanted = DeadLetterFilter(
            topic=place.topic,
            partition=place.partition,
            offset_min=place.offset,
            offset_max=place.offset,
        )
    found: list[DeadLetter] = []
    read_topic(settings, wanted, found.append)
    return found


async def _read_one(settings: Settings, place: Place) -> DeadLetter | None:
    from stream_guard.kafka.dead_letter_reader import DeadLetterReader

    async with DeadLetterReader(settings) as reader:
        return await reader.at(place.partition, place.offset)


def _document(letter: DeadLetter, *, content: bool) -> dict[str, Any]:
    document = letter.describe()
    document["headers"] = [[name, _base64(value)] for name, value in letter.headers]
    if content:
        document |= {"key_base64": _base64(letter.key), "value_base64": _base64(letter.value)}
    return document


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
