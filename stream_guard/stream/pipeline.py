"""The story: record -> post -> policies of its topic -> judge -> verdict -> publish -> finished.

Works on lists of records, with no task per record. What it must never do: finish a record before everything
that it owes is acknowledged by the broker, or wait for one post on behalf of another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING

from stream_guard.core.errors import NotAPostError, PolicyError, RecordError, TooLargeError
from stream_guard.judging.contract import JudgeRequest
from stream_guard.policies.routing import RouteFacts
from stream_guard.records.verdict_event import VerdictEvents
from stream_guard.stream.admission import BYTES_PER_TOKEN, Admission
from stream_guard.stream.batching import Batcher
from stream_guard.stream.dead_letter_gate import DeadLetterGate
from stream_guard.stream.in_flight import InFlightRecord
from stream_guard.stream.outgoing import OutgoingBuilder
from stream_guard.stream.review import make_reviews

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_guard.core.clock import Clock
    from stream_guard.core.kafka_types import Partition, Record
    from stream_guard.judging.contract import Judge
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post, PostParser
    from stream_guard.settings import Settings
    from stream_guard.stream.dead_letter_limits import Stage
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

    Attributes:
        admission: what is in flight.
        build: makes the outputs; for Avro, its ``avro`` is set before the first record.
        dead_letters: counts failures, and says when they are one too many; nothing is accepted from then on.
        progress: set whenever a record was finished; a caller that waits clears it first.
        finished: how many records were finished or given up, since the start.
    """

    def __init__(
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
    ) -> None:
        self._kafka = settings.kafka
        self._policies = policies
        # By topic: the policies of all its posts, all live; None where they depend on the post.
        self._routes: dict[str, tuple[Policy, ...] | None] = {}
        self._routed: dict[str, bool] = {}
        self._parser = parser
        self._judge = judge
        self._publisher = publisher
        self._clock = clock
        self._metrics = metrics
        self._tracing = tracing
        self.build = OutgoingBuilder(settings.kafka, tracing, make_reviews(settings, parser))
        self._batcher: Batcher[InFlightRecord] = Batcher(
            settings.batching.size_max, settings.batching.age_max_ms / 1_000
        )
        self._ids = itertools.count(1)
        self._live: dict[Partition, dict[int, InFlightRecord]] = {}
        self.dead_letters = DeadLetterGate(settings.dead_letters, metrics)
        self.admission = Admission(settings.batching)
        self.progress = asyncio.Event()
        self.finished = 0

    # Over 60 lines: one loop over the records; a call for each of its steps would cost every record.
    def accept(self, offsets: PartitionOffsets, records: Sequence[Record]) -> None:
        """Take a partition's records, in offset order: parse, route, and hand to the batcher.

        After a limit on dead letters was exceeded, nothing is accepted: polled records are read again.
        """
        gate = self.dead_letters
        if not records or gate.trip is not None:
            return
        offsets.receive([record.offset for record in records])
        topic = offsets.partition.topic
        fixed = self._routes[topic] if topic in self._routes else self._fix_route(topic)
        now_s, now_ns = self._clock.monotonic_s(), self._clock.wall_ns()
        live = self._live.setdefault(offsets.partition, {})
        parser = self._parser.of_topic(topic)
        passed, key_bytes_max = 0, parser.max_key_bytes
        skipped: Counter[str] = Counter()
        begin, parse, offer, enter = (
            self._tracing.begin,
            parser.parse,
            self._batcher.offer,
            self.admission.enter,
        )
        receipt = self._tracing.receive(*offsets.partition, len(records), now_ns)
        for record in records:
            in_flight = InFlightRecord(record, offsets, now_ns, begin(record, now_ns, receipt))
            live[record.offset] = in_flight
            try:
                if record.key is not None and len(record.key) > key_bytes_max:
                    raise TooLargeError(
                        f"the key has {len(record.key)} bytes; post.max_key_bytes is {key_bytes_max}"
                    )
                if fixed is not None:
                    post, policies = parse(record.value, record.headers), fixed
                else:
                    post, policies = self._route(in_flight)
            except NotAPostError as error:
                skipped[error.condition] += 1
                enter(in_flight.size_bytes, 0)
                self._finish(in_flight, in_flight.trace.span, now_ns)
                continue
            except RecordError as error:
                in_flight.owed = 1
                enter(in_flight.size_bytes, 0)
                gate.passed("parse", passed, now_s)
                passed = 0
                if self._fail(in_flight, "parse", error, now_s, now_ns):
                    continue
                break  # the rest was received and is not finished: no position passes it
            passed += 1
            in_flight.owed = len(policies)
            in_flight.tokens = len(policies) * (post.text_bytes // BYTES_PER_TOKEN)
            enter(in_flight.size_bytes, in_flight.tokens)
            for policy in policies:
                request = JudgeRequest(str(next(self._ids)), post, policy, in_flight)
                in_flight.requests.append(request)
                offer(request, now_s)
        receipt.end()
        gate.passed("parse", passed, now_s)
        self._metrics.records.labels(topic).inc(len(records))
        if skipped:
            self._metrics.count_skipped(skipped)
            self.progress.set()
        self._write_dead_letters(now_s)

    def switch(self, policies: PolicySet) -> None:
        """Judge by these from the next record on; accepted records keep the policies that they began with."""
        self._policies = policies
        self._routes = {}
        self._routed = {}
        self.progress.set()  # a topic may have a route now

    def has_route(self, topic: str) -> bool:
        """Return whether any policy judges this topic's posts; without one, none of its records may be accepted."""
        known = self._routed.get(topic)
        if known is None:
            try:
                self._policies.route_topic(topic)
            except PolicyError:
                known = False
            else:
                known = True
            self._routed[topic] = known
        return known

    def _fix_route(self, topic: str) -> tuple[Policy, ...] | None:
        routed = self._policies.route_topic(topic)
        fixed = None
        # Marks belong to a post: a topic's own routes have none.
        if routed is not None and all(route.mode == "live" for route in routed):
            fixed = tuple(route.policy for route in routed)
        self._routes[topic] = fixed
        return fixed

    def _route(self, in_flight: InFlightRecord) -> tuple[Post, tuple[Policy, ...]]:
        """Parse a record whose policies depend on the post. Raises RecordError."""
        record = in_flight.record
        parser = self._parser.of_topic(record.topic)
        post, document = parser.parse_document(record.value, record.headers)
        facts = RouteFacts.of(record.topic, record.headers, document, post)
        routed = self._policies.route_post(facts)
        if any(route.mode != "live" for route in routed):
            in_flight.modes = {route.policy.id: route.mode for route in routed}
        return post, tuple(route.policy for route in routed)

    def dispatch(self, *, flush: bool = False, ahead_s: float = 0.0) -> None:
        """Hand to the judge, and of dead letters to the publisher, what is due; with ``flush``, everything.

        Args:
            flush: hand over what is not due as well.
            ahead_s: when the next call may come, in s from now: posts that will be due by then are handed over.
        """
        now_s = self._clock.monotonic_s()
        self._write_dead_letters(now_s, flush=flush)
        batches = self._batcher.flush() if flush else self._batcher.due(now_s + ahead_s)
        if not batches:
            return
        now_ns = self._clock.wall_ns()
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
                self._trace_batch(traced, len(wanted), now_ns)
            if wanted:
                self._metrics.batch_records.observe(len(wanted))
                for consumed_ns, count in consumed.items():  # records of one poll share their time
                    self._metrics.observe_stage("wait", [now_ns - consumed_ns], count)
                self._judge.submit(wanted, self._judged)

    def _trace_batch(self, traced: Sequence[PostRequest], count: int, now_ns: int) -> None:
        tracing = self._tracing
        batch = tracing.batch(traced[0].policy.id, count, now_ns)
        for request in traced:
            in_flight = request.context
            assert in_flight.trace.span is not None
            request.span = tracing.judging(
                in_flight.trace.span, request, in_flight.consumed_ns, now_ns, batch
            )
        batch.end(now_ns)

    def next_due_s(self) -> float | None:
        """Return when :meth:`dispatch` has something to do, on the monotonic clock."""
        due_s = (self._batcher.next_due_s(), self.dead_letters.next_due_s())
        return min((one for one in due_s if one is not None), default=None)

    def unfinished(self, partitions: Iterable[Partition]) -> int:
        """Return how many records of these partitions still owe something."""
        return sum(len(self._live.get(partition, ())) for partition in partitions)

    def oldest(self, partition: Partition) -> tuple[int, int] | None:
        """Return the offset of a partition's oldest unfinished record, and when it was read: Unix time in ns."""
        in_flight = next(iter(self._live.get(partition, {}).values()), None)
        return None if in_flight is None else (in_flight.record.offset, in_flight.consumed_ns)

    def oldest_trace_id(self, partition: Partition) -> str | None:
        """Return the trace id of a partition's oldest unfinished record, whether it is traced or not."""
        in_flight = next(iter(self._live.get(partition, {}).values()), None)
        return None if in_flight is None else in_flight.trace.traceparent[3:35]

    def oldest_written_ns(self, partition: Partition) -> int | None:
        """Return when a partition's oldest unfinished record was written, Unix time in ns: by its own timestamp."""
        in_flight = next(iter(self._live.get(partition, {}).values()), None)
        if in_flight is None:
            return None
        written_ns = in_flight.record.timestamp * 1_000_000
        return min(written_ns, in_flight.consumed_ns) if written_ns > 0 else in_flight.consumed_ns

    def abandon(self, partitions: Iterable[Partition]) -> int:
        """Give up what is left of these partitions, whose next owner reads it again; return the count.

        What the publisher already has may still be produced, unless it writes transactions; its ids stay the same.
        """
        given_up = [in_flight for p in partitions for in_flight in self._live.get(p, {}).values()]
        self._give_up(given_up)
        return len(given_up)

    def _give_up(self, given_up: Sequence[InFlightRecord]) -> None:
        """Cancel what is left of these, which never finish in this epoch."""
        cancelled: list[PostRequest] = []
        for in_flight in given_up:
            del self._live[in_flight.offsets.partition][in_flight.record.offset]
            in_flight.abandoned = True
            cancelled.extend(in_flight.requests)
            self.admission.leave(in_flight.size_bytes, in_flight.tokens)
            self._tracing.abandoned(in_flight.trace, in_flight.requests)
        if cancelled:
            self._judge.cancel(cancelled)
        self.finished += len(given_up)
        if given_up:
            self._metrics.abandoned.inc(len(given_up))
            self.progress.set()

    def _judged(self, judgements: Sequence[PostJudgement]) -> None:
        now_ns = self._clock.wall_ns()
        now_ms, now_s = now_ns // 1_000_000, self._clock.monotonic_s()
        passed = 0
        events = VerdictEvents(now_ms, self._kafka.cloudevents_mode)
        outgoing: list[Outgoing] = []
        prompt_tokens = cached_tokens = output_tokens = 0
        degraded: Counter[str] = Counter()
        for judgement in judgements:
            in_flight = judgement.request.context
            if in_flight.abandoned:
                continue
            span = judgement.request.span
            if span is not None:
                self._tracing.judged(span, judgement)
            if judgement.error is not None:
                self.dead_letters.passed("judge", passed, now_s)
                passed = 0
                self._fail(in_flight, "judge", judgement.error, now_s, now_ns, judgement)
                continue
            passed += 1
            verdict, sending = self.build.verdict(in_flight, judgement, events, now_ns)
            provenance = verdict["provenance"]
            if provenance["degraded"]:
                degraded.update(provenance["degraded"])
            self._metrics.count_marks(verdict["policy"]["id"], provenance)
            if provenance["output_tokens"]:
                prompt_tokens += provenance["prompt_tokens"]
                cached_tokens += provenance["cached_tokens"]
                output_tokens += provenance["output_tokens"]
            outgoing.append(sending)
            if self.build.has_company:
                outgoing += self.build.beside(in_flight, verdict, judgement, now_ns)
        self._metrics.observe_stage(
            "judge", [max(0, one.finished_ns - one.started_ns) for one in judgements]
        )
        self._metrics.count_degraded(degraded)
        self._metrics.count_tokens(prompt_tokens, cached_tokens, output_tokens)
        self.dead_letters.passed("judge", passed, now_s)
        if outgoing:
            self._publisher.publish(outgoing, self._acknowledged)
        self._write_dead_letters(now_s)

    def _acknowledged(self, outgoing: Sequence[Outgoing]) -> None:
        verdicts: Counter[tuple[str, str, str, str]] = Counter()
        consumed: Counter[int] = Counter()
        built: Counter[int] = Counter()
        now_ns = self._clock.wall_ns()
        traces = self._tracing.keeping is not None
        for sent in outgoing:
            in_flight, label = sent.origin, sent.label
            if isinstance(label, tuple):
                verdicts[label] += 1
            else:
                self._metrics.count_written(label)
            consumed[in_flight.consumed_ns] += 1
            built[sent.built_ns] += 1
            if traces:
                self._tracing.sent(
                    in_flight, sent.span, now_ns, topic=sent.topic, built_ns=sent.built_ns
                )
            in_flight.owed -= 1
            if in_flight.owed == 0 and not in_flight.abandoned:
                self._finish(in_flight, in_flight.trace.span, now_ns)
        self._metrics.count_verdicts(verdicts)
        for consumed_ns, count in consumed.items():  # records of one poll share their time
            self._metrics.seconds.observe((now_ns - consumed_ns) / 1e9, count)
        for built_ns, count in built.items():
            self._metrics.observe_stage("publish", [now_ns - built_ns], count)
        self.progress.set()

    def _finish(self, in_flight: InFlightRecord, span: Span | None, now_ns: int) -> None:
        offset = in_flight.record.offset
        del self._live[in_flight.offsets.partition][offset]
        self.finished += 1
        in_flight.requests.clear()  # breaks the cycle with their contexts: no garbage collector has to find it
        in_flight.offsets.finish(offset)
        self.admission.leave(in_flight.size_bytes, in_flight.tokens)
        if span is not None:
            span.end(now_ns)

    def _fail(
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
        self._give_up([one for one in given_up.values() if not one.abandoned])
        return False

    def _write_dead_letters(self, now_s: float, *, flush: bool = False) -> None:
        letters = self.dead_letters.take(now_s, flush=flush)
        if letters:
            self._publisher.publish(letters, self._acknowledged)
        elif self.dead_letters.next_due_s() is not None:
            self.progress.set()  # a drain flushes it
