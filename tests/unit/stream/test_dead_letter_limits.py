"""Limits on dead letters: counted right, tripped at the record that is one too many, and nothing lost by it."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from stream_guard.core.errors import PromptError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.core.kafka_types import Partition
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import PostParser
from stream_guard.settings import DeadLetterSettings, Settings, load_settings
from stream_guard.stream.dead_letter_gate import AT_ONCE
from stream_guard.stream.dead_letter_limits import DeadLetterLimits, LimitTrip
from stream_guard.stream.offsets import PartitionOffsets
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import (
    ManualClock,
    ManualJudge,
    MemoryBroker,
    MemoryPublisher,
    MemoryRecord,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACE = Partition("posts", 0)


def limits(**changes: Any) -> DeadLetterLimits:  # noqa: ANN401 - settings
    return DeadLetterLimits(DeadLetterSettings(**changes), "parse")


def fail(counted: DeadLetterLimits, count: int, now_s: float = 0.0) -> LimitTrip | None:
    """Count failures until one trips; return what it says."""
    for _ in range(count):
        trip = counted.failed("json", now_s)
        if trip is not None:
            return trip
    return None


# The pure part


def test_as_many_in_a_row_as_the_limit_are_fine_and_one_more_is_not() -> None:
    counted = limits(consecutive_max=3)
    assert fail(counted, 3) is None
    trip = counted.failed("encoding", 0.0)
    assert trip is not None
    assert (trip.setting, trip.limit, trip.consecutive) == ("dead_letters.consecutive_max", 3, 4)
    assert trip.failures == {"json": 3, "encoding": 1}


def test_one_success_ends_a_row() -> None:
    counted = limits(consecutive_max=3, share_max=1)
    for _ in range(50):
        assert fail(counted, 3) is None
        counted.passed(1, 0.0)
    assert counted.consecutive == 0


def test_no_success_ends_no_row() -> None:
    counted = limits(consecutive_max=3)
    fail(counted, 3)
    counted.passed(0, 0.0)
    assert counted.failed("json", 0.0) is not None


def test_zero_and_one_are_no_limits() -> None:
    counted = limits(consecutive_max=0, share_max=1)
    assert fail(counted, 10_000) is None
    assert counted.share == 1.0


def test_the_share_trips_above_its_limit_and_not_at_it() -> None:
    counted = limits(consecutive_max=0, share_max=0.5, window_records=100, window_records_min=10)
    counted.passed(10, 0.0)
    assert fail(counted, 10) is None
    trip = counted.failed("json", 0.0)
    assert trip is not None
    assert (trip.setting, trip.records, trip.failures) == (
        "dead_letters.share_max",
        21,
        {"json": 11},
    )


def test_few_records_say_nothing_about_the_share() -> None:
    counted = limits(consecutive_max=0, share_max=0.1, window_records_min=10)
    assert fail(counted, 9) is None
    assert fail(counted, 1) is not None


def test_records_leave_the_window_by_their_number() -> None:
    counted = limits(consecutive_max=0, share_max=0.5, window_records=10, window_records_min=10)
    counted.passed(1_000_000, 0.0)
    assert fail(counted, 5) is None, "a million successes were forgotten but for five"
    assert fail(counted, 1) is not None


def test_records_leave_the_window_by_their_age() -> None:
    counted = limits(consecutive_max=0, share_max=0.5, window_s=60, window_records_min=1)
    counted.passed(100, 0.0)
    assert fail(counted, 1, 60.0) is None
    assert fail(counted, 1, 60.5) is not None


def test_the_window_counts_as_a_plain_list_does() -> None:
    seeded = random.Random(7)  # noqa: S311 - seeded on purpose
    settings = DeadLetterSettings(
        consecutive_max=0, share_max=1, window_records=50, window_records_min=1, window_s=9
    )
    counted, plain, now_s = DeadLetterLimits(settings, "parse"), list[tuple[float, bool]](), 0.0
    for _ in range(3_000):
        now_s += seeded.choice((0, 0, 0, 0.5, 4))
        failed, count = seeded.random() < 0.4, seeded.randint(1, 20)
        if failed:
            fail(counted, count, now_s)
        else:
            counted.passed(count, now_s)
        plain = [one for one in plain + [(now_s, failed)] * count if one[0] >= now_s - 9][-50:]
        assert counted.share == pytest.approx(sum(bad for _, bad in plain) / len(plain))
        assert counted._records == len(plain)
        assert len(counted._runs) <= 50


def test_the_message_names_counts_setting_and_remedy() -> None:
    counted = limits(consecutive_max=2)
    trip = fail(counted, 3)
    assert trip is not None
    for words in ("3 records in a row", "json 3", "dead_letters.consecutive_max is 2", "post.*"):
        assert words in trip.message()
    assert "\n" not in trip.message()


def test_a_window_too_small_for_the_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_GUARD_DEAD_LETTERS__WINDOW_RECORDS", "100")
    with pytest.raises(Exception, match="window_records_min must not exceed window_records"):
        load_settings()


# In the pipeline


class Line:
    """A pipeline over one partition, with a judge, a publisher and a clock of the test's own."""

    def __init__(self, *slugs: str, **changes: Any) -> None:  # noqa: ANN401 - settings
        self.settings = Settings(dead_letters=DeadLetterSettings(**changes))
        self.clock = ManualClock()
        self.judge = ManualJudge(self.clock)
        self.broker = MemoryBroker()
        self.broker.create_topics("stream-guard.verdicts", "stream-guard.dead-letters")
        self.publisher = MemoryPublisher(self.broker, manual=True)
        self.registry = CollectorRegistry()
        self.offsets = PartitionOffsets(PLACE, 1)
        policies = {slug: make_policy(slug, b"# x\nS1: a rule\n") for slug in slugs or ("a",)}
        self.pipeline = Pipeline(
            self.settings,
            PolicySet(policies, {"posts": tuple(policies)}),
            parser=PostParser(self.settings.post),
            judge=self.judge,
            publisher=self.publisher,
            clock=self.clock,
            metrics=Metrics(self.registry),
            tracing=Tracing(self.settings.telemetry, group="g"),
        )
        self.next = 0

    def read(self, marks: str) -> None:
        """Accept a record for each mark: ``x`` is malformed, ``.`` is a post."""
        records: Sequence[MemoryRecord] = [
            MemoryRecord(
                "posts",
                0,
                self.next + n,
                value=b"{" if mark == "x" else orjson.dumps({"id": str(n), "text": "t"}),
            )
            for n, mark in enumerate(marks)
        ]
        self.next += len(marks)
        self.pipeline.accept(self.offsets, records)

    def settle(self) -> None:
        """Have everything judged and acknowledged that may be."""
        self.pipeline.dispatch(flush=True)
        self.judge.answer()
        self.publisher.acknowledge()

    @property
    def letters(self) -> list[int]:
        """The offsets in the dead-letter topic."""
        records = self.broker.records("stream-guard.dead-letters")
        return [int(dict(record.headers)["sg_offset"]) for record in records]


async def test_the_failure_that_is_one_too_many_is_neither_written_nor_passed() -> None:
    line = Line(consecutive_max=2)
    line.read("..xx")
    line.settle()
    assert line.pipeline.dead_letters.trip is None
    line.read("x..")
    line.settle()
    error = await line.pipeline.dead_letters.wait_tripped()
    assert error.exit_code == ExitCode.LIMIT
    assert line.letters == [2, 3]
    assert line.offsets.position() == 4, "the record that tripped it is read again"
    assert line.pipeline.live.unfinished([PLACE]) == 0, "nothing keeps a drain waiting"
    assert line.pipeline.admission.records == line.pipeline.admission.bytes == 0


async def test_after_a_limit_nothing_more_is_taken() -> None:
    line = Line(consecutive_max=1)
    line.read("xx")
    line.read("....")
    line.settle()
    assert line.letters == [0]
    assert line.offsets.position() == 1
    assert not line.judge.waiting
    assert line.broker.records("stream-guard.verdicts") == []


async def test_posts_that_were_read_before_a_limit_still_get_their_verdicts() -> None:
    line = Line(consecutive_max=1)
    line.read("...xx.")
    assert line.pipeline.dead_letters.trip is not None
    line.settle()
    assert len(line.broker.records("stream-guard.verdicts")) == 3
    assert line.offsets.position() == 4


async def test_a_backlog_of_malformed_records_writes_the_first_few_and_no_more() -> None:
    line = Line(consecutive_max=500)
    for _ in range(5):
        line.read("x" * 100)
    assert line.pipeline.dead_letters.trip is None
    line.read("x")
    assert line.pipeline.dead_letters.trip is not None
    line.settle()
    assert line.letters == list(range(AT_ONCE))
    assert line.offsets.position() == AT_ONCE
    assert line.pipeline.admission.records == 0


async def test_what_is_held_is_written_once_a_record_passes() -> None:
    line = Line()
    line.read("x" * 50)
    assert len(line.publisher.pending) == AT_ONCE
    line.read(".")
    assert len(line.publisher.pending) == 50
    line.settle()
    assert line.offsets.position() == 51


async def test_what_is_held_is_written_after_its_time() -> None:
    line = Line(hold_ms=1_000)
    line.read("x" * 50)
    assert line.pipeline.next_due_s() == 1.0
    line.clock.advance(0.999)
    line.pipeline.dispatch()
    assert len(line.publisher.pending) == AT_ONCE
    line.clock.advance(0.001)
    line.pipeline.dispatch()
    assert len(line.publisher.pending) == 50
    assert line.pipeline.next_due_s() is None


async def test_a_drain_writes_what_is_held() -> None:
    line = Line()
    line.read("x" * 50)
    line.pipeline.dispatch(flush=True)
    assert len(line.publisher.pending) == 50


async def test_failures_at_the_judge_are_counted_by_themselves() -> None:
    line = Line(consecutive_max=2)
    line.read("xx....")
    line.pipeline.dispatch(flush=True)
    waiting = list(line.judge.waiting)
    line.judge.answer(waiting[:2], error=PromptError("too long"))
    line.read("x")
    assert line.pipeline.dead_letters.trip is None, "three in a row of neither kind"
    line.judge.answer(waiting[2:3], error=PromptError("too long"))
    trip = line.pipeline.dead_letters.trip
    assert trip is not None
    assert (trip.stage, trip.failures) == ("judge", {"prompt": 3})
    assert "engine.max_model_len" in trip.message()
    line.settle()
    assert line.letters == [0, 1, 2, 3, 6]
    assert line.offsets.position() == 4
    assert line.pipeline.live.unfinished([PLACE]) == 0


async def test_a_record_given_up_takes_its_other_policies_with_it() -> None:
    line = Line("a", "b", consecutive_max=1)
    line.read("..")
    line.pipeline.dispatch(flush=True)
    line.judge.answer([r for r in line.judge.waiting if r.policy.id == "a"], error=PromptError("p"))
    assert line.pipeline.dead_letters.trip is not None
    assert len(line.judge.waiting) == 1, "what the second record asked of b was cancelled"
    line.settle()
    assert line.letters == [0]
    assert line.offsets.position() == 1


async def test_shares_rows_and_stops_are_shown() -> None:
    line = Line(consecutive_max=2)
    line.read(".xx")
    value = line.registry.get_sample_value
    assert value("stream_guard_dead_letter_share", {"stage": "parse"}) == pytest.approx(2 / 3)
    assert value("stream_guard_dead_letter_consecutive", {"stage": "parse"}) == 2
    line.read("x")
    labels = {"stage": "parse", "setting": "dead_letters.consecutive_max"}
    assert value("stream_guard_dead_letter_limit_stops_total", labels) == 1


async def test_a_long_key_is_a_dead_letter() -> None:
    line = Line()
    value = orjson.dumps({"id": "1", "text": "t"})
    records = [
        MemoryRecord("posts", 0, n, key=b"k" * size, value=value)
        for n, size in enumerate((4_096, 4_097))
    ]
    line.pipeline.accept(line.offsets, records)
    line.settle()
    assert line.letters == [1]


async def test_keys_and_headers_count_as_bytes_in_flight() -> None:
    line = Line()
    headers: Any = [("h", b"x" * 1_000_000), ("null", None)]
    line.pipeline.accept(
        line.offsets, [MemoryRecord("posts", 0, 0, key=b"k" * 1_000, value=b"{", headers=headers)]
    )
    assert 1_001_000 < line.pipeline.admission.bytes < 1_002_000
    line.settle()
    assert line.pipeline.admission.bytes == 0


@pytest.mark.parametrize("seed", range(200))
async def test_whatever_the_order_nothing_is_lost(seed: int) -> None:
    """Starts over and over where it stopped: each record below the end is written, and counted limits hold."""
    seeded = random.Random(seed)  # noqa: S311 - seeded on purpose
    marks = "".join(
        seeded.choice("x.") * seeded.randint(1, seeded.choice((3, 40))) for _ in range(20)
    )
    line = Line(
        consecutive_max=seeded.randint(1, 30),
        share_max=seeded.choice((0.3, 0.6, 1)),
        window_records_min=20,
    )
    at = 0
    while at < len(marks) and line.pipeline.dead_letters.trip is None:
        count = seeded.randint(1, 30)
        line.read(marks[at : at + count])
        at += count
        if seeded.random() < 0.5:
            line.clock.advance(seeded.random())
            line.pipeline.dispatch()
    line.settle()
    position = line.offsets.position()
    assert position is not None
    verdicts = line.broker.records("stream-guard.verdicts")
    done = Counter(orjson.loads(r.value or b"")["source"]["offset"] for r in verdicts)
    done.update(line.letters)
    assert all(done[offset] == 1 for offset in range(position)), "lost, or written twice"
    assert position == len(marks) or marks[position] == "x"
    assert line.pipeline.live.unfinished([PLACE]) == 0
