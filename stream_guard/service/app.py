"""The composition root: build the parts, run them, drain them.

What it must never do: exit zero after a part has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog

from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import EngineError, LimitError, SettingsError
from stream_guard.core.version import package_version
from stream_guard.judging.archive.archive import Keeper
from stream_guard.judging.assembly import make_cascade, make_lasting_judge
from stream_guard.kafka.archive import make_archive
from stream_guard.kafka.publisher import KafkaPublisher
from stream_guard.kafka.source import KafkaSource, check_topics
from stream_guard.kafka.transactions import KafkaTransactor
from stream_guard.policies.reload import PolicyReloader
from stream_guard.records.post import PostParser
from stream_guard.service.gc_tuning import tune_garbage_collector
from stream_guard.service.health.monitor import Monitor
from stream_guard.service.health.state import Health
from stream_guard.service.health.watchdog import LoopWatchdog
from stream_guard.service.http import ProbeServer
from stream_guard.service.policies import check_routes, read_policies
from stream_guard.stream.exactly_once import TransactionalPublisher
from stream_guard.stream.pipeline import Pipeline
from stream_guard.stream.poll_loop import POLL_TIMEOUT_MS, Consumer
from stream_guard.stream.tracing.record_tracer import Tracing
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from stream_guard.judging.contract import Judge
    from stream_guard.judging.engine.supervisor import EngineState
    from stream_guard.policies.policy import PolicySet
    from stream_guard.policies.reload import ReloadOutcome
    from stream_guard.settings import Settings
    from stream_guard.stream.dead_letter_gate import DeadLetterGate
    from stream_guard.stream.ports import Publisher
    from stream_guard.telemetry.export import SpanExporter

_log = structlog.get_logger(__name__)


class App:
    """One consumer, from its start to its stop.

    Args:
        settings: all sections.
        judge: the one that reasons, instead of the one that the settings name.
        exporter: instead of the endpoint that the settings name.
        metrics: instead of the process's own registry.
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
        clock = SystemClock()
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
        self._consumer: Consumer | None = None
        self.health = Health(stall_s_max=settings.kafka.rebalance_timeout_ms / 1_000 + 30)
        self.probes = ProbeServer(settings.http, self.health, self.metrics.registry)
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
            tune_garbage_collector()
        else:
            gc.unfreeze()  # or nothing of the dead engine would ever be freed
        if self._consumer is not None:
            if state.ready:
                self._consumer.release()
            else:
                self._consumer.hold()

    async def run(self) -> None:
        """Run until :meth:`stop`, SIGTERM or SIGINT, then drain.

        Raises:
            StreamGuardError: a part failed; what was not committed is read again after a restart.
        """
        try:
            with self.tracing.run():
                await self._run()
        finally:
            await asyncio.to_thread(self.tracing.close, self.settings.delivery.stop_timeout_s)

    async def _run(self) -> None:
        settings = self.settings
        policies = read_policies(settings)
        if settings.telemetry.otlp_endpoint is not None:
            self._begin_traces()
        _log.info(
            "starting",
            version=package_version(),
            model=settings.engine.model,
            engine=settings.engine.kind,
            policies=_versions(policies),
            topics=list(settings.kafka.topics) or settings.kafka.topic_pattern,
            group=settings.kafka.group_id,
            bootstrap_servers=settings.kafka.bootstrap_servers,
        )
        topics = await check_topics(settings.kafka)
        check_routes(policies, topics, settings)
        transactions = self._make_transactions()
        publisher: Publisher = transactions or KafkaPublisher(
            settings.kafka, settings.delivery, self.metrics
        )
        source = KafkaSource(settings.kafka, settings.delivery)
        clock = SystemClock()
        pipeline = Pipeline(
            settings,
            policies,
            parser=PostParser(settings.post),
            judge=self.judge,
            publisher=publisher,
            clock=clock,
            metrics=self.metrics,
            tracing=self.tracing,
        )
        consumer = Consumer(
            source,
            pipeline,
            settings.delivery,
            clock=clock,
            metrics=self.metrics,
            transactions=transactions,
        )
        self._consumer = consumer
        self.health.turns = lambda: consumer.turns
        reloader = self._make_reloader(policies, pipeline, consumer, topics)
        async with LoopWatchdog(settings.delivery.loop_timeout_s) as watchdog:
            monitor = Monitor(
                settings,
                consumer,
                health=self.health,
                metrics=self.metrics,
                clock=clock,
                watchdog=watchdog,
            )
            with self._signals():
                try:
                    await self._listen()
                    await publisher.start()
                    await source.start(consumer)
                    self.health.joined = True
                    await self._watch(consumer, publisher, reloader, monitor, pipeline.dead_letters)
                finally:
                    self.health.stopping = True
                    await self._close(source, publisher)

    def _begin_traces(self) -> None:
        if self.settings.telemetry.trace_engine:
            self.tracing.lend()
        if self.settings.telemetry.trace_content:
            _log.warning(
                "trace_content",
                endpoint=self.settings.telemetry.otlp_endpoint,
                remedy="spans carry the text of posts and of the model (telemetry.trace_content); see who reads them",
            )

    def _make_transactions(self) -> TransactionalPublisher | None:
        """Return who writes and commits in exactly-once mode."""
        kafka, delivery = self.settings.kafka, self.settings.delivery
        if delivery.mode == "at_least_once":
            return None
        return TransactionalPublisher(
            KafkaTransactor(kafka, delivery),
            delivery,
            self.metrics,
            # The second heartbeat from now at the latest says whether the partition is ours.
            fenced_pause_s=2 * kafka.heartbeat_interval_ms / 1_000,
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

    async def _watch(
        self,
        consumer: Consumer,
        publisher: Publisher,
        reloader: PolicyReloader,
        monitor: Monitor,
        dead_letters: DeadLetterGate,
    ) -> None:
        """Run the parts until a stop is asked for or one of them fails; then drain."""
        tasks: dict[str, asyncio.Task[Any]] = {}

        def begin(name: str, work: Coroutine[Any, Any, Any]) -> None:
            tasks[name] = asyncio.create_task(work, name=name)

        begin("stop", self._stop.wait())
        begin("consumer", consumer.run())
        begin("publisher", publisher.wait_failed())
        begin("limits", dead_letters.wait_tripped())
        begin("monitor", monitor.run())
        begin("engine", self._start_judge(reloader.live))
        try:
            while True:
                done, _ = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                engine = tasks.get("engine")
                if done == {engine} and engine is not None and not engine.exception():
                    self._report_ready()
                    consumer.release()
                    del tasks["engine"]
                    begin("judge", self.judge.wait_failed())
                    begin("pressure", self._feel_pressure(consumer))
                    if self.settings.policies.reload:
                        begin("policies", reloader.run())
                    continue
                break
            self.health.stopping = True
            failure = _failure_of(tasks)
            if isinstance(failure, LimitError) and dead_letters.trip is not None:
                # The parts are well: what was read before the limit gets its verdicts and is committed.
                _log.error("dead_letter_limit", **asdict(dead_letters.trip), error=str(failure))
            elif failure is not None:
                raise failure
            _log.info(
                "draining",
                in_flight=self.judge.in_flight(),
                drain_timeout_s=self.settings.delivery.drain_timeout_s,
            )
            consumer.stop()
            # A poll that hangs in a rebalance does not keep us: the drain has the deadline.
            await asyncio.wait([tasks["consumer"]], timeout=2 * POLL_TIMEOUT_MS / 1_000)
            abandoned = await consumer.drain()
            _log.info("stopped", abandoned=abandoned)
            if failure is not None:
                raise failure
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _feel_pressure(self, consumer: Consumer) -> None:
        while True:
            await asyncio.sleep(self.settings.cascade.pressure_interval_s)
            self.judge.observe(consumer.lag_records())

    async def _start_judge(self, policies: PolicySet) -> None:
        timeout_s = self.settings.engine.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self.judge.start(policies)
        except TimeoutError as error:
            message = f"the engine was not ready within {timeout_s:g} s (engine.start_timeout_s)"
            raise EngineError(message) from error
        # The model is here by now, and no record was taken yet.
        self._keeper = await Keeper.of(
            make_archive(self.settings), self.settings, self.judge.describe()
        )
        if self._keeper is not None:
            await self._keeper.keep(policies)

    def _make_reloader(
        self, policies: PolicySet, pipeline: Pipeline, consumer: Consumer, topics: set[str]
    ) -> PolicyReloader:
        """Return what takes edits of the policies live; ``topics`` are those of the start."""
        settings = self.settings

        async def prepare(edited: PolicySet) -> None:
            assigned = {partition.topic for partition in consumer.assigned}
            check_routes(edited, sorted(topics | assigned), settings)
            await self.judge.prepare(edited)
            if self._keeper is not None:
                await self._keeper.keep(edited)

        def switch(edited: PolicySet) -> None:
            pipeline.switch(edited)
            self._show_policies(edited, None)

        def report(outcome: ReloadOutcome) -> None:
            self.metrics.policy_reloads.labels(outcome.kind).inc()
            self._show_policies(reloader.live, outcome.message or None)
            if outcome.kind == "refused":
                _log.warning(
                    "policies_refused", error=outcome.message, live=_versions(reloader.live)
                )
            elif outcome.kind == "switched":
                _log.info(
                    "policies_switched", changed=outcome.changed, live=_versions(reloader.live)
                )
            else:
                _log.info("policies_restored", live=_versions(reloader.live))

        self._show_policies(policies, None)
        reloader = PolicyReloader(
            settings.policies.path,
            policies,
            prepare=prepare,
            switch=switch,
            report=report,
            effort=settings.engine.effort,
            reasoning_tokens_max=settings.engine.reasoning_tokens_max,
        )
        return reloader

    def _show_policies(self, live: PolicySet, refused: str | None) -> None:
        self.health.details["policies"] = _versions(live)
        self.health.details["policies_refused"] = refused

    def _report_ready(self) -> None:
        tune_garbage_collector()
        about = dict(self.judge.describe())
        self.health.engine_ready = True
        self.health.details["engine"] = about
        self.metrics.build.labels(
            package_version(), about.get("model", ""), about.get("engine", "")
        ).set(1)
        _log.info("ready", http_port=self.probes.port, **about)

    async def _close(self, source: KafkaSource, publisher: Publisher) -> None:
        await source.stop()
        await publisher.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.delivery.stop_timeout_s):
                await self.judge.close()
        await self.probes.stop()

    @contextlib.contextmanager
    def _signals(self) -> Any:  # noqa: ANN401 - a generator made a context manager
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


def _versions(policies: PolicySet) -> dict[str, str]:
    return {policy.id: policy.version for policy in policies.policies.values()}


def _failure_of(tasks: dict[str, asyncio.Task[Any]]) -> BaseException | None:
    for name, task in tasks.items():
        if not task.done() or task.cancelled():
            continue
        error = task.exception()
        if error is not None:
            return error
        if name in ("publisher", "judge", "limits", "monitor"):
            failure: BaseException = task.result()
            return failure
    return None
