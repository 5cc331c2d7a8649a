"""Counts one scope over all replicas: reservations, posts, trips and resets, as the breaker's topic has them. Pure.

A replica *reserves* actions before it takes them. A reservation is a record, and the order of the records decides: one
is granted as far as all reservations before it leave room. Every replica reads the same records in the same order, and
only the writer of a reservation uses it. So what is granted never exceeds the limit, whatever is delayed, repeated or
killed. docs/explanation/breaker.md has the proof.

A window is cut into parts. A reservation belongs to the part in which it was made and expires with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.stream.breaker.baseline import HOUR_MS, Hours
from stream_guard.stream.breaker.entries import CountEntry, HourEntry, ResetEntry, TripEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_guard.settings.actions import LimitTerms, Window
    from stream_guard.stream.breaker.entries import Pair
    from stream_guard.stream.breaker.limits import Scope


class Parts(NamedTuple):
    """How a window is cut: into ``number`` parts of ``length_ms``."""

    length_ms: int
    number: int


PARTS: Final[Mapping[Window, Parts]] = {"hour": Parts(300_000, 12), "day": Parts(3_600_000, 24)}


class Allowed(NamedTuple):
    """How many actions a window may have, and the name of the strictest term."""

    actions: int
    cause: str


@dataclass(slots=True)
class _Count:
    """The newest numbers of one replica in one part."""

    number: int
    reserved: int
    posts: int


@dataclass(slots=True)
class _Own:
    """Our own numbers in one part.

    Attributes:
        used: actions taken.
        in_hand: actions granted and not taken.
        posts: posts judged.
        reserved_written, posts_written: the numbers of our newest record.
    """

    used: int = 0
    in_hand: int = 0
    posts: int = 0
    reserved_written: int = 0
    posts_written: int = 0


class _Pending(NamedTuple):
    """A reservation that was not read back yet."""

    number: int
    part: int
    amount: int


@dataclass(slots=True)
class Ledger:
    """One scope.

    Args:
        scope: what it counts.
        epoch: our own id.
        hours: the baseline's numbers.

    Attributes:
        terms: the limits that hold for it.
        wanted: how many verdicts wait for an action.
        generation: the time of the last reset, Unix time in ms; 0 before the first.
        trip: how it was opened last, in this generation.
    """

    scope: Scope
    epoch: str
    hours: Hours
    terms: tuple[LimitTerms, ...] = ()
    wanted: int = 0
    generation: int = 0
    trip: TripEntry | None = None
    _counts: dict[int, dict[str, _Count]] = field(default_factory=dict)
    _own: dict[int, _Own] = field(default_factory=dict)
    _own_hours: dict[int, int] = field(default_factory=dict)
    _written_hours: dict[int, int] = field(default_factory=dict)
    _number: int = 0
    _pending: _Pending | None = None
    _gap: bool = False

    def part(self, now_ms: int) -> int:
        """Return the part of the window in which a time is."""
        return now_ms // PARTS[self.scope.window].length_ms

    # Taking

    def is_open(self, now_ms: int) -> bool:
        """Return whether the breaker is open: no action is granted until its numbers have left the window."""
        return self.trip is not None and (
            self.part(now_ms) - self.trip.part <= PARTS[self.scope.window].number
        )

    def closes_ms(self) -> int:
        """Return when an open breaker closes by itself, Unix time in ms."""
        assert self.trip is not None, "it is open"
        length_ms, count = PARTS[self.scope.window]
        return (self.trip.part + count + 1) * length_ms

    def can_take(self, now_ms: int) -> bool:
        """Return whether an action is in hand."""
        own = self._own.get(self.part(now_ms))
        return own is not None and own.in_hand > 0

    def take(self, now_ms: int) -> None:
        """Use one action that is in hand."""
        own = self._own[self.part(now_ms)]
        own.in_hand -= 1
        own.used += 1
        hour = now_ms // HOUR_MS
        self._own_hours[hour] = self._own_hours.get(hour, 0) + 1

    def count_post(self, now_ms: int) -> None:
        """Count a post."""
        self._own.setdefault(self.part(now_ms), _Own()).posts += 1

    def give_back(self) -> None:
        """Use nothing more of what is reserved, and want nothing."""
        self.wanted = 0
        self._pending = None
        for own in self._own.values():
            own.in_hand = 0

    # Counting

    def counted(self, now_ms: int) -> int:
        """Return the actions of the window: those that others reserved, and those that we were granted."""
        first = self._first(self.part(now_ms))
        others = sum(
            count.reserved
            for part, counts in self._counts.items()
            if part >= first
            for epoch, count in counts.items()
            if epoch != self.epoch
        )
        ours = sum(own.used + own.in_hand for part, own in self._own.items() if part >= first)
        return others + ours

    def posts(self, now_ms: int) -> int:
        """Return the posts of the window, ours included."""
        part = self.part(now_ms)
        window = range(self._first(part), part + 1)
        others = sum(
            count.posts
            for each in window
            for epoch, count in self._counts.get(each, {}).items()
            if epoch != self.epoch
        )
        return others + sum(self._own[each].posts for each in window if each in self._own)

    def allowed(self, now_ms: int, posts: int) -> Allowed:
        """Return how many actions the window may have: the strictest term decides.

        Args:
            now_ms: Unix time in ms.
            posts: judged in the window.
        """
        found = []
        for terms in self.terms:
            if terms.actions_max is not None:
                found.append(Allowed(terms.actions_max, "actions_max"))
            if terms.share_max is not None:
                share = terms.share_max * max(posts, terms.posts_min)
                found.append(Allowed(int(share + 1e-9), "share_max"))  # 0.07 * 100 is below 7
            if terms.baseline_times_max is not None:
                usual = self.hours.usual(self.scope.window, now_ms // HOUR_MS)
                if usual is not None:
                    most = max(terms.baseline_min, int(terms.baseline_times_max * usual + 1e-9))
                    found.append(Allowed(most, "baseline_times_max"))
        return min(found, default=Allowed(1 << 62, "none"))

    # Writing

    def write(
        self, now_ms: int, allowed: Allowed, lease_max: int, *, with_posts: bool
    ) -> Iterator[Pair]:
        """Yield the records that are due: a reservation for what is wanted, a trip, and numbers that have changed.

        Args:
            now_ms: Unix time in ms.
            allowed: actions of the window.
            lease_max: most actions to reserve ahead of demand.
            with_posts: write also where only the posts have changed.
        """
        part = self.part(now_ms)
        for each, own in self._own.items():
            if each != part:
                own.in_hand = 0  # it expired, and is given back below
        own = self._own.setdefault(part, _Own())
        lacking = self.wanted - own.in_hand
        if lacking > 0 and self._pending is None and not self.is_open(now_ms):
            counted = self.counted(now_ms)
            room = allowed.actions - counted
            if room > 0:
                yield self._reserve(part, room, lacking, lease_max)
            else:
                where = (self.scope, self.generation, part)
                self.trip = TripEntry(*where, now_ms, allowed.cause, counted, allowed.actions)
                yield self.trip.encode()
        for each, own in self._own.items():
            reserved = own.used + own.in_hand + self._waiting(each)
            if reserved != own.reserved_written or (with_posts and own.posts != own.posts_written):
                yield self._entry(each, own, reserved)
        yield from self._changed_hours()

    def _reserve(self, part: int, room: int, lacking: int, lease_max: int) -> Pair:
        """Return a reservation: what is wanted and, ahead of demand, no more than was used in this part.

        It takes a share of the room only, and so gets smaller as the limit comes near: little then lies unused in other
        replicas' hands.
        """
        own = self._own[part]
        fair = room // (2 * self._replicas(part))
        amount = max(1, min(lacking + min(lease_max, own.used), fair))
        self._gap = False
        self._pending = _Pending(self._number + 1, part, amount)
        return self._entry(part, own, own.used + own.in_hand + amount)

    def _waiting(self, part: int) -> int:
        pending = self._pending
        return pending.amount if pending is not None and pending.part == part else 0

    def _entry(self, part: int, own: _Own, reserved: int) -> Pair:
        self._number += 1
        own.reserved_written, own.posts_written = reserved, own.posts
        where = (self.scope, self.generation, part, self.epoch)
        return CountEntry(*where, self._number, reserved, own.posts).encode()

    def _changed_hours(self) -> Iterator[Pair]:
        if not any(terms.baseline_times_max is not None for terms in self.terms):
            return
        for hour, used in self._own_hours.items():
            if self._written_hours.get(hour) != used:
                self._written_hours[hour] = used
                yield HourEntry(self.scope, hour, self.epoch, used).encode()

    def forget(self, now_ms: int) -> Iterator[Pair]:
        """Drop what has left the window, and yield the tombstones of it."""
        first = self._first(self.part(now_ms)) - 1  # a clock that is behind may still count it
        for part in [each for each in self._counts if each < first]:
            # Each replica deletes its own numbers; those of dead replicas stay for two parts more.
            dead = part < first - 2
            for epoch in [each for each in self._counts[part] if dead or each == self.epoch]:
                del self._counts[part][epoch]
                yield CountEntry(self.scope, self.generation, part, epoch).tombstone()
            if not self._counts[part]:
                del self._counts[part]
        for part in [each for each in self._own if each < first]:
            del self._own[part]
        hour = now_ms // HOUR_MS
        for each, epoch in self.hours.forget(hour):
            yield HourEntry(self.scope, each, epoch).tombstone()
        for old in [each for each in self._own_hours if each < hour - 1]:
            del self._own_hours[old]
            self._written_hours.pop(old, None)

    def is_idle(self, now_ms: int) -> bool:
        """Return whether nothing would be lost with it."""
        busy = self._counts or self._own or self.hours or self._pending or self.wanted
        # A ledger that was reset stays: without its generation, others would ignore our numbers.
        return not busy and not self.generation and not self.is_open(now_ms)

    # Reading

    def lose_order(self) -> None:
        """Note that records were skipped while reading: a pending reservation cannot be judged by their order."""
        self._gap = True

    def fold_count(self, entry: CountEntry, allowed: int) -> None:
        """Take a replica's numbers.

        Args:
            entry: as read.
            allowed: actions of the window.
        """
        if entry.generation > self.generation:
            self._begin(entry.generation)  # the record of the reset was compacted away
        elif entry.generation < self.generation:
            return
        counts = self._counts.setdefault(entry.part, {})
        known = counts.get(entry.epoch)
        if known is not None and entry.number < known.number:
            own = self._own.get(entry.part)
            if entry.epoch == self.epoch and own is not None:
                own.reserved_written = -1  # written again: compaction would keep this older record
            return
        counts[entry.epoch] = _Count(entry.number, entry.reserved, entry.posts)
        pending = self._pending
        if pending is not None and (entry.epoch, entry.part, entry.number) == (
            self.epoch,
            pending.part,
            pending.number,
        ):
            self._settle(pending, allowed)

    def _settle(self, pending: _Pending, allowed: int) -> None:
        """Decide a reservation that was read back: granted as far as all before it leave room."""
        self._pending = None
        open_ = self.trip is not None and (
            pending.part - self.trip.part <= PARTS[self.scope.window].number
        )
        if self._gap or open_:
            return  # the next record gives the reservation back
        first = self._first(pending.part)
        reserved = sum(
            count.reserved
            for part, counts in self._counts.items()
            if part >= first
            for count in counts.values()
        )
        own = self._own.setdefault(pending.part, _Own())
        own.in_hand += max(0, pending.amount - max(0, reserved - allowed))

    def fold_gone(self, entry: CountEntry, now_ms: int) -> None:
        """Take a tombstone: another replica has dropped what left the window."""
        if entry.part < self._first(self.part(now_ms)) - 1:
            self._counts.get(entry.part, {}).pop(entry.epoch, None)

    def fold_trip(self, entry: TripEntry) -> bool:
        """Take a trip; return whether it is news."""
        if entry.generation > self.generation:
            self._begin(entry.generation)
        if entry.generation < self.generation:
            return False
        if self.trip is not None and self.trip.part >= entry.part:
            return False
        self.trip = entry
        return True

    def fold_reset(self, entry: ResetEntry) -> bool:
        """Take a reset; return whether it closes the breaker. One that is older than the trip closes nothing."""
        if entry.at_ms <= self.generation:
            return False
        if self.trip is not None and self.trip.at_ms > max(entry.at_ms, entry.trip_at_ms):
            return False
        was_open = self.trip is not None
        self._begin(entry.at_ms)
        return was_open

    def _begin(self, generation: int) -> None:
        """Count from zero."""
        self.generation = generation
        self.trip = None
        self._counts.clear()
        self._own.clear()
        self._pending = None

    # Helpers

    def _first(self, part: int) -> int:
        """Return the first part of the window that ends in a part; later parts count as well."""
        return part - PARTS[self.scope.window].number

    def _replicas(self, part: int) -> int:
        first = self._first(part)
        found = {
            epoch for each, counts in self._counts.items() if each >= first for epoch in counts
        }
        return len(found | {self.epoch})
