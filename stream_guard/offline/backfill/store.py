"""Keeps the output of a backfill: one file of verdicts for each block, dead letters, the plan and the manifest.

A block is done once its file has its final name. That file is whole, because it is renamed when it is complete; so a
block that was judged twice is in the output once.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from stream_guard.core.errors import OperatorError, SettingsError
from stream_guard.kafka.part_writer import Keyed
from stream_guard.offline.backfill.blocks import Block
from stream_guard.offline.backfill.counts import Counts
from stream_guard.offline.backfill.places import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.offline.backfill.places import Place

__all__ = ["Letter", "Outcome", "Store"]

_VERDICTS: Final = "verdicts"
_LETTERS: Final = "dead-letters"
_STATE: Final = "_state"
_TRIES: Final = "_state/tries"
_COUNTS: Final = b"stream_guard.counts"
_FORMAT: Final = 1


class Letter(NamedTuple):
    """A row that could not be judged.

    Attributes:
        record: the row.
        reason, stage, message: of the error.
        policy: that was judging; None where the row holds no post.
    """

    record: Record
    reason: str
    stage: str
    message: str
    policy: str | None = None


class Outcome(NamedTuple):
    """The output of a block; of each verdict also the key of its record."""

    verdicts: Sequence[Keyed]
    letters: Sequence[Letter]
    counts: Counts


@dataclass(slots=True, frozen=True)
class Store:
    """The folder of a backfill.

    Attributes:
        root: the folder.
        option: that named it, for messages.
    """

    root: Place
    option: str

    def _file(self, block: Block) -> Place:
        return self.root / _VERDICTS / block.file_name

    def _letters(self, block: Block) -> Place:
        return self.root / _LETTERS / block.file_name

    # The plan

    def plan(self, identity: Mapping[str, str]) -> list[Block] | None:
        """Return the blocks of an earlier run; None where the folder holds none.

        Args:
            identity: what both runs must agree in, by name.

        Raises:
            OperatorError: the folder holds another backfill, or files of something else.
        """
        import pyarrow.parquet as pq

        manifest = self.root / _STATE / "manifest.json"
        if not manifest.is_file():
            if (self.root / _VERDICTS).files():
                message = f"{self.option} {self.root}: holds verdicts without a manifest; name an empty folder"
                raise OperatorError(message)
            return None
        known: dict[str, Any] = orjson.loads(manifest.read())
        there = known.get("identity", {})
        differ = [name for name in {**there, **identity} if there.get(name) != identity.get(name)]
        if known.get("format") != _FORMAT or differ:
            words = "; ".join(
                f"{name} is {there.get(name, 'unset')} there and {identity.get(name, 'unset')} here"
                for name in differ
            )
            message = (
                f"{self.option} {self.root}: holds another backfill ({words or 'of another version'}); name another "
                "folder, or continue that one with what it was begun with"
            )
            raise OperatorError(message)
        place = self.root / _STATE / "plan.parquet"
        with place.system.open_input_file(place.path) as file:
            return [Block(**row) for row in pq.read_table(file).to_pylist()]

    def begin(self, identity: Mapping[str, str], blocks: Sequence[Block]) -> None:
        """Write the plan, and then the manifest, which makes it count. Raises SettingsError."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [field.name for field in fields(Block)]
        kinds = {"name": pa.string(), "digest": pa.string()}
        schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in names])
        table = pa.Table.from_pylist([asdict(block) for block in blocks], schema=schema)
        try:
            (self.root / _STATE / "plan.parquet").write(lambda to: pq.write_table(table, to))
            document = {
                "format": _FORMAT,
                "id": secrets.token_hex(6),
                "identity": dict(identity),
                "blocks": len(blocks),
            }
            content = orjson.dumps(document, option=orjson.OPT_INDENT_2)
            (self.root / _STATE / "manifest.json").write_bytes(content)
        except OSError as error:
            message = (
                f"{self.option} {self.root}: cannot be written: {error}; name a folder that can"
            )
            raise SettingsError(message) from error

    def run_id(self) -> str:
        """Return the id of the backfill, which the plan got when it was made."""
        return str(orjson.loads((self.root / _STATE / "manifest.json").read())["id"])

    # The output

    def done(self) -> set[str]:
        """Return the names of the files of the blocks that are done."""
        found = (self.root / _VERDICTS).files()
        return {name for name in found if not name.startswith(TEMPORARY)}

    def is_done(self, block: Block) -> bool:
        """Return whether a block is done."""
        return self._file(block).is_file()

    def write(self, block: Block, outcome: Outcome) -> None:
        """Write a block's output. Raises OSError."""
        import pyarrow.parquet as pq

        # Dead letters first: once the verdicts are there, the block is not judged again.
        if outcome.letters:
            letters = _letters_table(outcome.letters)
            self._letters(block).write(lambda to: pq.write_table(letters, to))
        counts = orjson.dumps(outcome.counts.describe())
        verdicts = _verdicts_table(outcome.verdicts).replace_schema_metadata({_COUNTS: counts})
        self._file(block).write(lambda to: pq.write_table(verdicts, to, compression="zstd"))

    def note_try(self, block: Block) -> int:
        """Note that a block is begun, and return how often that was in this run."""
        folder = self.root / _TRIES
        (folder / f"{block.file_name}-{secrets.token_hex(4)}").write_bytes(b"")
        return sum(name.startswith(block.file_name) for name in folder.files())

    def forget_tries(self, block: Block | None = None) -> None:
        """Forget the notes of a block that is done; of all blocks at the start of a run."""
        folder = self.root / _TRIES
        for name in folder.files():
            if block is None or name.startswith(block.file_name):
                (folder / name).delete()

    def read(self, block: Block) -> list[Keyed]:
        """Return the verdicts of a block that is done."""
        import pyarrow.parquet as pq

        place = self._file(block)
        with place.system.open_input_file(place.path) as file:
            rows = pq.read_table(file, columns=["verdict", "key"]).to_pylist()
        return [Keyed(orjson.loads(row["verdict"]), row["key"]) for row in rows]

    def read_letters(self, block: Block) -> list[dict[str, Any]]:
        """Return the dead letters of a block, as the columns of their file."""
        import pyarrow.parquet as pq

        place = self._letters(block)
        if not place.is_file():
            return []
        with place.system.open_input_file(place.path) as file:
            letters: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return letters

    def counts(self, blocks: Sequence[Block]) -> Iterator[tuple[Block, Counts]]:
        """Yield each block's counts, as its files hold them.

        Raises:
            OperatorError: a block is missing, or its files do not hold what they say.
        """
        import pyarrow.parquet as pq

        for block in blocks:
            place = self._file(block)
            if not place.is_file():
                message = (
                    f"{place}: is missing; run the same command again, which judges the block again"
                )
                raise OperatorError(message)
            with place.system.open_input_file(place.path) as file:
                found = pq.read_metadata(file)
            counts = Counts.of(orjson.loads(found.metadata[_COUNTS]))
            letters = self._letters(block)
            written = 0
            if counts.letters and letters.is_file():
                with letters.system.open_input_file(letters.path) as file:
                    written = pq.read_metadata(file).num_rows
            if (found.num_rows, written) != (counts.verdicts, counts.letters):
                message = (
                    f"{place}: holds {found.num_rows} verdicts and {written} dead letters, and was written with "
                    f"{counts.verdicts} and {counts.letters}; delete it and run the same command again"
                )
                raise OperatorError(message)
            yield block, counts

    # What is in the topic

    def published(self) -> dict[str, int]:
        """Return what an earlier run noted of what is in the topic; empty where there is nothing."""
        place = self.root / _STATE / "published.json"
        return dict(orjson.loads(place.read())) if place.is_file() else {}

    def note_published(self, counts: Mapping[str, int]) -> None:
        """Note what is in the topic now."""
        (self.root / _STATE / "published.json").write_bytes(orjson.dumps(dict(counts)))

    def clean(self) -> None:
        """Delete what killed actors left unfinished; call it when all blocks are done."""
        for folder in (_VERDICTS, _LETTERS, _STATE):
            for name in (self.root / folder).files():
                if name.startswith(TEMPORARY):
                    (self.root / folder / name).delete()


def _verdicts_table(keyed: Sequence[Keyed]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return verdicts as a table: what people filter and count by, and the whole verdict as JSON."""
    import pyarrow as pa

    verdicts = [one.verdict for one in keyed]
    text, number = pa.string(), pa.int64()
    places = {
        "id": (text, ("id",)),
        "decision": (text, ("decision",)),
        "action": (text, ("action",)),
        "needs_review": (pa.bool_(), ("needs_review",)),
        "category": (text, ("policy", "category")),
        "severity": (text, ("policy", "severity")),
        "policy_id": (text, ("policy", "id")),
        "policy_version": (text, ("policy", "version")),
        "content_id": (text, ("content", "id")),
        "tenant": (text, ("content", "tenant")),
        "topic": (text, ("source", "topic")),
        "partition": (number, ("source", "partition")),
        "offset": (number, ("source", "offset")),
        "tier": (text, ("provenance", "tier")),
    }
    columns = {
        name: pa.array([_at(v, way) for v in verdicts], kind)
        for name, (kind, way) in places.items()
    }
    columns["key"] = pa.array([one.key for one in keyed], pa.binary())
    columns["verdict"] = pa.array([orjson.dumps(v).decode() for v in verdicts], text)
    return pa.table(columns)


def _at(verdict: dict[str, Any], way: Sequence[str]) -> Any:  # noqa: ANN401 - any JSON value
    found: Any = verdict
    for name in way:
        found = found[name]
    return found


def _letters_table(letters: Sequence[Letter]) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    rows = [
        {
            "topic": one.record.topic,
            "partition": one.record.partition,
            "offset": one.record.offset,
            "timestamp_ms": one.record.timestamp,
            "reason": one.reason,
            "stage": one.stage,
            "message": one.message,
            "policy": one.policy,
            "key": one.record.key,
            "value": one.record.value,
        }
        for one in letters
    ]
    kinds = {
        **dict.fromkeys(("topic", "reason", "stage", "message", "policy"), pa.string()),
        **dict.fromkeys(("partition", "offset", "timestamp_ms"), pa.int64()),
        **dict.fromkeys(("key", "value"), pa.binary()),
    }
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, kinds[name]) for name in rows[0]]))
