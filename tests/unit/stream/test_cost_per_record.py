"""What a record costs stays within bounds, by stage: calls, bytes in flight, blocks left behind. Nothing is timed.

A bound is about 1.5 times what was counted on Python 3.11, so that other versions pass and a stage that does its
work twice does not. Where one fails, the message says which functions grew; `make cost` prints the whole table.
Raise a bound only for what is worth its price on every record.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from benchmarks.cost import (
    RECORDS,
    Cost,
    count_blocks,
    count_bytes,
    count_calls,
    main,
)
from benchmarks.cost_path import VARIANTS, HotPath
from stream_guard.judging.tiers.cascade import Cascade
from stream_guard.records.post import PostParser
from stream_guard.records.verdict_event import VerdictEvents
from stream_guard.stream import outgoing
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.tracing.record_tracer import Tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.cost_path import Variant
    from stream_guard.judging.contract import Judgement, JudgeRequest

CALLS: Final[dict[str, float]] = {
    "parse": 26,
    "pipeline": 33,
    "verdict": 18,
    "encode": 12.2,
    "offsets": 15,
    "metrics": 4.8,
    "trace": 6,
    "batch": 4.5,
    "judge": 1.7,
    "route": 1.7,
    "dead_letter_gate": 0.5,
    "dead_letter_limits": 0.4,
}
CALLS_OF: Final[dict[Variant, dict[str, float]]] = {
    "plain": CALLS,
    "structured": CALLS | {"encode": 7.7},
    "traced": CALLS | {"trace": 15},
    "routed": CALLS | {"route": 60, "pipeline": 43},
    "cascade": CALLS | {"judge": 64},
    "lanes": CALLS | {"judge": 69, "pipeline": 39, "trace": 9},
}
BYTES: Final[dict[str, float]] = {
    "encode": 1_000,
    "verdict": 1_650,
    "parse": 980,
    "pipeline": 950,
    "judge": 200,
    "trace": 240,
    "route": 150,
    "offsets": 50,
}
SMALL_BYTES: Final = 20.0
"""For stages that hold nothing of a record; what they allot once is spread over the records."""
BYTES_OF: Final = dict.fromkeys(CALLS, SMALL_BYTES) | BYTES
BLOCKS_MAX: Final = 0.05
"""About 0.01 was seen; one object kept of each record makes 1."""
BLOCKS_MAX_OF: Final[dict[Variant, float]] = {"lanes": 0.3}
"""The tenants that get the most are shown, and what is kept to know them goes up and down."""


def twice(function: Callable[..., object]) -> Callable[..., object]:
    """Return a function that does its work twice."""

    def done_twice(*arguments: object, **named: object) -> object:
        function(*arguments, **named)
        return function(*arguments, **named)

    return done_twice


@pytest.mark.parametrize("variant", VARIANTS)
async def test_no_stage_makes_more_calls_per_record_than_its_bound(variant: Variant) -> None:
    async with HotPath(variant) as path:
        cost = await count_calls(path)
    assert not cost.above(CALLS_OF[variant]), cost.above(CALLS_OF[variant])


@pytest.mark.parametrize("variant", VARIANTS)
async def test_no_stage_holds_more_bytes_per_record_than_its_bound(variant: Variant) -> None:
    async with HotPath(variant) as path:
        cost = await count_bytes(path)
    assert not cost.above(BYTES_OF), cost.above(BYTES_OF)


@pytest.mark.parametrize("variant", VARIANTS)
async def test_nothing_stays_behind_after_a_record(variant: Variant) -> None:
    async with HotPath(variant) as path:
        blocks, cycles = await count_blocks(path)
    assert blocks < BLOCKS_MAX_OF.get(variant, BLOCKS_MAX)
    assert cycles == 0


async def test_equal_runs_count_equal_calls() -> None:
    counted = []
    for _ in range(2):
        async with HotPath() as path:
            counted.append((await count_calls(path)).places)
    assert counted[0] == counted[1]


def make_dear(monkeypatch: pytest.MonkeyPatch, owner: object, *names: str) -> None:
    for name in names:
        monkeypatch.setattr(owner, name, twice(getattr(owner, name)))


async def calls_above(variant: Variant = "plain") -> str:
    async with HotPath(variant) as path:
        return (await count_calls(path)).above(CALLS_OF[variant])


async def test_a_parser_that_works_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make_dear(monkeypatch, PostParser, "parse")
    message = await calls_above()
    assert message.startswith("parse: ")
    assert "post.py PostParser.parse" in message


async def test_an_encoder_that_works_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make_dear(monkeypatch, VerdictEvents, "encode")
    message = await calls_above()
    assert message.startswith("encode: ")
    assert "verdict_event.py VerdictEvents.encode" in message


async def test_a_verdict_that_is_built_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make_dear(monkeypatch, outgoing, "build_verdict")
    assert (await calls_above()).startswith("verdict: ")


async def test_traces_that_work_twice_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make_dear(monkeypatch, Tracing, "begin", "keep_verdict", "sent")
    assert (await calls_above("traced")).startswith("trace: ")


async def test_a_cascade_that_walks_its_tiers_twice_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit = Cascade.submit

    def submit_twice(
        self: Cascade,
        requests: Sequence[JudgeRequest],
        deliver: Callable[[Sequence[Judgement]], None],
    ) -> None:
        submit(self, [replace(r, id=f"{r.id}-again") for r in requests], lambda _: None)
        submit(self, requests, deliver)

    monkeypatch.setattr(Cascade, "submit", submit_twice)
    assert (await calls_above("cascade")).startswith("judge: ")


async def test_what_is_held_twice_in_flight_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[object] = []
    encode = VerdictEvents.encode

    def hold(self: VerdictEvents, verdict: dict[str, Any], traceparent: str, avro: None) -> object:
        held.append(encode(self, verdict, traceparent, avro))
        return encode(self, verdict, traceparent, avro)

    monkeypatch.setattr(VerdictEvents, "encode", hold)
    async with HotPath() as path:
        cost = await count_bytes(path)
    assert "encode: " in cost.above(BYTES_OF)


async def test_what_is_kept_of_a_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    finish = PartitionOffsets.finish

    def keep(self: PartitionOffsets, offset: int) -> None:
        kept.append(object())
        finish(self, offset)

    monkeypatch.setattr(PartitionOffsets, "finish", keep)
    async with HotPath() as path:
        blocks, _ = await count_blocks(path)
    assert blocks > BLOCKS_MAX


async def test_a_cycle_in_a_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = PartitionOffsets.finish

    def tie(self: PartitionOffsets, offset: int) -> None:
        knot: list[object] = []
        knot.append(knot)
        finish(self, offset)

    monkeypatch.setattr(PartitionOffsets, "finish", tie)
    async with HotPath() as path:
        _, cycles = await count_blocks(path)
    assert cycles >= RECORDS


def test_a_stage_without_a_bound_is_found() -> None:
    cost = Cost(1, "calls", Counter({("new_stage", "new_stage.py work"): 1}))
    assert cost.above(CALLS).startswith("new_stage: 1.00 calls/record, and no bound")


async def test_records_that_do_not_come_out_are_not_counted() -> None:
    async with HotPath() as path:
        await path.take(path.make(1), acknowledge=False)
        with pytest.raises(RuntimeError, match="1 records in and 0 verdicts out"):
            path.check()


def test_the_command_prints_each_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["cost", "plain"])
    assert main() == 0
    printed = capsys.readouterr().out
    assert [stage for stage in CALLS if f"| {stage} |" not in printed] == []
    assert "objects left to the garbage collector: 0" in printed
