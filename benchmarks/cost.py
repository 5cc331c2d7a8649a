"""Counts what a record costs: calls, bytes while it is in flight, and blocks that stay. Measures no time.

A busy machine counts the same as an idle one. Another version of Python or of a library may count differently.

Calls of Python and C functions are counted. Each is charged to the stage of the nearest function of this project
that caused it, so the work of a library counts where it was requested. Calls of the test doubles are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import inspect
import sys
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import stream_guard
from benchmarks import cost_path
from benchmarks.cost_path import POLL_RECORDS, VARIANTS, HotPath, Variant
from stream_guard.records.verdict_event import VerdictEvents, encode_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import CodeType, FrameType

RECORDS: Final = 2_000
WARM_UP: Final = 1_000
DOUBLES: Final = "doubles"
# Frames kept of an allocation: enough to come from a library to the function of ours that asked.
_FRAMES: Final = 16
_ROOT: Final = str(Path(stream_guard.__file__).parent) + "/"
_STAGES: Final = {
    "core/json_pointer": "route",
    "judging": "judge",
    "judging/reasoning_event": "verdict",
    "judging/verdict": "verdict",
    "policies": "route",
    "records/cloud_event": "parse",
    "records/field_values": "parse",
    "records/json_document": "parse",
    "records/post": "parse",
    "records/post_conditions": "parse",
    "records/thread": "parse",
    "records/verdict_event": "verdict",
    "stream/admission": "offsets",
    "stream/batching": "batch",
    "stream/dead_letter_gate": "dead_letter_gate",
    "stream/dead_letter_limits": "dead_letter_limits",
    "stream/in_flight": "pipeline",
    "stream/lane_in_flight": "pipeline",
    "stream/lanes": "pipeline",
    "stream/offsets": "offsets",
    "stream/judgement_counts": "pipeline",
    "stream/outgoing": "pipeline",
    "stream/live_records": "pipeline",
    "stream/pipeline": "pipeline",
    "stream/retractions": "pipeline",
    "stream/topic_routes": "pipeline",
    "stream/tracing": "trace",
    "telemetry": "trace",
    "telemetry/bulk_histogram": "metrics",
    "telemetry/metrics": "metrics",
    "telemetry/top_gauge": "metrics",
    "testing": DOUBLES,
}
"""By module, or the nearest package above it; a module that has neither is a stage of its own name."""


def _lines(what: Any) -> range:
    lines, first = inspect.getsourcelines(what)
    return range(first, first + len(lines))


_ENCODE_LINES: Final = (_lines(VerdictEvents), _lines(encode_verdict))
_VERDICT_FILE: Final = inspect.getsourcefile(VerdictEvents)


@dataclass(slots=True)
class Cost:
    """The counts over some records, by stage and by place (module and function, or line).

    Attributes:
        records: how many.
        unit: of the counts.
        places: counts by stage and place.
    """

    records: int
    unit: Literal["calls", "bytes"]
    places: Counter[tuple[str, str]] = field(default_factory=Counter)

    def stages(self) -> dict[str, float]:
        """Return the counts per record by stage, the largest first."""
        totals: Counter[str] = Counter()
        for (stage, _), count in self.places.items():
            totals[stage] += count
        return {stage: count / self.records for stage, count in totals.most_common()}

    def total(self) -> float:
        """Return the count per record."""
        return self.places.total() / self.records

    def top(self, stage: str | None = None, count: int = 10) -> str:
        """Return the costliest places, of one stage or of all, a line each."""
        chosen = Counter({p: n for p, n in self.places.items() if stage in (None, p[0])})
        return "\n".join(
            f"  {number / self.records:10.2f} {self.unit}/record  {stage_:<12} {place}"
            for (stage_, place), number in chosen.most_common(count)
        )

    def above(self, bounds: Mapping[str, float]) -> str:
        """Return which stages cost more than their bounds per record, and where; empty where none does."""
        lines = []
        for stage, each in self.stages().items():
            if stage not in bounds:
                lines.append(f"{stage}: {each:.2f} {self.unit}/record, and no bound: give it one")
            elif each > bounds[stage]:
                lines.append(
                    f"{stage}: {each:.2f} {self.unit}/record, above its bound of {bounds[stage]:g}"
                )
            else:
                continue
            lines.append(self.top(stage))
        return "\n".join(lines)


async def count_calls(path: HotPath) -> Cost:
    """Return the calls of :data:`RECORDS` records after a warm-up."""
    await path.take(path.make(WARM_UP))
    records = path.make(RECORDS)
    made: Counter[tuple[str, CodeType | str]] = Counter()
    known: dict[CodeType, str | None] = {}

    def called(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            made[_stage_of(frame, known), frame.f_code] += 1
        elif event == "c_call":
            made[_stage_of(frame, known), argument.__qualname__] += 1

    before = sys.getprofile()
    with _still_heap():
        sys.setprofile(called)
        try:
            await path.take(records)
        finally:
            sys.setprofile(before)
    cost = Cost(RECORDS, "calls")
    for (stage, what), number in made.items():
        if stage != DOUBLES:
            place = f"{what}()" if isinstance(what, str) else _place(what)
            cost.places[stage, place] += number
    return cost


async def count_bytes(path: HotPath) -> Cost:
    """Return the bytes that records hold between their verdicts and the acknowledgement, their own left out."""
    await path.take(path.make(WARM_UP))
    records = path.make(POLL_RECORDS)
    with _still_heap():
        tracemalloc.start(_FRAMES)
        try:
            await path.take(records, acknowledge=False)
            snapshot = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
    path.publisher.acknowledge()
    path.check()
    cost = Cost(POLL_RECORDS, "bytes")
    for one in snapshot.statistics("traceback"):
        for frame in reversed(one.traceback):  # the most recent first
            stage = _stage(frame.filename, frame.lineno)
            if stage is not None:
                if stage != DOUBLES:
                    cost.places[stage, f"{_module(frame.filename)}:{frame.lineno}"] += one.size
                break
    return cost


async def count_blocks(path: HotPath) -> tuple[float, int]:
    """Return what stays behind between N records and 2N.

    The collector is off meanwhile; Python's own lists of free objects, which are bounded, are emptied before a count.

    Returns:
        Blocks of memory per record, and how many objects only the collector could free: cycles.
    """
    await path.take(path.make(WARM_UP))
    after, cycles = [], 0
    with _still_heap():
        for _ in range(2):
            await path.take(path.make(RECORDS))
            cycles += gc.collect()
            after.append(sys.getallocatedblocks())
    return (after[1] - after[0]) / RECORDS, cycles


@contextlib.contextmanager
def _still_heap() -> Iterator[None]:
    """Keep the garbage collector from running, and leave it as it was."""
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()


def _stage_of(frame: FrameType, known: dict[CodeType, str | None]) -> str:
    """Return the stage of the nearest function of ours, at or above a frame."""
    at: FrameType | None = frame
    while at is not None:
        code = at.f_code
        if code not in known:
            known[code] = _stage(code.co_filename, code.co_firstlineno)
        stage = known[code]
        if stage is not None:
            return stage
        at = at.f_back
    return DOUBLES


def _stage(filename: str, line: int) -> str | None:
    """Return the stage that a line of code belongs to; None of a library's."""
    if filename in (__file__, cost_path.__file__):
        return DOUBLES
    if not filename.startswith(_ROOT):
        return None
    if filename == _VERDICT_FILE and any(line in lines for lines in _ENCODE_LINES):
        return "encode"  # beside what builds a verdict, in the same module
    module = filename.removeprefix(_ROOT).removesuffix(".py")
    place = module
    while place:
        if place in _STAGES:
            return _STAGES[place]
        place = place.rpartition("/")[0]
    return module


def _module(filename: str) -> str:
    """Return a file's path from the folder that our package or the library is in."""
    if filename.startswith(_ROOT):
        return filename.removeprefix(_ROOT)
    return "/".join(filename.split("/")[-2:])


def _place(code: CodeType) -> str:
    return f"{_module(code.co_filename)} {code.co_qualname}"


async def _table(variant: Variant) -> str:
    async with HotPath(variant) as path:
        calls = await count_calls(path)
        held = await count_bytes(path)
        stay, cycles = await count_blocks(path)
    lines = [
        f"### {variant}",
        "",
        "| stage | calls per record | bytes per record in flight |",
        "| --- | ---: | ---: |",
    ]
    by_calls, by_bytes = calls.stages(), held.stages()
    lines += [
        f"| {stage} | {by_calls.get(stage, 0):.1f} | {by_bytes.get(stage, 0):,.0f} |"
        for stage in dict.fromkeys([*by_calls, *by_bytes])
    ]
    lines += [
        f"| **all** | {calls.total():.1f} | {held.total():,.0f} |",
        "",
        f"Blocks that stay behind after a record: {stay:.2f}; objects left to the garbage collector: {cycles}",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Print a table for each variant that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", choices=[*VARIANTS, []], metavar="VARIANT")
    variants = parser.parse_args().variants or VARIANTS
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"{RECORDS} records, Python {version}; counted, not timed\n")
    for variant in variants:
        print(asyncio.run(_table(variant)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
