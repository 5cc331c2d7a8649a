"""Log lines: a trace in each, no variables of a traceback, and no flood of the same."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Literal

import pytest
import structlog
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span

from stream_guard.settings import TelemetrySettings
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.logs import configure_logs
from stream_guard.telemetry.repeats import RepeatFilter

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = "Zebra-77"


@pytest.fixture
def _as_it_was() -> Iterator[None]:
    root, aiokafka = logging.getLogger(), logging.getLogger("aiokafka")
    before = root.handlers[:], root.level, aiokafka.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    aiokafka.setLevel(before[2])
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def fail_over(text: str) -> None:
    raise ValueError(f"of {len(text)} characters")


@pytest.mark.usefixtures("_as_it_was")
def test_each_line_names_the_run_or_the_span_or_the_record(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs(TelemetrySettings(log_format="json"))
    log = structlog.get_logger("a")
    with Tracing(TelemetrySettings(), group="g").run():
        log.info("one")
        logging.getLogger("other").warning("two")
        log.info("three", trace_id="f" * 32)
        with use_span(NonRecordingSpan(SpanContext(7, 8, is_remote=False))):
            log.info("four")
    one, two, three, four = lines(capsys)
    assert one["trace_id"] == two["trace_id"]
    assert int(one["trace_id"], 16)
    assert three["trace_id"] == "f" * 32
    assert (four["trace_id"], four["span_id"]) == (f"{7:032x}", f"{8:016x}")


@pytest.mark.usefixtures("_as_it_was")
def test_a_person_at_a_terminal_reads_no_ids_of_traces(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(TelemetrySettings(log_format="console"))
    with Tracing(TelemetrySettings(), group="g").run():
        structlog.get_logger("a").info("one", trace_id="f" * 32, topic="posts")
        logging.getLogger("other").warning("two")
    shown = capsys.readouterr().err
    assert "posts" in shown
    assert "two" in shown
    assert "trace_id" not in shown
    assert "span_id" not in shown


@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_variables(
    capsys: pytest.CaptureFixture[str], log_format: Literal["json", "console"]
) -> None:
    configure_logs(TelemetrySettings(log_format=log_format))
    for name in ("asyncio", "own"):
        try:
            fail_over(WORDS)
        except ValueError:
            if name == "own":
                structlog.get_logger(name).exception("it_failed")
            else:
                logging.getLogger(name).exception("it failed")
    shown = capsys.readouterr().err
    assert shown.count("fail_over") >= 2
    assert WORDS not in shown


@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_the_client_never_logs_what_it_sends(level: Literal["debug", "info", "warning"]) -> None:
    configure_logs(TelemetrySettings(log_level=level))
    assert not logging.getLogger("aiokafka.conn").isEnabledFor(logging.DEBUG)


class Clock:
    """Stands still until it is told."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def record(message: object, level: int = logging.WARNING, *args: object) -> logging.LogRecord:
    return logging.LogRecord("a", level, "", 0, message, args, None)


def test_repeats_are_held_back_and_counted() -> None:
    clock = Clock()
    repeats = RepeatFilter(2, clock)
    shown = [repeats.filter(record({"event": "commit_failed", "n": n})) for n in range(5)]
    assert shown == [True, True, False, False, False]
    assert repeats.filter(record({"event": "another"}))
    clock.now_s = 60
    after = record({"event": "commit_failed"})
    assert repeats.filter(after)
    assert after.msg == {"event": "commit_failed", "suppressed": 3}


def test_lines_of_other_libraries_are_told_apart_by_their_pattern() -> None:
    clock = Clock()
    repeats = RepeatFilter(1, clock)
    shown = [repeats.filter(record("broker %d is away", logging.WARNING, n)) for n in range(3)]
    assert shown == [True, False, False]
    clock.now_s = 60
    after = record("broker %d is away", logging.WARNING, 4)
    assert repeats.filter(after)
    assert after.getMessage() == "broker 4 is away (2 more were suppressed)"


def test_a_critical_line_is_always_shown_and_zero_holds_nothing_back() -> None:
    repeats = RepeatFilter(1, Clock())
    assert all(repeats.filter(record({"event": "stalled"}, logging.CRITICAL)) for _ in range(3))
    assert all(RepeatFilter(0, Clock()).filter(record("x")) for _ in range(3))


def test_kinds_are_counted_in_bounded_space() -> None:
    repeats = RepeatFilter(1, Clock())
    for n in range(3_000):
        repeats.filter(record(f"a message with {n} in it"))
    assert len(repeats._windows) == 1_000
