"""The exit codes of the process; ``docs/reference/exit-codes.md`` is generated from them."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """How a command or the service ended.

    Attributes:
        meaning: one line for the reference.
    """

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """Return the member of a code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    CLEAN = 0, "Everything is done: the service drained and stopped, or the command succeeded."
    UNEXPECTED = 1, "Stream Guard has a bug or stopped making progress; a restart recovers from it."
    USAGE = 2, "An option, a setting, a policy or the routes are wrong; fix them and start again."
    BROKER = 3, "Kafka is unreachable or refused a request; see the message, then start again."
    ENGINE = 4, "The engine did not start, or it failed more often than engine.rebuilds_max allows."
    LIMIT = 5, "A limit was exceeded, or a threshold that a command was given was missed."
    EVIDENCE = (
        6,
        "The archive does not support a verdict: an entry is missing, altered or different.",
    )
    INTERRUPTED = 130, "The command was interrupted from the keyboard (SIGINT)."
