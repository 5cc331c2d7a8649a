"""The records of the breaker's topic: their keys and values as JSON. Pure.

A key says what a number is about, and the newest record of a key replaces the older ones, as compaction does. Every
number is cumulative, so a record that is written twice changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import orjson

from stream_guard.stream.breaker.limits import Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

Pair: TypeAlias = tuple[bytes, bytes | None]
"""Key and value of a record; a value of None deletes the key."""


class CountEntry(NamedTuple):
    """What one replica has reserved and seen in one part of a window.

    Attributes:
        scope: what is counted.
        generation: the time of the last reset, Unix time in ms; 0 before the first.
        part: which part of which window: Unix time divided by the part's length.
        epoch: the replica's id, new at each start.
        number: rises with each record of this replica; an older one is ignored.
        reserved: actions taken or reserved.
        posts: posts judged.
    """

    scope: Scope
    generation: int
    part: int
    epoch: str
    number: int = 0
    reserved: int = 0
    posts: int = 0

    def encode(self) -> Pair:
        """Return the record."""
        key = ["count", *self.scope, self.generation, self.part, self.epoch]
        value = {"number": self.number, "reserved": self.reserved, "posts": self.posts}
        return orjson.dumps(key), orjson.dumps(value)

    def tombstone(self) -> Pair:
        """Return the record that deletes this one."""
        return self.encode()[0], None


class HourEntry(NamedTuple):
    """How many actions one replica took in one hour, for the baseline; ``hour`` is Unix time in hours."""

    scope: Scope
    hour: int
    epoch: str
    used: int = 0

    def encode(self) -> Pair:
        """Return the record."""
        return orjson.dumps(["hour", *self.scope, self.hour, self.epoch]), orjson.dumps(
            {"used": self.used}
        )

    def tombstone(self) -> Pair:
        """Return the record that deletes this one."""
        return self.encode()[0], None


class TripEntry(NamedTuple):
    """A breaker that opened.

    Attributes:
        scope: what it limits.
        generation, part: as in :class:`CountEntry`.
        at_ms: when, Unix time in ms.
        cause: the term that was reached: ``actions_max``, ``share_max`` or ``baseline_times_max``.
        counted: actions counted in the window.
        allowed: actions allowed in it.
    """

    scope: Scope
    generation: int
    part: int
    at_ms: int
    cause: str
    counted: int
    allowed: int

    def encode(self) -> Pair:
        """Return the record."""
        fields = self._asdict()
        del fields["scope"]
        return orjson.dumps(["trip", *self.scope]), orjson.dumps(fields)


class ResetEntry(NamedTuple):
    """A person closed a breaker.

    Attributes:
        scope: what it limits.
        at_ms: when it was decided, Unix time in ms.
        trip_at_ms: the time of the trip that it closes, by the clock of the replica that opened it.
    """

    scope: Scope
    at_ms: int
    trip_at_ms: int

    def encode(self) -> Pair:
        """Return the record."""
        value = {"at_ms": self.at_ms, "trip_at_ms": self.trip_at_ms}
        return orjson.dumps(["reset", *self.scope]), orjson.dumps(value)


Entry: TypeAlias = CountEntry | HourEntry | TripEntry | ResetEntry


def decode(key: bytes | None, value: bytes | None) -> Entry | None:
    """Return what a record says; None for a tombstone and for what no version of Stream Guard wrote."""
    if key is None or value is None:
        return None
    try:
        kind, *rest = orjson.loads(key)
        fields = orjson.loads(value)
        return _decode(kind, rest, fields)
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def _decode(kind: str, rest: Sequence[Any], fields: dict[str, Any]) -> Entry | None:
    scope, rest = Scope(*rest[:4]), rest[4:]
    if scope.window not in ("hour", "day"):
        return None
    if kind == "count":
        generation, part, epoch = rest
        numbers = (int(fields[name]) for name in ("number", "reserved", "posts"))
        return CountEntry(scope, int(generation), int(part), str(epoch), *numbers)
    if kind == "hour":
        hour, epoch = rest
        return HourEntry(scope, int(hour), str(epoch), int(fields["used"]))
    if kind == "trip":
        generation, part, at_ms = (int(fields[name]) for name in ("generation", "part", "at_ms"))
        counted, allowed = int(fields["counted"]), int(fields["allowed"])
        return TripEntry(scope, generation, part, at_ms, str(fields["cause"]), counted, allowed)
    if kind == "reset":
        return ResetEntry(scope, int(fields["at_ms"]), int(fields["trip_at_ms"]))
    return None
