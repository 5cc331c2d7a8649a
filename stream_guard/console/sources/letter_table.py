"""The latest dead letters as the console keeps them: without their content, and a bounded number. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.records.dead_letter import DeadLetter

__all__ = ["Letter", "LetterTable", "Reason"]

_CHARACTERS_MAX: Final = 1_000
"""Of each field: a record of strangers can have headers of any length."""


class Letter(NamedTuple):
    """One dead letter, without key, value and headers of its record. All texts are untrusted.

    Attributes:
        partition, offset: the place of the dead letter.
        source: the place of its record, ``TOPIC/PARTITION/OFFSET``.
        source_ms: timestamp of the record, Unix time in ms.
        id: of the record.
        reason: why it failed, in a word.
        message: the error; it names the field where one is at fault, and holds no text of the post.
        error, stage, policy, attempts: what else the dead letter says; empty where it says nothing.
        failed_ms: when it failed, Unix time in ms.
        value_bytes: length of the record's value; None if it is null.
        replays: how often the record had been replayed before it failed.
        cut: whether a part of the record is missing, so that it cannot be replayed.
    """

    partition: int
    offset: int
    source: str
    source_ms: int
    id: str
    reason: str
    message: str
    error: str
    stage: str
    policy: str
    attempts: str
    failed_ms: int
    value_bytes: int | None
    replays: int
    cut: bool

    @classmethod
    def of(cls, letter: DeadLetter) -> Letter:
        """Return what is kept of a dead letter."""

        def said(name: str) -> str:
            return letter.about.get(f"sg_{name}", "")[:_CHARACTERS_MAX]

        place = f"{letter.source_topic}/{letter.source_partition}/{letter.source_offset}"
        return cls(
            letter.partition,
            letter.offset,
            place[:_CHARACTERS_MAX],
            letter.source_ms,
            letter.id,
            letter.reason[:_CHARACTERS_MAX],
            said("message"),
            said("error"),
            said("stage"),
            said("policy"),
            said("attempts"),
            letter.failed_ms,
            letter.value_bytes,
            letter.replays,
            letter.cut,
        )


@dataclass(slots=True)
class Reason:
    """What is known of the dead letters with one reason.

    Attributes:
        reason: the word. Untrusted text.
        count: all of them.
        replayed: those whose record was replayed.
        cut: those that cannot be replayed.
        failed_ms: when the latest failed, Unix time in ms.
    """

    reason: str
    count: int = 0
    replayed: int = 0
    cut: int = 0
    failed_ms: int = 0


class LetterTable:
    """Dead letters in the order in which they were read.

    Args:
        letters_max: how many are kept, the latest.

    Attributes:
        positions: where to read on, by partition.
        foreign: records that are neither dead letters nor markers of replays.
    """

    def __init__(self, letters_max: int) -> None:
        self._letters_max = letters_max
        self._letters: OrderedDict[tuple[int, int], Letter] = OrderedDict()
        self._replayed: OrderedDict[str, None] = OrderedDict()
        self._first: dict[int, int] = {}
        self._begins: dict[int, int] = {}
        self.positions: dict[int, int] = {}
        self.foreign = 0

    @property
    def left_out(self) -> int:
        """Offsets of the topic that are there and were not read, or whose dead letters are kept no more."""
        return sum(max(0, self._first[each] - begin) for each, begin in self._begins.items())

    def spans(self, whole: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
        """Return what is to be read now, by partition: from an offset up to and without another one.

        Args:
            whole: where each partition begins and ends now. If one ends before the position, the topic is another
                one now, and the table forgets everything.
        """
        if any(end < self.positions.get(partition, 0) for partition, (_, end) in whole.items()):
            self._forget()
        share = max(1, self._letters_max // max(1, len(whole)))
        found = {}
        for partition, (begin, end) in whole.items():
            latest = max(begin, end - share)
            position = max(latest, self.positions.get(partition, latest))
            self._first.setdefault(partition, position)
            if latest > self.positions.get(partition, latest):
                self._first[partition] = latest  # so many came at once that some are not read
            if begin > self._begins.get(partition, begin):
                self._drop(partition, begin)
            self._begins[partition] = begin
            found[partition] = (position, end)
        return found

    def _drop(self, partition: int, begin: int) -> None:
        """Forget the dead letters of a partition that the topic does not hold any more."""
        for place in [each for each in self._letters if each[0] == partition and each[1] < begin]:
            del self._letters[place]

    def _forget(self) -> None:
        for known in (self._letters, self._replayed, self._first, self._begins, self.positions):
            known.clear()
        self.foreign = 0

    def add(self, letter: DeadLetter) -> None:
        """Keep a dead letter, and let the oldest go where there are too many."""
        kept = Letter.of(letter)
        self._letters[kept.partition, kept.offset] = kept
        while len(self._letters) > self._letters_max:
            _, gone = self._letters.popitem(last=False)
            self._first[gone.partition] = max(self._first.get(gone.partition, 0), gone.offset + 1)

    def add_replayed(self, letter_id: str) -> None:
        """Note that a record was replayed."""
        self._replayed[letter_id] = None
        while len(self._replayed) > self._letters_max:
            self._replayed.popitem(last=False)

    def find(self, partition: int, offset: int) -> Letter | None:
        """Return the dead letter at a place of the topic; None where it is not kept."""
        return self._letters.get((partition, offset))

    def is_replayed(self, letter: Letter) -> bool:
        """Return whether the record of a dead letter was replayed, as far as was read."""
        return letter.id in self._replayed

    def newest(self, count: int, reason: str | None = None) -> list[Letter]:
        """Return those that failed last, the latest first, of one reason or of all."""
        wanted = (
            each for each in self._letters.values() if reason is None or each.reason == reason
        )
        return sorted(wanted, key=lambda each: (each.failed_ms, each.offset), reverse=True)[:count]

    def reasons(self) -> list[Reason]:
        """Return the reasons, the most frequent first."""
        found: dict[str, Reason] = {}
        for letter in self._letters.values():
            row = found.setdefault(letter.reason, Reason(letter.reason))
            row.count += 1
            row.replayed += self.is_replayed(letter)
            row.cut += letter.cut
            row.failed_ms = max(row.failed_ms, letter.failed_ms)
        return sorted(found.values(), key=lambda each: (-each.count, each.reason))
