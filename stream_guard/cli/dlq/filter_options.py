"""The options that choose dead letters, for each command that takes a choice of them."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_guard.cli.options import refuse_unknown
from stream_guard.cli.views.dead_letter import offset_range
from stream_guard.core.errors import dead_letter_reasons
from stream_guard.core.times import time_ms
from stream_guard.records.dead_letter import DeadLetterFilter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["with_filter"]


def _make_filter(
    *,
    reason: Annotated[
        list[str] | None,
        typer.Option("--reason", "-r", metavar="WORD", help="With this reason; may be repeated."),
    ] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", "-t", help="Of records from this topic.")
    ] = None,
    partition: Annotated[
        int | None, typer.Option("--partition", "-p", min=0, help="And from this partition.")
    ] = None,
    offsets: Annotated[
        str | None,
        typer.Option("--offsets", metavar="A-B", help="And with these offsets, both included."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="That failed at this time or later."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="That failed before this time.")
    ] = None,
    letter_id: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="With this id; may be repeated."),
    ] = None,
) -> DeadLetterFilter:
    """Return the filter that these options describe. Raises SettingsError."""
    for word in reason or ():
        refuse_unknown("--reason", word, dead_letter_reasons())
    low, high = (None, None) if offsets is None else offset_range(offsets)
    return DeadLetterFilter(
        reasons=frozenset(reason or ()),
        topic=topic,
        partition=partition,
        offset_min=low,
        offset_max=high,
        since_ms=None if since is None else time_ms(since, "--since"),
        until_ms=None if until is None else time_ms(until, "--until"),
        ids=frozenset(letter_id or ()),
    )


def with_filter(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options. It receives them as its first argument, a :class:`DeadLetterFilter`."""
    options = inspect.signature(_make_filter, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def filtered(**given: Any) -> None:  # noqa: ANN401 - whatever typer has read
        chosen = {name: given.pop(name) for name in options}
        command(_make_filter(**chosen), **given)

    # Typer reads the options from these two.
    parameters = [*options.values(), *own]
    filtered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    filtered.__annotations__ = {each.name: each.annotation for each in parameters}
    del filtered.__wrapped__
    return filtered
