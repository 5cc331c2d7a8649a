"""Every error that Stream Guard raises, in one tree.

::

    StreamGuardError
    |-- OperatorError            the set-up is wrong; fix it and start again        exit 2
    |   |-- SettingsError        a setting is unknown, malformed or contradictory
    |   `-- PolicyError          a policy or the routes cannot be used
    |-- BrokerError              Kafka is unreachable or refused what we need       exit 3
    |-- EngineError              the engine did not start, or died                  exit 4
    |   `-- EngineHungError      the engine is there and decides nothing
    |-- LimitError               a limit that protects the operator was passed      exit 5
    |-- EvidenceError            what was kept is gone, altered, or does not bear out a verdict  exit 6
    |-- StallError               nothing moves any more, though nothing has failed  exit 1
    `-- RecordError              one record's own fault: it becomes a dead letter
        |-- TombstoneError       null value
        |-- TooLargeError        over ``post.max_text_bytes``, ``.max_record_bytes`` or ``.max_key_bytes``
        |-- TooDeepError         nested deeper than ``post.max_depth``
        |-- EncodingError        not UTF-8
        |-- JsonError            not JSON
        |-- CloudEventError      says that it is a CloudEvent and is not one
        |-- MissingFieldError    a required field is not there
        |-- FieldTypeError       a field has the wrong type
        |-- PromptError          the engine cannot take a prompt made of this post
        `-- EngineKilledError    the engine dies or hangs over this post

A record's error has a ``reason``: a short, stable word for metric labels and dead-letter headers.
Messages never contain text of a post, since they reach logs.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_CLEAN = 0
EXIT_USAGE = 2
EXIT_BROKER = 3
EXIT_ENGINE = 4
EXIT_LIMIT = 5
EXIT_EVIDENCE = 6


def named(error: BaseException) -> str:
    """Return an error of a library as a message's part: its type's name, once, and what it says, if anything.

    A ``TimeoutError`` says nothing, and aiokafka's errors say their own name.
    """
    name, says = type(error).__name__, str(error)
    if not says or says.startswith(name):
        return says or name
    return f"{name}: {says}"


class StreamGuardError(Exception):
    """The root: catches everything that Stream Guard raises on purpose."""

    exit_code: ClassVar[int] = 1


class OperatorError(StreamGuardError):
    """The set-up is wrong; the message names what and the remedy."""

    exit_code = EXIT_USAGE


class SettingsError(OperatorError):
    """A setting is unknown, malformed or contradicts another."""


class PolicyError(OperatorError):
    """A policy or the routes cannot be used; the message names the file."""


class BrokerError(StreamGuardError):
    """Kafka cannot be reached, or refused something that we cannot do without."""

    exit_code = EXIT_BROKER


class DoubtError(BrokerError):
    """A transaction failed, or nobody knows whether it did: its records are read again from the committed position.

    Attributes:
        cause: ``fenced`` where another producer has taken over; ``timeout``; ``error``.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class EngineError(StreamGuardError):
    """The engine did not start, or died while it had work."""

    exit_code = EXIT_ENGINE


class EngineHungError(EngineError):
    """The engine is there and decides nothing."""


class LimitError(StreamGuardError):
    """A limit was passed past which going on would do harm, or a threshold that a command was given was missed."""

    exit_code = EXIT_LIMIT


class EvidenceError(StreamGuardError):
    """A verdict cannot be borne out by what was kept: it is gone, was altered, or says something else."""

    exit_code = EXIT_EVIDENCE


class StallError(StreamGuardError):
    """Nothing moves any more though no part has failed: a fault of ours, which a restart mends."""


class RecordError(StreamGuardError):
    """One record's own fault: it becomes a dead letter and the stream goes on."""

    reason: ClassVar[str] = "record"
    stage: ClassVar[str] = "parse"


class TombstoneError(RecordError):
    """The record's value is null."""

    reason = "tombstone"


class TooLargeError(RecordError):
    """The record or its text is over the limit in bytes."""

    reason = "too_large"


class TooDeepError(RecordError):
    """The document is nested deeper than the limit."""

    reason = "too_deep"


class EncodingError(RecordError):
    """The value is not UTF-8."""

    reason = "encoding"


class JsonError(RecordError):
    """The value is not JSON."""

    reason = "json"


class CloudEventError(RecordError):
    """The record says that it is a CloudEvent, and breaks its specification."""

    reason = "cloud_event"


class MissingFieldError(RecordError):
    """A required field is not there."""

    reason = "missing_field"


class FieldTypeError(RecordError):
    """A field is there and has the wrong type."""

    reason = "field_type"


class PromptError(RecordError):
    """The engine cannot take a prompt made of this post (for one, it is too long)."""

    reason = "prompt"
    stage = "judge"


class EngineKilledError(RecordError):
    """The engine died or hung over this post, again, and the last time with no other post in it.

    Args:
        attempts: how often it was tried.
    """

    reason = "engine_killed"
    stage = "judge"

    def __init__(self, attempts: int) -> None:
        super().__init__(
            f"the engine died or hung each of {attempts} times that it was given this post, the last time with no "
            "other post in it (engine.deaths_per_post_max)"
        )
        self.attempts = attempts
