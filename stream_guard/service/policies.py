"""The policies of the running service: read at the start, checked against its topics, and reloaded after edits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from stream_guard.core.errors import PolicyError
from stream_guard.policies.reload import PolicyReloader
from stream_guard.policies.store import load_policies
from stream_guard.stream.breaker.limits import LimitFinder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from stream_guard.policies.policy import PolicySet
    from stream_guard.policies.reload import ReloadOutcome
    from stream_guard.service.health.state import Health
    from stream_guard.settings import Settings
    from stream_guard.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)


def read_policies(settings: Settings) -> PolicySet:
    """Return the policies at ``policies.path``. Raises PolicyError."""
    return load_policies(
        settings.policies.path,
        effort=settings.engine.effort,
        reasoning_tokens_max=settings.engine.reasoning_tokens_max,
        answer=settings.engine.answer,
    )


def check_routes(policies: PolicySet, topics: Iterable[str], settings: Settings) -> None:
    """Raise PolicyError where a topic has neither a route nor a default, or shadows have no topic."""
    if policies.routing.shadows and settings.kafka.shadow_topic is None:
        message = (
            f"{settings.policies.path / 'routes.yaml'}: has shadows, whose verdicts must stay apart from those that "
            "are acted on; set kafka.shadow_topic (STREAM_GUARD_KAFKA__SHADOW_TOPIC), or remove shadows:"
        )
        raise PolicyError(message)
    for topic in topics:
        policies.route(topic)


def topics_without_route(policies: PolicySet, topics: Iterable[str]) -> list[str]:
    """Return, sorted, the topics that no policy judges."""
    found = []
    for topic in sorted(topics):
        try:
            policies.route_topic(topic)
        except PolicyError:
            found.append(topic)
    return found


def has_limits(settings: Settings, policies: PolicySet) -> bool:
    """Return whether the settings or any policy limit actions."""
    return LimitFinder(settings.actions.limits).any_limit(policies.policies.values())


def versions(policies: PolicySet) -> dict[str, str]:
    """Return the version of each policy, by its id."""
    return {policy.id: policy.version for policy in policies.policies.values()}


def make_reloader(
    settings: Settings,
    policies: PolicySet,
    *,
    prepare: Callable[[PolicySet], Awaitable[None]],
    switch: Callable[[PolicySet], None],
    health: Health,
    metrics: Metrics,
) -> PolicyReloader:
    """Return a reloader that shows live versions and rejected edits in health, metrics and log.

    Args:
        settings: the path, and what policies leave open.
        policies: what is live.
        prepare: makes ready to judge by edited policies; raises where that cannot be.
        switch: judges by them from now on.
        health: shows the live versions, and why an edit was refused.
        metrics: counts the outcomes.
    """

    def show(live: PolicySet, refused: str | None) -> None:
        health.details["policies"] = versions(live)
        health.details["policies_refused"] = refused

    def switch_and_show(edited: PolicySet) -> None:
        switch(edited)
        show(edited, None)

    def report(outcome: ReloadOutcome) -> None:
        metrics.policy_reloads.labels(outcome.kind).inc()
        show(reloader.live, outcome.message or None)
        live = versions(reloader.live)
        if outcome.kind == "refused":
            _log.warning("policies_refused", error=outcome.message, live=live)
        elif outcome.kind == "switched":
            _log.info("policies_switched", changed=outcome.changed, live=live)
        else:
            _log.info("policies_restored", live=live)

    show(policies, None)
    reloader = PolicyReloader(
        settings.policies.path,
        policies,
        prepare=prepare,
        switch=switch_and_show,
        report=report,
        effort=settings.engine.effort,
        reasoning_tokens_max=settings.engine.reasoning_tokens_max,
        answer=settings.engine.answer,
    )
    return reloader
