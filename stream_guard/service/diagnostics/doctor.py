"""``stream-guard doctor``: the checks of ``check``, and later risks: host, clock, limits, topic settings.

It changes nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_guard.core.english import count_of
from stream_guard.core.errors import StreamGuardError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.service.diagnostics import host as machine
from stream_guard.service.diagnostics.checks import run_checks
from stream_guard.service.diagnostics.lane_advice import advise_lanes
from stream_guard.service.diagnostics.running import compilation
from stream_guard.service.diagnostics.topic_advice import Advice, Role, Topic, advise
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.kafka.cluster import ClusterState
    from stream_guard.settings import Settings

_SLOW_MS: Final = 250.0
_ASIDE_BYTES_MAX: Final = 64 << 10
"""Room for the key and headers of a dead letter, in addition to its value."""
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a mount, not a file of ours


_REMEDIES: Final = {
    ExitCode.USAGE: "correct what this line names, and run stream-guard doctor again",
    ExitCode.BROKER: "check kafka.bootstrap_servers, kafka.security and the network to the brokers",
    ExitCode.ENGINE: "check engine.model and the lines above; engine.model = demo shows whether the engine works",
}
"""Of errors whose message says only what happened, by exit code."""
_REMEDY: Final = "run the command again; if the error stays, report it with this line"


class Doctor:
    """Examines everything once.

    Args:
        config: the TOML file; None for the environment alone.

    Attributes:
        exit_code: of the first error; ``USAGE`` if the error has none.
        warnings: how many there were.
    """

    def __init__(self, config: Path | None) -> None:
        self._config = config
        self.exit_code = ExitCode.CLEAN
        self.warnings = 0

    def run(self) -> Iterator[Advice]:
        """Yield each finding as it is known."""
        broker = False
        for result in run_checks(self._config):
            if result.error is None:
                broker = broker or result.name == "broker"
                yield Advice(result.name, "ok", result.detail)
            else:
                yield self._failed(result.name, result.error)
        try:
            settings = load_settings(self._config)
        except StreamGuardError:
            return  # reported already, and nothing else can be examined
        for advice in self._rest(settings, broker=broker):
            if advice.level == "error":
                self.exit_code = self.exit_code or ExitCode.USAGE
            self.warnings += advice.level == "warning"
            yield advice

    def _failed(self, name: str, error: StreamGuardError) -> Advice:
        self.exit_code = self.exit_code or error.exit_code
        # Our messages say what happened, then, behind a semicolon, what to do.
        detail, _, remedy = str(error).partition("; ")
        return Advice(name, "error", detail, remedy or _REMEDIES.get(error.exit_code, _REMEDY))

    def _rest(self, settings: Settings, *, broker: bool) -> Iterator[Advice]:
        yield machine.versions()
        yield from machine.gpus(settings.engine)
        yield machine.limits(settings)
        yield machine.shared_memory(settings.engine, SHARED_MEMORY)
        yield from _lanes(settings)
        yield from compilation(settings.http)
        newest_ms = None
        if broker:
            from stream_guard.kafka.cluster import inspect_cluster
            from stream_guard.kafka.input_topics import check_topics

            try:
                inputs = asyncio.run(check_topics(settings.kafka, settings.side_topics))
            except StreamGuardError:
                inputs = set()  # reported already
            yield from _without_route(settings, inputs)
            try:
                roles = _roles(settings, inputs)
                state = asyncio.run(inspect_cluster(settings.kafka, roles))
            except StreamGuardError as error:
                yield self._failed("topics' settings", error)
            else:
                newest_ms = (
                    max((t.newest_ms or 0 for t in state.topics.values()), default=0) or None
                )
                yield from look_at(settings, state, roles)
        yield machine.clock(newest_ms)


def _roles(settings: Settings, inputs: set[str]) -> dict[str, Role]:
    """Return the role of each topic, by name."""
    roles: dict[str, Role] = dict.fromkeys(sorted(inputs), "input")
    roles[settings.kafka.verdict_topic] = "verdicts"
    roles[settings.kafka.dead_letter_topic] = "dead letters"
    if settings.kafka.shadow_topic is not None:
        roles[settings.kafka.shadow_topic] = "shadows"
    if settings.kafka.reasoning_topic is not None:
        roles[settings.kafka.reasoning_topic] = "reasoning"
    if settings.kafka.review_topic is not None:
        roles[settings.kafka.review_topic] = "review items"
    if settings.policies.archive == "topic":
        roles[settings.kafka.archive_topic] = "archive"
    if settings.actions.limits:
        roles[settings.kafka.breaker_topic] = "breaker"
    if settings.decisions.enabled:
        roles[settings.kafka.decision_topic] = "decisions"
    roles.update(dict.fromkeys(settings.side_topics.all, "escalations"))
    return roles


def _lanes(settings: Settings) -> Iterator[Advice]:
    """Yield the findings about the lanes of ``routes.yaml``."""
    from stream_guard.service.policies import read_policies

    try:
        policies = read_policies(settings)
    except StreamGuardError:
        return  # reported already
    yield from advise_lanes(policies.routing.lanes, settings)


def _without_route(settings: Settings, inputs: set[str]) -> Iterator[Advice]:
    """Yield a finding for each topic that ``kafka.topic_pattern`` catches and no policy judges."""
    from stream_guard.service.policies import read_policies, topics_without_route

    if settings.kafka.topic_pattern is None:
        return  # a topic that is named must have a route, and the checks report it
    try:
        policies = read_policies(settings)
    except StreamGuardError:
        return  # reported already
    for topic in topics_without_route(policies, inputs):
        yield Advice(
            f"topic {topic}",
            "warning",
            "kafka.topic_pattern catches it and no policy judges it, so it is not read",
            f"add {topic} to {settings.policies.path / 'routes.yaml'}, or narrow kafka.topic_pattern",
        )


def look_at(settings: Settings, state: ClusterState, roles: dict[str, Role]) -> Iterator[Advice]:
    """Yield the findings about the cluster and each topic."""
    slow = state.answer_ms > _SLOW_MS
    yield Advice(
        "brokers",
        "warning" if slow else "ok",
        f"{count_of(state.brokers, 'broker')}; a request takes {state.answer_ms:.0f} ms",
        "run Stream Guard nearer to the brokers: commits and sends wait for answers"
        if slow
        else "",
    )
    for name, role in roles.items():
        topic = state.topics.get(name)
        if topic is None:
            # A missing input is reported already; the other three are created.
            if role not in ("input", "archive", "breaker", "decisions"):
                remedy = f"create it: kafka-topics --create --topic {name} --replication-factor 3 --partitions 12"
                detail = f"the topic for {role} does not exist: the service stops when it must write there"
                yield Advice(f"topic {name}", "error", detail, remedy)
            continue
        known = Topic(
            topic.name,
            topic.partitions,
            topic.replicas,
            topic.under_replicated,
            topic.leaderless,
            topic.configs,
        )
        yield from advise(known, role, _batch_bytes_max(settings, role))


def _batch_bytes_max(settings: Settings, role: Role) -> int:
    kafka = settings.kafka
    if role == "input":
        return 0
    if role == "dead letters":
        return max(kafka.batch_bytes_max, kafka.dead_letter_bytes_max + _ASIDE_BYTES_MAX)
    return kafka.batch_bytes_max
