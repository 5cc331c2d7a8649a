"""``stream-guard check``: tries what a start needs, one by one; each check passes or gives a reason."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from stream_guard.core.english import count_of, did_you_mean
from stream_guard.core.errors import SettingsError, StreamGuardError
from stream_guard.settings import Settings, env_name, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_guard.policies.policy import PolicySet


@dataclass(slots=True, frozen=True)
class CheckResult:
    """One check: ``error`` is None if it passed."""

    name: str
    detail: str = ""
    error: StreamGuardError | None = None


def run_checks(config: Path | None) -> Iterator[CheckResult]:
    """Yield each check's result as soon as it is known; without settings the other checks are skipped."""
    from stream_guard.service.policies import read_policies

    try:
        settings = load_settings(config)
    except StreamGuardError as error:
        yield CheckResult("settings", error=error)
        return
    yield CheckResult("settings", f"read {config}" if config else "read the environment")
    policies: PolicySet | None = None
    try:
        policies = read_policies(settings)
    except StreamGuardError as error:
        yield CheckResult("policies", error=error)
    else:
        names = ", ".join(f"{policy.id}@{policy.version}" for policy in policies.policies.values())
        yield CheckResult("policies", names)
        if settings.review.sample:
            yield _check("review", partial(_review, policies, settings))
    yield from _broker(settings, policies)
    if settings.registry.url is not None:
        registry = _check("registry", partial(_registry, settings))
        yield registry
        if settings.output.format == "avro" and registry.error is None:
            yield _check("output", partial(_output, settings))
    if policies is not None:
        yield _check("tiers", partial(_tiers, policies, settings))
    yield _check("engine", partial(_engine, settings))
    model = _check("model", partial(_model, settings))
    yield model
    if model.error is None:
        yield from _check_context(policies, settings)


def _broker(settings: Settings, policies: PolicySet | None) -> Iterator[CheckResult]:
    from stream_guard.kafka.input_topics import check_topics, existing_topics
    from stream_guard.service.policies import has_limits

    try:
        there = asyncio.run(existing_topics(settings.kafka))
    except StreamGuardError as error:
        yield CheckResult("broker", error=error)
    else:
        yield CheckResult(
            "broker",
            f"{settings.kafka.bootstrap_servers} answers and has {count_of(len(there), 'topic')}",
        )
        try:
            topics = asyncio.run(check_topics(settings.kafka, settings.side_topics))
        except StreamGuardError as error:
            yield CheckResult("topics", error=error)
        else:
            yield _check("topics", partial(_topics, topics, settings))
            yield _check("permissions", partial(_permissions, settings, topics))
            if settings.side_topics.all:
                yield _check("escalations", partial(_escalations, settings))
            if policies is not None:
                yield _check("routes", partial(_routes, policies, topics, settings))
                if has_limits(settings, policies):
                    yield _check("limits", partial(_limits, settings))


def _check(name: str, work: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, work())
    except StreamGuardError as error:
        return CheckResult(name, error=error)


def _topics(topics: set[str], settings: Settings) -> str:
    unread = sorted(settings.post.topics.keys() - topics)
    if unread:
        message = (
            f"post.topics ({env_name('post', 'topics')}): has settings for topics that are not read: "
            f"{', '.join(unread)}; fix the names, or add them to kafka.topics ({env_name('kafka', 'topics')})"
        )
        raise SettingsError(message)
    return f"reading {', '.join(sorted(topics)) or 'none yet'}"


def _permissions(settings: Settings, topics: set[str]) -> str:
    from stream_guard.kafka.transactions import check_permissions

    asyncio.run(check_permissions(settings, topics))
    return f"topics and the group {settings.kafka.group_id} may be used"


def _escalations(settings: Settings) -> str:
    from stream_guard.kafka.group_position import read_once

    cascade, said = settings.cascade, []
    if cascade.escalated_topic is not None:
        said.append(f"judges what is in {cascade.escalated_topic} again, as {settings.deployment}")
    if cascade.escalation_topic is not None:
        said.append(
            f"sends {' and '.join(cascade.escalation_why)} posts to {cascade.escalation_topic}"
        )
        reading = asyncio.run(read_once(settings))
        if reading is None:
            said.append("cascade.escalation_group is not set, so nobody sees how far behind it is")
        elif not reading.positions:
            said.append(f"the group {cascade.escalation_group} has read nothing of it yet")
        else:
            said.append(
                f"the group {cascade.escalation_group} is {count_of(reading.lag_records or 0, 'offset')} behind"
            )
    return "; ".join(said)


def _registry(settings: Settings) -> str:
    from stream_guard.kafka.registry.client import RegistryClient
    from stream_guard.kafka.registry.schemas import require_libraries

    async def types() -> list[str]:
        async with RegistryClient(settings.registry) as client:
            return await client.types()

    require_libraries()
    kinds = ", ".join(sorted(asyncio.run(types())))
    return f"{', '.join(settings.registry.urls)} answers and supports {kinds}"


def _output(settings: Settings) -> str:
    from stream_guard.kafka.registry.output import check_output

    return asyncio.run(check_output(settings))


def _routes(policies: PolicySet, topics: set[str], settings: Settings) -> str:
    from stream_guard.service.policies import check_routes, topics_without_route

    # As at a start: a topic that only the pattern catches waits for its route, and stops nothing.
    check_routes(policies, settings.kafka.topics, settings)
    waiting = topics_without_route(policies, topics)
    if waiting:
        return f"not read, because no policy judges them: {', '.join(waiting)}"
    return "every topic has policies"


def _review(policies: PolicySet, settings: Settings) -> str:
    from stream_guard.settings.review import ANY

    known = sorted(policies.policies)
    unknown = sorted(settings.review.sample.keys() - {ANY, *known})
    if unknown:
        name = env_name("review", "sample")
        near = [one + did_you_mean(one, known) for one in unknown]
        message = (
            f"review.sample ({name}): has shares for policies that do not exist: {', '.join(near)}; fix the names, or "
            f"add the policies (known: {', '.join(known)})"
        )
        raise SettingsError(message)
    if settings.kafka.review_topic is None:
        name = env_name("kafka", "review_topic")
        message = (
            f"review.sample has no effect, because kafka.review_topic ({name}) is not set; set it"
        )
        raise SettingsError(message)
    return f"samples {', '.join(sorted(settings.review.sample))}"


def _limits(settings: Settings) -> str:
    from stream_guard.kafka.breaker_topic import check_breaker_topic

    topic = settings.kafka.breaker_topic
    if asyncio.run(check_breaker_topic(settings.kafka)):
        return f"actions are counted in {topic}"
    return f"actions are counted in {topic}, which the first replica creates"


def _tiers(policies: PolicySet, settings: Settings) -> str:
    from stream_guard.judging.tiers.registry import make_tiers

    for tier in make_tiers(settings):
        tier.prepare(policies)
    return " -> ".join(settings.cascade.tiers)


def _engine(settings: Settings) -> str:
    if settings.engine.kind == "scripted":
        return "engine.kind is scripted: judges by a fixed rule, for load tests"
    from stream_guard.judging.engine.arguments import require_vllm

    return require_vllm()


def _model(settings: Settings) -> str:
    if settings.engine.kind == "scripted":
        return "engine.kind is scripted: no model is loaded"
    from stream_guard.judging.engine.probe import probe_model

    return str(probe_model(settings.engine))


def _check_context(policies: PolicySet | None, settings: Settings) -> Iterator[CheckResult]:
    """Compare policies and posts with the context of the model."""
    if policies is None or settings.engine.kind == "scripted":
        return
    from stream_guard.judging.engine.probe import probe_context

    yield _check("context", partial(probe_context, settings, policies))
