"""Reads the dead-letter topic for a command, and says what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_guard.cli.terminal import count_of, run_quietly, say, show_progress, warn
from stream_guard.core.english import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.kafka.dead_letter_reader import Survey
    from stream_guard.records.dead_letter import DeadLetter, DeadLetterFilter
    from stream_guard.settings import Settings

__all__ = ["counts", "read_topic", "say_counts", "warn_of_unread_topic"]


def read_topic(
    settings: Settings, wanted: DeadLetterFilter, found: Callable[[DeadLetter], None]
) -> Survey:
    """Read the topic once; ``found`` receives each dead letter that the filter accepts. Raises BrokerError."""
    from stream_guard.kafka.dead_letter_reader import DeadLetterReader, survey

    async def read() -> Survey:
        with show_progress("reading") as progress:
            async with DeadLetterReader(settings, progress) as reader:
                return await survey(reader, await reader.ends(), wanted, found)

    seen: Survey = run_quietly(read())
    return seen


def counts(seen: Survey) -> dict[str, Any]:
    """Return the counts of a reading, for JSON."""
    return {
        "total": seen.reasons.total(),
        "reasons": dict(seen.reasons.most_common()),
        "replayed_before": seen.already,
        "repeats": seen.repeats,
        "cut": seen.cut,
        "foreign": seen.foreign,
        "not_input": dict(seen.not_input.most_common()),
    }


def warn_of_unread_topic(seen: Survey, wanted: DeadLetterFilter, settings: Settings) -> None:
    """Say on stderr that a topic may be misspelt, if no dead letter is from it and the service does not read it."""
    topic, known = wanted.topic, settings.kafka.topics
    if topic is not None and not seen.reasons and known and topic not in known:
        meant = did_you_mean(topic, known)
        warn(f"--topic {topic}: not in kafka.topics{meant}, and no dead letter is from it")


def say_counts(seen: Survey, shown: int | None = None) -> None:
    """Print the counts of a reading; ``shown`` says how many of the dead letters were listed."""
    total = seen.reasons.total()
    listed = f", the last {shown} shown" if shown not in (None, total) else ""
    say(f"{count_of(total, 'dead letter')}{listed}")
    for reason, count in seen.reasons.most_common():
        say(f"  {reason}: {count}")
    for count, noun, what in (
        (seen.already, "dead letter", "replayed before"),
        (seen.repeats, "dead letter", "of a record that has another one, and counts once"),
        (seen.cut, "dead letter", "cut: cannot be replayed; the source topic has the whole record"),
        (seen.foreign, "record", "that Stream Guard did not write"),
    ):
        if count:
            say(f"{count_of(count, noun)} {what}")
    for topic, count in seen.not_input.most_common():
        say(
            f"{count_of(count, 'dead letter')} from {topic}, which kafka.topics does not read: not sent; --to {topic} "
            "sends them"
        )
