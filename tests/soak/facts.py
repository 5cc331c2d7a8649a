"""What a soak observed, as plain data: the checker's only input, and what the JSON file holds.

What it must never do: leave out what would speak against the program.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import orjson

if TYPE_CHECKING:
    from pathlib import Path

InputKind: TypeAlias = Literal["post", "poison", "delete"]
OutcomeKind: TypeAlias = Literal["verdict", "dead_letter", "retraction"]


class Input(NamedTuple):
    """One record of the input topic, as its log has it at the end.

    ``name`` is the post's id, or a digest of the bytes of what is malformed on purpose. Of a deletion it is the post's
    id, or the record's key where the value is null. ``aborted``: of a transaction that was aborted, so that nobody
    may judge it. ``deleted_ms``: when retention deleted it; 0: never.
    """

    partition: int
    offset: int
    appended_ms: int
    kind: InputKind
    name: str
    aborted: bool
    deleted_ms: int = 0


class Outcome(NamedTuple):
    """One verdict, event or dead letter, as the log of its topic has it at the end.

    ``topic``, ``partition`` and ``offset`` are those that it gives for its source. ``policy`` and ``sha256``
    are empty for a dead letter of a whole record. ``name`` is the judged post's id, or a digest of a dead
    letter's bytes. ``committed``: a reader with ``read_committed`` gets it. ``log_topic``, ``log_partition`` and
    ``log_offset`` are where it lies itself. ``action`` is what a verdict recommends. ``decision_id`` is of the
    person's decision that it follows. ``changes`` is what it does to an earlier verdict: ``supersedes``, ``retracts``,
    ``expired``, or nothing.
    """

    kind: OutcomeKind
    topic: str
    partition: int
    offset: int
    policy: str
    sha256: str
    id: str
    name: str
    appended_ms: int
    committed: bool
    log_topic: str = ""
    log_partition: int = 0
    log_offset: int = 0
    action: str = ""
    decision_id: str = ""
    changes: str = ""


class Decided(NamedTuple):
    """A person's decision about a verdict, as the log of its topic has it at the end.

    ``verdict_id``, ``policy``, ``name``, ``source_partition`` and ``source_offset`` are of the verdict and its post.
    ``decided_at`` is Unix time in ms by the person's clock.
    """

    partition: int
    offset: int
    appended_ms: int
    id: str
    kind: str
    decided_at: int
    verdict_id: str
    policy: str
    name: str
    source_partition: int
    source_offset: int


class Read(NamedTuple):
    """A verdict or dead letter that a reader with ``read_committed`` got while the soak ran, in its order."""

    topic: str
    partition: int
    offset: int


class Commit(NamedTuple):
    """A position that the group committed, in the order of the group's log.

    ``at_ms`` is by the coordinator's clock. ``generation`` is the group's last one before it in that log.
    """

    partition: int
    position: int
    at_ms: int
    generation: int = 0


class Generation(NamedTuple):
    """A generation of the group: from ``at_ms`` on, its members have their partitions."""

    number: int
    at_ms: int


class Expired(NamedTuple):
    """Records that the service says it never read, because the log began after them: from one offset to another."""

    partition: int
    begin: int
    end: int


class Fault(NamedTuple):
    """What the adversary did, to whom, and from when until when it held."""

    kind: str
    target: str
    begin_ms: int
    end_ms: int


class Exit(NamedTuple):
    """A consumer that ended; ``asked``: by a signal of ours; ``said``: the last line of its log, where it was not."""

    member: str
    code: int
    at_ms: int
    asked: bool
    said: str = ""


class Acknowledged(NamedTuple):
    """A post that the brokers acknowledged to its producer."""

    name: str
    partition: int
    offset: int


@dataclass
class History:
    """All that was observed of one consumer group; times are Unix time in ms.

    Attributes:
        seed: of the schedule.
        mode: ``delivery.mode``.
        engine: ``engine.kind``.
        topic: the input topic.
        policies: sha256 of each policy that judges it, by id.
        clock_step_ms: by how much the machine's wall clock jumped meanwhile; times are no surer than that.
        ended_ms: when all that was to come had come, or was given up on.
        peak_bytes: the largest resident size of a consumer's process.
        actions_max: the limit on actions in any hour; 0 for none.
        watched: whether a reader ran meanwhile; without one, ``reads`` says nothing.
    """

    seed: int
    mode: str
    engine: str
    topic: str
    policies: dict[str, str]
    clock_step_ms: int = 0
    ended_ms: int = 0
    peak_bytes: int = 0
    actions_max: int = 0
    watched: bool = False
    inputs: list[Input] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    expired: list[Expired] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)

    def save(self, file: Path) -> None:
        """Write it as JSON, compressed with gzip."""
        data = {
            name: [list(fact) for fact in value] if isinstance(value, list) else value
            for name, value in vars(self).items()
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(file, "wb", compresslevel=3) as out:
            out.write(orjson.dumps(data))

    @classmethod
    def load(cls, file: Path) -> History:
        """Read what :meth:`save` wrote."""
        with gzip.open(file, "rb") as source:
            data: dict[str, Any] = orjson.loads(source.read())
        kinds: dict[str, Any] = {
            "inputs": Input,
            "acknowledged": Acknowledged,
            "outcomes": Outcome,
            "decided": Decided,
            "reads": Read,
            "commits": Commit,
            "generations": Generation,
            "expired": Expired,
            "faults": Fault,
            "exits": Exit,
        }
        for name, kind in kinds.items():
            data[name] = [kind(*values) for values in data.get(name, ())]
        return cls(**data)
