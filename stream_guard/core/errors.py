"""Every error that Stream Guard raises, in one tree.

::

    StreamGuardError
    |-- OperatorError            the configuration is wrong; fix it and start again               exit 2
    |   |-- SettingsError        a setting or option is unknown, malformed or contradictory
    |   |-- PolicyError          a policy or the routes cannot be used
    |   |   `-- EditConflictError    a draft changed since the text was shown that is to replace it
    |   |-- UnknownItemError     there is no such review item or policy
    |   `-- NotLeasedError       a review item is leased to somebody else, or may not be decided
    |-- BrokerError              Kafka is unreachable or refused a request                        exit 3
    |   |-- BrokerAwayError      no broker answers now
    |   |-- RegistryError        the schema registry is unreachable or refused a request
    |   `-- DoubtError           a transaction failed, or its outcome is unknown
    |-- DatabaseError            the review database cannot be used                           exit 1
    |-- EngineError              the engine did not start, or died                                exit 4
    |   `-- EngineHungError      the engine runs but decides nothing
    |-- LimitError               a limit that protects the operator was exceeded                  exit 5
    |-- EvidenceError            the archive does not support a verdict                           exit 6
    |-- StallError               no progress, although no part has failed                         exit 1
    |-- ForeignCallError         a function outside Stream Guard did not return in time           exit 1
    `-- RecordError              one record is at fault: it becomes a dead letter
        |-- TombstoneError       null value
        |-- TooLargeError        over a limit in bytes: of the text, a field, the value or the key
        |-- TooDeepError         nested deeper than ``post.max_depth``
        |-- EncodingError        not UTF-8
        |-- JsonError            not JSON
        |-- SchemaError          its schema is unknown, of another kind, or cannot be used
        |-- DecodeError          its bytes do not follow its schema
        |-- CloudEventError      an invalid CloudEvent
        |-- MissingFieldError    a required field is missing
        |-- FieldTypeError       a required field has the wrong type
        |-- EmptyTextError       no text and no title, and ``post.empty_text`` is ``dead_letter``
        |-- EscalationError      not an escalation from another deployment: malformed
        |-- DecisionError        not a decision: malformed, or over a limit
        |-- UnknownVerdictError  a decision about a verdict that Stream Guard cannot have given
        |-- FutureDecisionError  a decision from the future, beyond ``decisions.future_tolerance_s``
        |-- UnknownRoleError     a decision by a role that is not in ``decisions.roles``
        |-- NotAPostError        not a post by ``post.where``: it is skipped instead
        |   |-- SettledError        an escalation that is not judged here: the verdict so far counts
        |   `-- DeletedPostError    the record says that a post was deleted: its verdicts are retracted
        |-- PromptError          the engine cannot take the prompt of this post
        `-- EngineKilledError    the engine died or hung on this post

A record's error has a ``reason``: a short, stable word for metric labels and dead-letter headers.
Messages never contain text of a post, because they reach logs.
"""

from __future__ import annotations

from typing import ClassVar

from stream_guard.core.exit_codes import ExitCode


def named(error: BaseException) -> str:
    """Return a library's error as part of a message: the name of its type once, and its text if it has any.

    A ``TimeoutError`` has no text, and aiokafka's errors start with their own name.
    """
    name, says = type(error).__name__, str(error)
    if not says or says.startswith(name):
        return says or name
    return f"{name}: {says}"


class StreamGuardError(Exception):
    """The root: catches everything that Stream Guard raises on purpose."""

    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED


class OperatorError(StreamGuardError):
    """The configuration is wrong; the message says what and how to fix it."""

    exit_code = ExitCode.USAGE


class SettingsError(OperatorError):
    """A setting or option is unknown, malformed or contradicts another."""


class PolicyError(OperatorError):
    """A policy or the routes cannot be used; the message names the file."""


class EditConflictError(PolicyError):
    """A draft changed since the text was shown that is to replace it."""


class UnknownItemError(OperatorError):
    """There is no such review item, or no such policy."""


class NotLeasedError(OperatorError):
    """A review item is leased to somebody else, is not open, or this person has decided about it before."""


class BrokerError(StreamGuardError):
    """Kafka is unreachable, or refused a request that Stream Guard needs."""

    exit_code = ExitCode.BROKER


class BrokerAwayError(BrokerError):
    """No broker answers, or a connection ends without a reason: another try may succeed."""


class RegistryError(BrokerError):
    """The schema registry is unreachable, or refused a request; records that need a schema wait."""


class DoubtError(BrokerError):
    """A transaction failed, or its outcome is unknown; its records are read again from the committed position.

    Attributes:
        cause: ``fenced`` if another producer has taken over; ``timeout``; ``error``.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class DatabaseError(StreamGuardError):
    """The review database was open and cannot be used now."""


class EngineError(StreamGuardError):
    """The engine did not start, or died while it had work."""

    exit_code = ExitCode.ENGINE


class EngineHungError(EngineError):
    """The engine runs but decides nothing."""


class LimitError(StreamGuardError):
    """A limit was exceeded and going on would do harm, or a threshold that a command was given was missed."""

    exit_code = ExitCode.LIMIT


class EvidenceError(StreamGuardError):
    """The archive does not support a verdict: an entry is missing, altered or different."""

    exit_code = ExitCode.EVIDENCE


class ForeignCallError(StreamGuardError):
    """A function outside Stream Guard did not return in time; the message names it."""


class StallError(StreamGuardError):
    """There is no progress, although no part has failed: a bug in Stream Guard; a restart recovers from it."""


class RecordError(StreamGuardError):
    """One record is at fault: it becomes a dead letter and the stream goes on."""

    reason: ClassVar[str] = "record"
    stage: ClassVar[str] = "parse"


class TombstoneError(RecordError):
    """The record's value is null."""

    reason = "tombstone"


class TooLargeError(RecordError):
    """The text, a field, the value or the key is over its limit in bytes."""

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


class SchemaError(RecordError):
    """The record's schema is unknown to the registry, of another kind than ``post.format``, or cannot be used."""

    reason = "schema"


class DecodeError(RecordError):
    """The record's bytes do not follow its schema."""

    reason = "decode"


class CloudEventError(RecordError):
    """The record says that it is a CloudEvent, but is not a valid one."""

    reason = "cloud_event"


class MissingFieldError(RecordError):
    """A required field is missing."""

    reason = "missing_field"


class FieldTypeError(RecordError):
    """A required field has the wrong type."""

    reason = "field_type"


class EmptyTextError(RecordError):
    """The text and the title are empty, and ``post.empty_text`` is ``dead_letter``."""

    reason = "empty_text"


class NotAPostError(RecordError):
    """The record is not a post by ``post.where``. It is skipped and does not become a dead letter.

    Attributes:
        condition: the name of the condition that the record does not meet, or ``tombstone``.
    """

    reason = "not_a_post"

    def __init__(self, condition: str) -> None:
        super().__init__(f"not a post: post.where {condition}")
        self.condition = condition


class DeletedPostError(NotAPostError):
    """The record says that a post was deleted at its source. It becomes no dead letter: the verdicts are retracted.

    Attributes:
        content_id: the post's id; None where the record does not say it.
    """

    def __init__(self, content_id: str | None) -> None:
        super().__init__("deleted")
        self.content_id = content_id


class SettledError(NotAPostError):
    """An escalation is not judged here. It owes what is made of the verdict so far.

    Attributes:
        condition: why, in one word.
    """


class EscalationError(RecordError):
    """The record is not an escalation from another deployment: it is malformed."""

    reason = "escalation"


class DecisionError(RecordError):
    """The record is not a decision: it is malformed, or a field is over its limit."""

    reason = "decision"


class UnknownVerdictError(DecisionError):
    """The decision is about a verdict that Stream Guard cannot have given."""

    reason = "unknown_verdict"


class FutureDecisionError(DecisionError):
    """The decision's time is later than its record's by more than ``decisions.future_tolerance_s``."""

    reason = "future_decision"


class UnknownRoleError(DecisionError):
    """The role of the person who decided is not in ``decisions.roles``."""

    reason = "unknown_role"


class PromptError(RecordError):
    """The engine cannot take the prompt of this post; for example, it is too long."""

    reason = "prompt"
    stage = "judge"


class EngineKilledError(RecordError):
    """The engine repeatedly died or hung on this post, the last time with no other post in it.

    Args:
        attempts: how often the post was tried.
    """

    reason = "engine_killed"
    stage = "judge"

    def __init__(self, attempts: int) -> None:
        super().__init__(
            f"the engine died or hung in each of {attempts} attempts at this post, the last time with no other post "
            "in it (engine.deaths_per_post_max)"
        )
        self.attempts = attempts


def dead_letter_reasons() -> tuple[str, ...]:
    """Return every ``reason`` of a dead letter, sorted."""
    unseen, found = [RecordError], set[str]()
    while unseen:
        kind = unseen.pop()
        unseen += kind.__subclasses__()
        # Subclasses elsewhere (of tests, for one) are not part of the tree.
        if (
            kind is not RecordError
            and not issubclass(kind, NotAPostError)
            and kind.__module__ == __name__
        ):
            found.add(kind.reason)
    return tuple(sorted(found))
