"""The story: record -> post -> policies of its topic -> judge -> verdict -> publish -> finished.

Works on lists of records, with no task per record. What it must never do: finish a record before everything
that it owes is acknowledged by the broker, or wait for one post on behalf of another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING

from stream_guard.core.errors import (
    DeletedPostError,
    NotAPostError,
    RecordError,
    SettledError,
    TooLargeError,
)
from stream_guard.judging.contract import JudgeRequest
from stream_guard.records.verdict_event import VerdictEvents
from stream_guard.stream.admission import BYTES_PER_TOKEN, Admission
from stream_guard.stream.batching import Batcher
from stream_guard.stream.dead_letter_gate import DeadLetterGate
from stream_guard.stream.decision_intake import accept_decisions
from stream_guard.stream.in_flight import EVENT, InFlightRecord
from stream_guard.stream.judgement_counts import count_made
from stream_guard.stream.lanes import StreamLanes
from stream_guard.stream.live_records import LiveRecords
from stream_guard.stream.outgoing import OutgoingBuilder
from stream_guard.stream.retractions import Retractions
from stream_guard.stream.review import make_reviews
from stream_guard.stream.topic_routes import TopicRoutes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.core.kafka_types import Partition, Record
    from stream_guard.judging.contract import Judge
    from stream_guard.policies.policy import PolicySet
    from stream_guard.policies.route_facts import RouteFacts
    from stream_guard.records.post import PostParser
    from stream_guard.settings import Settings
    from stream_guard.stream.dead_letter_limits import Stage
    from stream_guard.stream.decision_lane import DecisionLane
    from stream_guard.stream.escalated import SideInput
    from stream_guard.stream.escalation import Escalations
    from stream_guard.stream.in_flight import Outgoing, PostJudgement, PostRequest
    from stream_guard.stream.offsets import PartitionOffsets
    from stream_guard.stream.ports import Publisher
    from stream_guard.stream.tracing.record_tracer import Tracing
    from stream_guard.telemetry.metrics import Metrics
    from stream_guard.telemetry.trace_context import Span


class Pipeline:
    """Takes records, and finishes each once it owes nothing.

    Args:
        settings: all sections; ``kafka``, ``batching`` and ``dead_letters`` are used.
        policies: the snapshot to judge by, until :meth:`switch`.
        parser, judge, publisher, clock, metrics, tracing: the parts.
        decisions: for the decisions topic; None where decisions are not read.
        escalations: for posts that go to another deployment or come from one; None where none do.
        inputs: the topics of escalations that are read.

    Attributes:
        admission, lanes: what is in flight, in all and by lane.
        routes: which policies judge a topic's posts now.
        build: makes the outputs; for Avro, its ``avro`` is set before the first record.
        live: the records in flight.
        dead_letters: counts failures, and says when they are one too many; nothing is accepted from then on.
        progress: set whenever a record was finished; a caller that waits clears it first.
        finished: how many records were finished or given up, since the start.
    """

    def __init__(  # noqa: PLR0913 - the parts, by keyword
        self,
        settings: Settings,
        policies: PolicySet,
        *,
        parser: PostParser,
        judge: Judge,
        publisher: Publisher,
        clock: Clock,
        metrics: Metrics,
        tracing: Tracing,
        decisions: DecisionLane | None = None,
        escalations: Escalations | None = None,
        inputs: Sequence[SideInput] = (),
    ) -> None:
        self._kafka = settings.kafka
        self._decisions = decisions
        others = frozenset() if decisions is None else frozenset({decisions.topic})
        self.routes = TopicRoutes(policies, others, inputs)
        self._parser = parser
        self._judge = judge
        self._publisher = publisher
        self.clock = clock
        self.metrics = metrics
        self.tracing = tracing
        reviews = make_reviews(settings, parser)
        self.build = OutgoingBuilder(settings.kafka, tracing, reviews, escalations)
        self._retractions = Retractions(
            self.build, metrics, lambda one: publisher.publish([one], self._acknowledged)
        )
        self._batcher: Batcher[InFlightRecord] = Batcher(
            settings.batching.size_max, settings.batching.age_max_ms / 1_000
        )
        self._ids = itertools.count(1)
        self.live = LiveRecords()
        self.dead_letters = DeadLetterGate(settings.dead_letters, metrics)
        self.admission = Admission(settings.batching)
        self.lanes = StreamLanes(settings.batching, policies, metrics, self.routes.without)
        self.progress = asyncio.Event()
        self.finished = 0

    def accept(self, offsets: PartitionOffsets, records: Sequence[Record]) -> None:
        """Take a partition's records, in offset order: parse, route, and hand to the batcher.

        After a limit on dead letters was exceeded, nothing is accepted: polled records are read again.
        """
        if not records or self.dead_letters.trip is not None:
            return
        offsets.receive([record.offset for record in records])
        lane = self._decisions
        if lane is not None and offsets.partition.topic == lane.topic:
            accept_decisions(self, lane, offsets, records)
        else:
            self._accept_posts(offsets, records)

    # Over 60 lines: one loop over the records; a call for each of its steps would cost every record.
    def _accept_posts(self, offsets: PartitionOffsets, records: Sequence[Record]) -> None:
        gate, topic = self.dead_letters, offsets.partition.topic
        fixed = self.routes.fixed(topic)
        now_s, now_ns = self.clock.monotonic_s(), self.clock.wall_ns()
        live, parser = self.live.setdefault(offsets.partition, {}), self._parser.of_topic(topic)
        passed, key_bytes_max = 0, parser.max_key_bytes
        skipped: Counter[str] = Counter()
        begin, parse = self.tracing.begin, parser.parse
        offer, enter = self._batcher.offer, self.admission.enter
        next_id, in_lanes = self._ids.__next__, self.lanes.named
        entering: list[tuple[InFlightRecord, RouteFacts | None]] = []
        receipt = self.tracing.receive(*offsets.partition, len(records), now_ns)
        for record in records:
            in_flight = InFlightRecord(record, offsets, now_ns, begin(record, now_ns, receipt))
            live[record.offset] = in_flight
            try:
                if record.key is not None and len(record.key) > key_bytes_max:
                    raise TooLargeError(
                        f"the key has {len(record.key)} bytes; post.max_key_bytes is {key_bytes_max}"
                    )
                if fixed is not None:
                    post, policies, facts = parse(record.value, record.headers), fixed, None
                else:
                    post, policies, facts = self.routes.route(in_flight, parser)
            except NotAPostError as error:
                enter(in_flight.size_bytes, 0)
                self._set_aside(in_flight, error, skipped, now_ns)
                continue
            except RecordError as error:
                in_flight.owed = 1
                enter(in_flight.size_bytes, 0)
                gate.passed("parse", passed, now_s)
                passed = 0
                if self.fail(in_flight, "parse", error, now_s, now_ns):
                    continue
                break  # the rest was received and is not finished: no position passes it
            passed += 1
            in_flight.owed = owed = len(policies)
            in_flight.tokens = owed * (post.text_bytes // BYTES_PER_TOKEN)
            enter(in_flight.size_bytes, in_flight.tokens)
            for policy in policies:
                request = JudgeRequest(str(next_id()), post, policy, in_flight)
                in_flight.requests.append(request)
                offer(request, now_s)
            if in_lanes:
                entering.append((in_flight, facts))
        self.lanes.enter(offsets, entering)
        receipt.end()
        gate.passed("parse", passed, now_s)
        self.metrics.records.labels(topic).inc(len(records))
        if skipped:
            self.metrics.count_skipped(skipped)
            self.progress.set()
        self.write_dead_letters(now_s)

    def _set_aside(
        self, in_flight: InFlightRecord, error: NotAPostError, skipped: Counter[str], now_ns: int
    ) -> None:
        """Skip a record that is no post, retract the verdicts on the post that it deletes, or settle an escalation."""
        if isinstance(error, SettledError):
            owed = self.routes.settled(in_flight, error.condition, self.build, now_ns)
            self.publish(in_flight, owed, now_ns)
            return
        named = isinstance(error, DeletedPostError) and (error.content_id, in_flight.record.key)
        if not named or named == (None, None):
            skipped[error.condition] += 1
            self.finish(in_flight, in_flight.trace.span, now_ns)
            return
        in_flight.owed = 1
        live = self.live[in_flight.offsets.partition]
        self._retractions.take(in_flight, named[0], live, now_ns)

    def publish(
        self, in_flight: InFlightRecord, owed: list[Outgoing], now_ns: int, *, besides: int = 0
    ) -> None:
        """Publish what a record owes, which may be nothing; ``besides`` counts what else it owes."""
        in_flight.owed = besides + len(owed)
        if owed:
            self._publisher.publish(owed, self._acknowledged)
        elif not besides:
            self.finish(in_flight, in_flight.trace.span, now_ns)
            self.progress.set()

    def switch(self, policies: PolicySet) -> None:
        """Judge by these from the next record on; accepted records keep the policies that they began with."""
        self.routes = self.routes.of(policies)
        self.lanes.use(policies)
        self.progress.set()  # a topic may have a route now

    def dispatch(self, *, flush: bool = False, ahead_s: float = 0.0) -> None:
        """Hand to the judge, and of dead letters to the publisher, what is due; with ``flush``, everything.

        Args:
            flush: hand over what is not due as well.
            ahead_s: when the next call may come, in s from now: posts that will be due by then are handed over.
        """
        now_s = self.clock.monotonic_s()
        self.write_dead_letters(now_s, flush=flush)
        batches = self._batcher.flush() if flush else self._batcher.due(now_s + ahead_s)
        if not batches:
            return
        now_ns = self.clock.wall_ns()
        for batch in batches:
            wanted: list[PostRequest] = []
            traced: list[PostRequest] = []
            consumed: dict[int, int] = {}
            for request in batch:
                in_flight = request.context
                if in_flight.abandoned:
                    continue
                wanted.append(request)
                consumed[in_flight.consumed_ns] = consumed.get(in_flight.consumed_ns, 0) + 1
                if in_flight.trace.span is not None:
                    traced.append(request)
            if traced:
                self.tracing.hand_over(traced, len(wanted), now_ns)
            if wanted:
                self.metrics.batch_records.observe(len(wanted))
                for consumed_ns, count in consumed.items():  # records of one poll share their time
                    self.metrics.observe_stage("wait", [now_ns - consumed_ns], count)
                self._judge.submit(wanted, self._judged)

    def next_due_s(self) -> float | None:
        """Return when :meth:`dispatch` has something to do, on the monotonic clock."""
        due_s = (self._batcher.next_due_s(), self.dead_letters.next_due_s())
        return min((one for one in due_s if one is not None), default=None)

    def abandon(self, partitions: Iterable[Partition]) -> int:
        """Give up what is left of these partitions, whose next owner reads it again; return the count.

        What the publisher already has may still be produced, unless it writes transactions; its ids stay the same.
        """
        return self.give_up([one for p in partitions for one in self.live.get(p, {}).values()])

    def give_up(self, given_up: Sequence[InFlightRecord]) -> int:
        """Cancel what is left of these records and of deletions behind them, which never finish; return the count."""
        cancelled: list[PostRequest] = []
        for in_flight in given_up:
            del self.live[in_flight.offsets.partition][in_flight.record.offset]
            in_flight.abandoned = True
            cancelled.extend(in_flight.requests)
            self.admission.leave(in_flight.size_bytes, in_flight.tokens)
            if in_flight.lanes is not None:
                in_flight.lanes.leave(in_flight, in_flight.tokens, finished=False)
            self.tracing.abandoned(in_flight.trace, in_flight.requests)
        if cancelled:
            self._judge.cancel(cancelled)
        waited = self._retractions.give_up(given_up)
        self.finished += len(given_up)
        if given_up:
            self.metrics.abandoned.inc(len(given_up))
            self.progress.set()
        return len(given_up) + (self.give_up(waited) if waited else 0)

    def _judged(self, judgements: Sequence[PostJudgement]) -> None:
        now_ns = self.clock.wall_ns()
        now_ms, now_s = now_ns // 1_000_000, self.clock.monotonic_s()
        passed = 0
        events = VerdictEvents(now_ms, self._kafka.cloudevents_mode)
        outgoing: list[Outgoing] = []
        made: list[PostJudgement] = []
        build, has_company = self.build.verdict, self.build.has_company
        for judgement in judgements:
            in_flight = judgement.request.context
            if in_flight.abandoned:
                continue
            span = judgement.request.span
            if span is not None:
                self.tracing.judged(span, judgement)
            if judgement.error is not None:
                if in_flight.escalation is not None:
                    # As on a ladder: a rung that refuses the post leaves the answer of the rung below.
                    owed = self.build.settled(in_flight, "escalation_failed", now_ns)
                    self.publish(in_flight, owed, now_ns)
                    continue
                self.dead_letters.passed("judge", passed, now_s)
                passed = 0
                self.fail(in_flight, "judge", judgement.error, now_s, now_ns, judgement)
                continue
            passed += 1
            verdict, sending = build(in_flight, judgement, events, now_ns)
            made.append(judgement)  # verdicts held for a whole batch would crowd the caches
            outgoing.append(sending)
            if has_company:
                outgoing += self.build.beside(sending, verdict, judgement, now_ns)
        spent_ns = [one.finished_ns - one.started_ns for one in judgements]
        self.metrics.observe_stage("judge", [ns if ns > 0 else 0 for ns in spent_ns])  # noqa: FURB136 - no call for each record
        count_made(self.metrics, made)
        self.dead_letters.passed("judge", passed, now_s)
        if outgoing:
            self._publisher.publish(outgoing, self._acknowledged)
        self.write_dead_letters(now_s)

    def _acknowledged(self, outgoing: Sequence[Outgoing]) -> None:
        verdicts: Counter[tuple[str, str, str, str]] = Counter()
        consumed: Counter[int] = Counter()
        built: Counter[int] = Counter()
        now_ns = self.clock.wall_ns()
        traces = self.tracing.keeping is not None
        for sent in outgoing:
            in_flight, label = sent.origin, sent.label
            if isinstance(label, tuple):
                verdicts[label] += 1
            elif label != EVENT and not sent.dropped:
                self.metrics.count_written(label)
            consumed[in_flight.consumed_ns] += 1
            built[sent.built_ns] += 1
            if traces:
                self.tracing.sent(
                    in_flight, sent.span, now_ns, topic=sent.topic, built_ns=sent.built_ns
                )
            in_flight.owed -= 1
            if in_flight.owed == 0 and not in_flight.abandoned:
                self.finish(in_flight, in_flight.trace.span, now_ns)
        self.metrics.count_verdicts(verdicts)
        if self.lanes.counts:
            self.lanes.observe(now_ns)
        for consumed_ns, count in consumed.items():  # records of one poll share their time
            self.metrics.seconds.observe((now_ns - consumed_ns) / 1e9, count)
        for built_ns, count in built.items():
            self.metrics.observe_stage("publish", [now_ns - built_ns], count)
        self.progress.set()

    def finish(self, in_flight: InFlightRecord, span: Span | None, now_ns: int) -> None:
        """End a record that owes nothing any more."""
        offset = in_flight.record.offset
        live = self.live[in_flight.offsets.partition]
        del live[offset]
        self.finished += 1
        if in_flight.lanes is not None:
            in_flight.lanes.leave(in_flight, in_flight.tokens, finished=True)
        in_flight.requests.clear()  # breaks the cycle with their contexts: no garbage collector has to find it
        in_flight.offsets.finish(offset)
        self.admission.leave(in_flight.size_bytes, in_flight.tokens)
        if span is not None:
            span.end(now_ns)
        if self._retractions.waiting:
            self._retractions.finished(in_flight, live, now_ns)

    def fail(
        self,
        in_flight: InFlightRecord,
        stage: Stage,
        error: RecordError,
        now_s: float,
        now_ns: int,
        judgement: PostJudgement | None = None,
    ) -> bool:
        """Make a record's dead letter; where a limit forbids it, give the record up and return False."""
        letter = self.build.dead_letter(in_flight, error, judgement, now_ns)
        if self.dead_letters.offer(letter, stage, error.reason, now_s):
            return True
        given_up = {id(in_flight): in_flight}
        for held in self.dead_letters.take_held():
            given_up[id(held.origin)] = held.origin
        self.give_up([one for one in given_up.values() if not one.abandoned])
        return False

    def write_dead_letters(self, now_s: float, *, flush: bool = False) -> None:
        """Publish the dead letters that are due; with ``flush``, all."""
        letters = self.dead_letters.take(now_s, flush=flush)
        if letters:
            self._publisher.publish(letters, self._acknowledged)
        elif self.dead_letters.next_due_s() is not None:
            self.progress.set()  # a drain flushes it
