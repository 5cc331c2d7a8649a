"""All ledgers of a replica: takes actions, folds the topic's records, and says which records to write. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from stream_guard.stream.breaker.baseline import Hours
from stream_guard.stream.breaker.entries import (
    CountEntry,
    HourEntry,
    ResetEntry,
    TripEntry,
    decode,
)
from stream_guard.stream.breaker.ledger import PARTS, Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_guard.settings import ActionsSettings
    from stream_guard.stream.breaker.entries import Entry, Pair
    from stream_guard.stream.breaker.ledger import Allowed
    from stream_guard.stream.breaker.limits import Held, Scope

_AHEAD_MS: Final = 60_000
Decision: TypeAlias = Literal["taken", "limited", "waiting"]


class Book:
    """The ledgers.

    Args:
        settings: the section.
        epoch: our own id, new at each start.

    Attributes:
        news: trips and resets since somebody looked, and whether this replica opened it; the caller empties it.
    """

    def __init__(self, settings: ActionsSettings, epoch: str) -> None:
        self.news: list[tuple[TripEntry | ResetEntry, bool]] = []
        self._settings = settings
        self._epoch = epoch
        self._ledgers: dict[Scope, Ledger] = {}
        self._next_offset: int | None = None

    # Deciding

    def decide(self, held: Sequence[Held], now_ms: int) -> Decision:
        """Take an action from all its counters, or from none.

        Returns:
            ``taken``; ``limited`` where a breaker is open or there are too many counters; or ``waiting`` until
            :meth:`write` and :meth:`read` have reserved it.
        """
        ledgers = []
        for scope, terms in held:
            ledger = self._ledger(scope)
            if ledger is None:
                return "limited"
            ledger.terms = terms
            ledgers.append(ledger)
        if any(ledger.is_open(now_ms) for ledger in ledgers):
            return "limited"
        if not all(ledger.can_take(now_ms) for ledger in ledgers):
            return "waiting"
        for ledger in ledgers:
            ledger.take(now_ms)
        return "taken"

    def same_part(self, held: Sequence[Held], before_ms: int, now_ms: int) -> bool:
        """Return whether two times are in the same part of each counter's window."""
        return all(
            before_ms // PARTS[scope.window].length_ms == now_ms // PARTS[scope.window].length_ms
            for scope, _ in held
        )

    def count_post(self, scopes: Iterable[Scope], now_ms: int) -> None:
        """Count a judged post."""
        for scope in scopes:
            ledger = self._ledger(scope)
            if ledger is not None:
                ledger.count_post(now_ms)

    def want(self, waiting: Mapping[Scope, int]) -> None:
        """Say how many verdicts wait for each scope."""
        for scope, ledger in self._ledgers.items():
            ledger.wanted = waiting.get(scope, 0)

    # The topic

    def write(self, now_ms: int, *, with_posts: bool = False) -> list[Pair]:
        """Return the records that are due. A breaker that opens is in ``news``.

        Args:
            now_ms: Unix time in ms.
            with_posts: write also where only the posts have changed.
        """
        due: list[Pair] = []
        for ledger in self._ledgers.values():
            before = ledger.trip
            allowed = self._allowed(ledger, now_ms)
            due += ledger.write(now_ms, allowed, self._settings.lease_max, with_posts=with_posts)
            if ledger.trip is not None and ledger.trip is not before:
                self.news.append((ledger.trip, True))
        return due

    def give_back(self, now_ms: int) -> list[Pair]:
        """Return the records that give back what is reserved and not used: this replica stops."""
        for ledger in self._ledgers.values():
            ledger.give_back()
        return self.write(now_ms, with_posts=True)

    def forget(self, now_ms: int) -> list[Pair]:
        """Drop what has left the windows; return the tombstones of it."""
        gone: list[Pair] = []
        for scope, ledger in list(self._ledgers.items()):
            gone += ledger.forget(now_ms)
            if ledger.is_idle(now_ms):
                del self._ledgers[scope]
        return gone

    def read(self, records: Iterable[tuple[int, bytes | None, bytes | None]], now_ms: int) -> None:
        """Fold records of the topic: offset, key and value, in their order."""
        for offset, key, value in records:
            if self._next_offset is not None and offset != self._next_offset:
                for ledger in self._ledgers.values():
                    ledger.lose_order()
            self._next_offset = offset + 1
            entry = decode(key, value)
            if entry is not None:
                self._fold(entry, now_ms)

    def _fold(self, entry: Entry, now_ms: int) -> None:
        ledger = self._ledgers.get(entry.scope)
        if ledger is None:
            if isinstance(entry, CountEntry) and entry.number < 0:
                return
            ledger = self._make(entry.scope)
        if isinstance(entry, CountEntry):
            if entry.number < 0:
                ledger.fold_gone(entry, now_ms)
            else:
                ledger.fold_count(entry, self._allowed(ledger, now_ms).actions)
        elif isinstance(entry, HourEntry):
            ledger.hours.fold(entry.hour, entry.epoch, entry.used)
        elif isinstance(entry, TripEntry):
            if ledger.fold_trip(entry):
                self.news.append((entry, False))
        elif ledger.fold_reset(entry):
            self.news.append((entry, False))

    # People

    def reset(
        self,
        at_ms: int,
        now_ms: int,
        *,
        action: str | None = None,
        policy: str | None = None,
        tenant: str | None = None,
    ) -> list[Pair]:
        """Return the records that close breakers; they take effect once they are read.

        Args:
            at_ms: when a person decided so, Unix time in ms; breakers that opened later stay open.
            now_ms: Unix time in ms. A breaker that opened after it has the time of a clock that is ahead: it closes.
            action: close only breakers of this action; None closes those of any.
            policy: the same of a policy.
            tenant: the same of a tenant.
        """
        wanted = (policy, tenant, action)
        return [
            ResetEntry(scope, at_ms, ledger.trip.at_ms).encode()
            for scope, ledger in self._ledgers.items()
            if ledger.trip is not None
            and (ledger.trip.at_ms <= at_ms or ledger.trip.at_ms > now_ms + _AHEAD_MS)
            and all(a is None or a == b for a, b in zip(wanted, scope[1:], strict=True))
        ]

    def open(self, now_ms: int) -> Iterator[tuple[TripEntry, int]]:
        """Yield each open breaker's trip, and when it closes by itself, Unix time in ms."""
        for ledger in self._ledgers.values():
            if ledger.trip is not None and ledger.is_open(now_ms):
                yield ledger.trip, ledger.closes_ms()

    # Helpers

    def _allowed(self, ledger: Ledger, now_ms: int) -> Allowed:
        of_posts = self._ledgers.get(ledger.scope.posts)
        return ledger.allowed(now_ms, 0 if of_posts is None else of_posts.posts(now_ms))

    def _ledger(self, scope: Scope) -> Ledger | None:
        """Return a scope's ledger; None if that would be one too many."""
        ledger = self._ledgers.get(scope)
        if ledger is None and len(self._ledgers) < self._settings.scopes_max:
            ledger = self._make(scope)
        return ledger

    def _make(self, scope: Scope) -> Ledger:
        hours = Hours(self._settings.baseline_weeks)
        ledger = self._ledgers[scope] = Ledger(scope, self._epoch, hours)
        return ledger
