"""Thousands of seeded histories of the breaker: no window has more actions than its limit, whatever happens.

Replicas share one log, as on the broker: in one order, cut by compaction. Records arrive late and more than once, reads
come in pieces, clocks differ and go back, and replicas are killed and started again.
"""

from __future__ import annotations

import os
import random
from collections import deque
from typing import TYPE_CHECKING

import pytest

from stream_guard.settings import ActionLimit, ActionsSettings
from stream_guard.stream.breaker.book import Book
from stream_guard.stream.breaker.ledger import PARTS
from stream_guard.stream.breaker.limits import Held, Scope

if TYPE_CHECKING:
    from stream_guard.stream.breaker.entries import Pair

HISTORIES = int(os.environ.get("BREAKER_HISTORIES", "2000"))
SCOPE = Scope("hour", action="remove")
WINDOW_MS = PARTS["hour"].length_ms * PARTS["hour"].number
BEGIN_MS = 1_700_000_000_000


class Log:
    """One partition of a compacted topic."""

    def __init__(self) -> None:
        self.records: list[tuple[int, bytes, bytes | None]] = []
        self.end = 0

    def append(self, pair: Pair) -> None:
        self.records.append((self.end, *pair))
        self.end += 1

    def compact(self, below: int) -> None:
        """Drop records below an offset that a later one below it replaces."""
        newest = {key: offset for offset, key, _ in self.records if offset < below}
        self.records = [one for one in self.records if one[0] >= below or newest[one[1]] == one[0]]

    def read(self, position: int, count: int) -> list[tuple[int, bytes, bytes | None]]:
        return [one for one in self.records if one[0] >= position][:count]


class Replica:
    """A book, and its way to the log and back."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.book = Book(world.settings, f"{number}-{world.random.random()}")
        self.position = 0
        self.wanted = 0
        self.skew_ms = world.random.choice([0, 0, world.random.randint(-400_000, 400_000)])
        self.sending: deque[Pair] = deque()
        while self.position < world.log.end:  # a start reads to the end before anything is decided
            self.read(1 << 30)

    @property
    def now_ms(self) -> int:
        return self.world.now_ms + self.skew_ms

    def read(self, count: int) -> None:
        found = self.world.log.read(self.position, count)
        self.book.read(found, self.now_ms)
        self.position = found[-1][0] + 1 if found else self.world.log.end

    def act(self) -> None:
        """Decide what waits, and write what is due."""
        self.decide()
        self.book.want({SCOPE: self.wanted})
        if not self.sending:  # one request at a time, as the gate has it
            self.sending.extend(self.book.write(self.now_ms, with_posts=True))
            if self.world.random.random() < 0.1:
                self.sending.extend(self.book.forget(self.now_ms))
        self.decide()

    def decide(self) -> None:
        while self.wanted:
            outcome = self.book.decide(self.world.held, self.now_ms)
            if outcome == "waiting":
                return
            self.wanted -= 1
            if outcome == "taken":
                generation = self.book._ledgers[SCOPE].generation
                self.world.taken.append((self.now_ms, generation))
            else:
                self.world.limited += 1

    def send(self) -> None:
        """Bring the oldest record to the log, perhaps twice, and perhaps with its answer lost."""
        if not self.sending:
            return
        self.world.log.append(self.sending[0])
        if self.world.random.random() < 0.9:
            sent = self.sending.popleft()
            if self.world.random.random() < 0.2:
                self.world.late.append(sent)


class World:
    """One history."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a seeded history
        self.limit = self.random.choice([0, 1, 3, 10, 40])
        self.settings = ActionsSettings(
            limits=(ActionLimit(action="remove", actions_max=self.limit),),
            lease_max=self.random.choice([1, 5, 50]),
        )
        self.held = (Held(SCOPE, self.settings.limits),)
        self.log = Log()
        self.late: list[Pair] = []
        self.now_ms = BEGIN_MS
        self.taken: list[tuple[int, int]] = []
        self.limited = 0
        self.resets = 0
        self.kills = 0
        # Each history has a temper of its own: some are quiet, some lag, some compact all the time.
        self.chances = {
            "kill": self.random.choice([0, 1, 3]),
            "clock": self.random.choice([0, 1]),
            "compact": self.random.choice([0, 1, 15]),
            "late": self.random.choice([0, 2, 15]),
            "reset": self.random.choice([0, 0, 1]),
            "want": 18,
            "send": self.random.choice([15, 40]),
            "read": self.random.choice([10, 40]),
            "act": 25,
        }
        self.replicas = [Replica(self, number) for number in range(3)]

    def step(self) -> None:
        """Let one thing happen."""
        self.now_ms += self.random.choice([0, 10, 10, 500, 500, 60_000])
        if self.random.random() < 0.01:
            self.now_ms += self.random.choice([400_000, WINDOW_MS // 2, WINDOW_MS])
        number = self.random.randrange(3)
        replica = self.replicas[number]
        what = self.random.choices([*self.chances], [*self.chances.values()])[0]
        if what == "kill":
            self.kills += 1
            # Records on their way may still arrive.
            self.late.extend(one for one in replica.sending if self.random.random() < 0.5)
            self.replicas[number] = Replica(self, number)
        elif what == "want":
            replica.wanted += self.random.choice([1, 1, 5, 30])
        elif what == "send":
            replica.send()
        elif what == "read":
            replica.read(self.random.randint(1, 6))
        elif what == "act":
            replica.act()
        else:
            self.disturb(what, replica)

    def disturb(self, what: str, replica: Replica) -> None:
        """Let a clock or the log change."""
        if what == "clock":
            replica.skew_ms = self.random.randint(-400_000, 400_000)
        elif what == "compact":
            self.log.compact(self.log.end - self.random.choice([0, 0, 1, 5]))
        elif what == "late" and self.late:
            self.log.append(self.late.pop(self.random.randrange(len(self.late))))
        elif what == "reset":
            for pair in replica.book.reset(self.now_ms, replica.now_ms):
                self.resets += 1
                self.log.append(pair)

    def most_in_a_window(self) -> int:
        """Return the most actions of one generation in any window, by the clocks of those who took them."""
        most = 0
        for generation in {each for _, each in self.taken}:
            times = sorted(at for at, each in self.taken if each == generation)
            first = 0
            for last, at in enumerate(times):
                while at - times[first] > WINDOW_MS:
                    first += 1
                most = max(most, last - first + 1)
        return most


@pytest.mark.parametrize("share", range(4))
def test_no_window_has_more_actions_than_its_limit(share: int) -> None:
    """Reservations that are delayed, repeated, compacted or lost never add up to more than the limit."""
    seen = dict.fromkeys(("taken", "limited", "kills", "resets", "full"), 0)
    for seed in range(share, HISTORIES, 4):
        world = World(seed)
        for _ in range(300):
            world.step()
        most = world.most_in_a_window()
        assert most <= world.limit, f"seed {seed}: {most} actions, limit {world.limit}"
        seen["taken"] += len(world.taken)
        seen["limited"] += world.limited
        seen["kills"] += world.kills
        seen["resets"] += world.resets
        seen["full"] += most == world.limit > 0
    # The histories are worth something: limits are reached, breakers open, replicas die.
    assert all(seen.values()), seen
