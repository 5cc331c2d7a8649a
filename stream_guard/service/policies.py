"""The policies of the running service: read at the start, and checked against its topics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.core.errors import PolicyError
from stream_guard.policies.store import load_policies

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_guard.policies.policy import PolicySet
    from stream_guard.settings import Settings


def read_policies(settings: Settings) -> PolicySet:
    """Return the policies at ``policies.path``. Raises PolicyError."""
    return load_policies(
        settings.policies.path,
        effort=settings.engine.effort,
        reasoning_tokens_max=settings.engine.reasoning_tokens_max,
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
