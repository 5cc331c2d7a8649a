"""The composition root: build the parts, run them in one task group, drain them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import structlog

from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import EngineError, LimitError, SettingsError
from stream_guard.core.gc_tuning import tune_garbage_collector
from stream_guard.core.version import package_version
from stream_guard.judging.archive.archive import Keeper
from stream_guard.judging.assembly import make_cascade, make_lasting_judge
from stream_guard.kafka.archive import make_archive
from stream_guard.kafka.input_topics import wait_for_topics
from stream_guard.kafka.registry.assembly import make_source
from stream_guard.kafka.registry.output import open_output
from stream_guard.kafka.transactions import check_permissions
from stream_guard.service.breaker import make_gate
from stream_guard.service.decisions import Decisions
from stream_guard.service.delivery import make_delivery
from stream_guard.service.escalations import EscalationParts
from stream_guard.service.health.monitor import Monitor
from stream_guard.service.health.state import Health
from stream_guard.service.health.watchdog import LoopWatchdog
from stream_guard.service.http import ProbeServer
from stream_guard.service.policies import check_routes, make_reloader, read_policies, versions
from stream_guard.service.starting import Start, StoppedError
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.poll_loop import POLL_TIMEOUT_MS, PollLoop
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from stream_guard.judging.contract import Judge
    from stream_guard.judging.engine.supervisor import EngineState
    from stream_guard.policies.policy import PolicySet
    from stream_guard.policies.reload import PolicyReloader
    from stream_guard.records.post import PostParser
    from stream_guard.settings import Settings
    from stream_guard.stream.dead_letter_gate import DeadLetterGate
    from stream_guard.stream.delivery import Delivery
    from stream_guard.stream.ports import Source
    from stream_guard.telemetry.export import SpanExporter

_log = structlog.get_logger(__name__)


class App:
    """The service, from its start to its stop.

    Args:
        settings: all sections.
        judge: used instead of the judge that the settings name.
        exporter: used instead of the endpoint that the settings name.
        metrics: used instead of the process's own registry.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        judge: Judge | None = None,
        exporter: SpanExporter | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self._clock = clock = SystemClock()
        self.tracing = Tracing(
            settings.telemetry,
            group=settings.kafka.group_id,
            exporter=exporter,
            severe=settings.cascade.severe,
            metrics=self.metrics,
        )
        inner = judge or make_lasting_judge(
            settings, clock, self.metrics, self.engine_changed, tracing=self.tracing
        )
        self.judge = make_cascade(settings, clock, self.metrics, inner)
        self._poll_loop: PollLoop | None = None
        self.health = Health(stall_s_max=settings.kafka.rebalance_timeout_ms / 1_000 + 30)
        self.probes = ProbeServer(settings.http, self.health, self.metrics.registry)
        self.gate = make_gate(settings, self.judge, clock, self.metrics, self.health)
        self._decisions = Decisions(settings, self.gate, self.health, self.metrics, self.tracing)
        self._escalations = EscalationParts(settings, self.health, self.metrics)
        self._stop = asyncio.Event()
        self._keeper: Keeper | None = None

    def stop(self) -> None:
        """Ask :meth:`run` to drain and return."""
        self._stop.set()

    def engine_changed(self, state: EngineState) -> None:
        """Take no records while there is no engine, and say so; a judge that rebuilds its engine calls this."""
        self.health.engine_ready = state.ready
        self.health.details["engine_rebuilds"] = state.rebuilds
        self.health.details["engine_fault"] = state.last_fault
        if state.ready:
            tune_garbage_collector(self.settings.batching.in_flight_records_max)
        else:
            gc.unfreeze()  # or nothing of the dead engine would ever be freed
        if self._poll_loop is not None:
            if state.ready:
                self._poll_loop.release()
            else:
                self._poll_loop.hold()

    async def run(self) -> None:
        """Run until :meth:`stop`, SIGTERM or SIGINT, then drain; a start that waits ends at once.

        Raises:
            StreamGuardError: a part failed; uncommitted records are read again after a restart.
        """
        try:
            with self.tracing.run(), self._signals(), contextlib.suppress(StoppedError):
                await self._run()
        finally:
            await asyncio.to_thread(self.tracing.close, self.settings.delivery.stop_timeout_s)

    async def _run(self) -> None:
        settings, starting = self.settings, Start(self._stop)
        policies = read_policies(settings)
        if settings.telemetry.otlp_endpoint is not None:
            self._begin_traces()
        _log.info(
            "starting",
            version=package_version(),
            **({"model": settings.engine.model} if settings.engine.kind == "vllm" else {}),
            engine=settings.engine.kind,
            policies=versions(policies),
            topics=list(settings.kafka.topics) or settings.kafka.topic_pattern,
            group=settings.kafka.group_id,
            bootstrap_servers=settings.kafka.bootstrap_servers,
        )
        patience_s = settings.delivery.publish_timeout_s
        topics = await starting.step(
            wait_for_topics(settings.kafka, patience_s, settings.side_topics)
        )
        await starting.step(check_permissions(settings, topics))
        # A topic that the pattern catches waits for its route; it must not stop the others.
        check_routes(policies, settings.kafka.topics, settings)
        source, parser = make_source(
            settings, self.metrics, partial(self.health.details.__setitem__, "registry")
        )
        source = self._escalations.before(source)
        delivery = make_delivery(settings, source, self.metrics)
        pipeline, poll_loop = self._make_stream(policies, source, delivery, parser)
        pipeline.build.avro = await starting.step(open_output(settings))
        self._decisions.write_like(pipeline.build)
        self._poll_loop = poll_loop
        self.health.turns = lambda: poll_loop.turns
        reloader = self._make_reloader(policies, pipeline, poll_loop, topics)
        async with LoopWatchdog(settings.delivery.loop_timeout_s) as watchdog:
            monitor = Monitor(
                settings,
                poll_loop,
                health=self.health,
                metrics=self.metrics,
                clock=self._clock,
                watchdog=watchdog,
            )
            try:
                await self._listen()
                await starting.step(delivery.publisher.start())
                # A million decisions would be walked again and again.
                tune_garbage_collector(self.settings.batching.in_flight_records_max)
                await starting.step(self._decisions.load())
                await starting.step(source.start(poll_loop))
                self.health.joined = True
                await self._serve(poll_loop, delivery, reloader, monitor, pipeline.dead_letters)
            finally:
                self.health.stopping = True
                await self._close(source, delivery)

    def _make_stream(
        self,
        policies: PolicySet,
        source: Source,
        delivery: Delivery,
        parser: PostParser,
    ) -> tuple[Pipeline, PollLoop]:
        decisions = self._decisions
        pipeline = Pipeline(
            self.settings,
            policies,
            parser=parser,
            judge=decisions.judge,
            publisher=decisions.before(delivery.publisher),
            clock=self._clock,
            metrics=self.metrics,
            tracing=self.tracing,
            decisions=decisions.lane,
            escalations=self._escalations.escalations,
            inputs=self._escalations.inputs,
        )
        poll_loop = PollLoop(
            source,
            pipeline,
            delivery,
            self.settings.delivery,
            clock=self._clock,
            metrics=self.metrics,
        )
        return pipeline, poll_loop

    def _begin_traces(self) -> None:
        if self.settings.telemetry.trace_engine:
            self.tracing.lend()
        if self.settings.telemetry.trace_content:
            _log.warning(
                "trace_content",
                endpoint=self.settings.telemetry.otlp_endpoint,
                remedy="spans carry the text of posts and of the model (telemetry.trace_content); see who reads them",
            )

    async def _listen(self) -> None:
        http = self.settings.http
        try:
            await self.probes.start()
        except OSError as error:
            message = (
                f"http.port (STREAM_GUARD_HTTP__PORT): cannot listen on {http.host}:{http.port}: "
                f"{error.strerror}; choose another, or 0 for a free one"
            )
            raise SettingsError(message) from error

    async def _serve(
        self,
        poll_loop: PollLoop,
        delivery: Delivery,
        reloader: PolicyReloader,
        monitor: Monitor,
        dead_letters: DeadLetterGate,
    ) -> None:
        """Run the parts until a stop is asked for, a limit is passed or a part fails; drain unless a part failed."""
        tasks: dict[str, asyncio.Task[None]] = {}

        def begin(name: str, running: Awaitable[BaseException | None]) -> None:
            tasks[name] = group.create_task(self._part(running), name=name)

        async def bring_up() -> None:
            await self._start_judge(reloader.live)
            self._report_ready()
            poll_loop.release()
            begin("judge", self._decisions.judge.wait_failed())
            begin("pressure", self._feel_pressure(poll_loop))
            if self.settings.policies.reload:
                begin("policies", reloader.run())

        try:
            async with asyncio.TaskGroup() as group:
                begin("poll loop", poll_loop.run())
                begin("publisher", delivery.publisher.wait_failed())
                begin("monitor", monitor.run())
                begin("engine", bring_up())
                begin("decisions", self._decisions.watch())
                begin("escalations", self._escalations.watch())
                limit = await self._stop_or_limit(dead_letters)
                self.health.stopping = True
                await self._drain(poll_loop, tasks["poll loop"])
                for task in tasks.values():
                    task.cancel()
        except BaseExceptionGroup as failed:
            error = failed.exceptions[0]  # the first; the group has cancelled the other parts
            raise error from error.__cause__
        if limit is not None:
            raise limit

    async def _part(self, running: Awaitable[BaseException | None]) -> None:
        """Run a part, and raise the error that it raises or returns; a drain goes on without it."""
        try:
            error = await running
        except Exception as raised:  # noqa: BLE001 - raised again below
            error = raised
        if error is not None and not self.health.stopping:
            raise error

    async def _stop_or_limit(self, dead_letters: DeadLetterGate) -> LimitError | None:
        """Return once a stop is asked for (None), or a limit on dead letters was passed (its error)."""
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        tripped = asyncio.create_task(dead_letters.wait_tripped(), name="limits")
        try:
            await asyncio.wait([stop, tripped], return_when=asyncio.FIRST_COMPLETED)
            if not tripped.done():
                return None
            limit = tripped.result()
        finally:
            stop.cancel()
            tripped.cancel()
        # The parts work: records that were read before the limit get their verdicts and are committed.
        assert dead_letters.trip is not None, "it has tripped"
        _log.error("dead_letter_limit", **asdict(dead_letters.trip), error=str(limit))
        return limit

    async def _drain(self, poll_loop: PollLoop, polling: asyncio.Task[None]) -> None:
        _log.info(
            "draining",
            in_flight=self.gate.in_flight(),
            drain_timeout_s=self.settings.delivery.drain_timeout_s,
        )
        poll_loop.stop()
        # A poll that hangs in a rebalance does not keep us: the drain has the deadline.
        await asyncio.wait([polling], timeout=2 * POLL_TIMEOUT_MS / 1_000)
        abandoned = await poll_loop.drain()
        _log.info("stopped", abandoned=abandoned)

    async def _feel_pressure(self, poll_loop: PollLoop) -> None:
        while True:
            await asyncio.sleep(self.settings.cascade.pressure_interval_s)
            self.judge.observe(poll_loop.lag_records())

    async def _start_judge(self, policies: PolicySet) -> None:
        timeout_s = self.settings.engine.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self.gate.start(policies)
        except TimeoutError as error:
            message = f"the engine was not ready within {timeout_s:g} s (engine.start_timeout_s)"
            raise EngineError(message) from error
        # The model is here, and no record was taken yet.
        self._keeper = await Keeper.of(
            make_archive(self.settings), self.settings, self.judge.describe()
        )
        if self._keeper is not None:
            await self._keeper.keep(policies)

    def _make_reloader(
        self, policies: PolicySet, pipeline: Pipeline, poll_loop: PollLoop, topics: set[str]
    ) -> PolicyReloader:
        """Return what takes edits of the policies live; ``topics`` are those of the start."""
        settings = self.settings

        async def prepare(edited: PolicySet) -> None:
            assigned = {partition.topic for partition in poll_loop.assigned}
            judged = sorted(filter(pipeline.routes.has_route, topics | assigned))
            check_routes(edited, judged, settings)  # an edit takes no topic's route away
            await self.gate.prepare(edited)
            if self._keeper is not None:
                await self._keeper.keep(edited)

        return make_reloader(
            settings,
            policies,
            prepare=prepare,
            switch=pipeline.switch,
            health=self.health,
            metrics=self.metrics,
        )

    def _report_ready(self) -> None:
        tune_garbage_collector(self.settings.batching.in_flight_records_max)
        about = dict(self.judge.describe())
        self.health.engine_ready = True
        self.health.details["engine"] = about
        self.metrics.build.labels(
            package_version(), about.get("model", ""), about.get("engine", "")
        ).set(1)
        _log.info("ready", http_port=self.probes.port, **about)

    async def _close(self, source: Source, delivery: Delivery) -> None:
        await source.stop()
        await self._decisions.close()
        await self._escalations.close()
        await delivery.publisher.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.delivery.stop_timeout_s):
                await self.gate.close()
        await self.probes.stop()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        caught = (signal.SIGTERM, signal.SIGINT)
        try:
            for number in caught:
                loop.add_signal_handler(number, self.stop)
        except (RuntimeError, ValueError):  # not the main thread: the caller stops us instead
            yield
            return
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)
