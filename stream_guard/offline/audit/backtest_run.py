"""Runs a backtest: reads past records from the broker and judges them under a new policy.

It never joins a consumer group, commits an offset or writes to a topic of the live service. Its
verdicts have the route mode ``shadow``, so that no consumer acts on them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stream_guard.core.errors import OperatorError, RecordError
from stream_guard.judging.verdict import build_verdict
from stream_guard.kafka.ranges import RangeReader
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.kafka.registry.written import open_verdicts
from stream_guard.offline.audit.audit_judge import AuditJudge
from stream_guard.offline.audit.backtest import Outcome, Report
from stream_guard.offline.audit.replay_run import read_verdict
from stream_guard.policies.policy import PolicySet
from stream_guard.policies.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.judging.contract import Judge
    from stream_guard.kafka.bounds import Bound
    from stream_guard.kafka.ranges import Spans
    from stream_guard.kafka.registry.assembly import RecordParser
    from stream_guard.kafka.sinks import Sink
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

_CHUNK_RECORDS: Final = 1_024


@dataclass(slots=True, frozen=True)
class Plan:
    """Which records to judge, and by which policy.

    Attributes:
        policy: the new policy.
        topic: the records' topic.
        first, last: the range, by the records' times or offsets.
        against: id of the old policy; by default that of the new one.
        records_max: judge at most this many records; 0 for all.
        resume: whether the sink holds verdicts of an earlier run.
    """

    policy: Policy
    topic: str
    first: Bound | None = None
    last: Bound | None = None
    against: str | None = None
    records_max: int = 0
    resume: bool = False


async def backtest(
    settings: Settings,
    plan: Plan,
    sink: Sink,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    *,
    judge: Judge | None = None,
) -> Report:
    """Judge a range of records, and compare with the published verdicts.

    Args:
        settings: all sections.
        plan: which records, and by which policy.
        sink: receives the verdicts.
        progress: called with the offsets read and their total.
        judge: the model's judge; by default that of the settings.

    Raises:
        OperatorError: the range is empty, or the sink cannot be used.
        BrokerError: the broker does not answer, or a topic does not exist.
        EngineError: the engine does not start, or crashes.
    """
    policy = plan.policy
    async with RangeReader(settings.kafka, progress) as reader:
        spans = await reader.spans(plan.topic, plan.first, plan.last)
        if all(span.begin == span.end for span in spans.values()):
            message = (
                f"--from, --to: topic {plan.topic!r} has no record in that range; "
                "give times or offsets of its records"
            )
            raise OperatorError(message)
        report = Report(
            {"id": policy.id, "version": policy.version, "sha256": policy.sha256},
            plan.against or policy.id,
            plan.topic,
            {tp.partition: (span.begin, span.end) for tp, span in spans.items()},
        )
        async with sink:
            if plan.resume:
                await _take_written(report, sink, spans)
            policies = PolicySet.of({policy.id: policy}, Routing(default=(policy.id,)))
            async with AuditJudge(settings, policies, inner=judge) as audit:
                await _judge_all(settings, plan, report, reader, spans, audit, sink)
    # Read last, to include verdicts that the service published during the backtest.
    async with RangeReader(settings.kafka, progress) as reader, open_verdicts(settings) as reading:
        async for record in reader.read(await reader.whole(settings.kafka.verdict_topic)):
            verdict = await read_verdict(reading, record.value)
            if verdict is not None:
                report.add_old(verdict)
    return report


async def _take_written(report: Report, sink: Sink, spans: Spans) -> None:
    """Add the verdicts of an earlier run that are in the range and by the same policy."""
    limits = {tp.partition: span for tp, span in spans.items()}
    async for verdict in sink.written():
        source = verdict["source"]
        span = limits.get(source["partition"])
        if (
            source["topic"] == report.topic
            and verdict["policy"]["sha256"] == report.policy["sha256"]
            and span is not None
            and span.begin <= source["offset"] < span.end
        ):
            report.new[source["partition"], source["offset"]] = Outcome.of(verdict)
    report.resumed = len(report.new)


async def _judge_all(
    settings: Settings,
    plan: Plan,
    report: Report,
    reader: RangeReader,
    spans: Spans,
    judge: AuditJudge,
    sink: Sink,
) -> None:
    chunk: list[Record] = []
    taken = 0
    async with open_parser(settings) as parser:
        async for record in reader.read(spans):
            if (record.partition, record.offset) in report.new:
                continue
            if plan.records_max and taken >= plan.records_max:
                report.left += 1
                continue
            taken += 1
            chunk.append(record)
            if len(chunk) >= _CHUNK_RECORDS:
                await _judge(plan, report, parser, judge, sink, chunk)
                chunk = []
        await _judge(plan, report, parser, judge, sink, chunk)


async def _judge(
    plan: Plan,
    report: Report,
    parser: RecordParser,
    judge: AuditJudge,
    sink: Sink,
    records: Sequence[Record],
) -> None:
    consumed_ms = time.time_ns() // 1_000_000
    posts = []
    sources = []
    for record in records:
        try:
            post, _ = await parser.parse(record)
            posts.append((post, plan.policy))
            sources.append(record)
        except RecordError as error:
            report.unreadable[error.reason] += 1
    judgements = await judge.judge(posts)
    now_ms = time.time_ns() // 1_000_000
    made: list[tuple[Record, dict[str, Any]]] = []
    for source, judgement in zip(sources, judgements, strict=True):
        if judgement.error is not None:
            report.unreadable[judgement.error.reason] += 1
            continue
        verdict = build_verdict(
            source, judgement, consumed_ms=consumed_ms, published_ms=now_ms, route_mode="shadow"
        )
        made.append((source, verdict))
    made.sort(key=lambda one: (one[0].partition, one[0].offset))
    await sink.write(made, now_ms)
    for source, verdict in made:
        report.new[source.partition, source.offset] = Outcome.of(verdict)
