"""Makes the engine's requests from records with Stream Guard's own code, for the other sides of a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from stream_guard.judging.engine.plans import Planner
from stream_guard.judging.families.registry import load_family
from stream_guard.policies.routing import RouteFacts
from stream_guard.records.post import Post, PostParser
from stream_guard.service.policies import read_policies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.families.family import Sampling
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

_WARM_UP = Post(id="", text="warm-up", sha256="", text_bytes=0)


class Asked(NamedTuple):
    """One request: the post's id, its policy's, the prompt, and the first attempt's parameters and bound in tokens."""

    post: str
    policy: str
    ids: list[int]
    params: Any
    tokens_max: int


class Prompts:
    """Makes requests.

    Args:
        settings: all sections.
        make_params: of how an attempt is sampled, and whether tokens' probabilities are wanted.
    """

    def __init__(self, settings: Settings, make_params: Callable[[Sampling, bool], Any]) -> None:
        engine = settings.engine
        self.family = family = load_family(engine)
        self._planner = Planner(
            engine,
            family,
            lambda sampling, _: make_params(sampling, family.labels is not None),
        )
        self._policies = read_policies(settings)
        self._parser = PostParser(settings.post)
        (self._topic,) = settings.kafka.topics

    def of(self, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> Asked:
        """Return the request for a record's value, which has to have exactly one policy."""
        post, document = self._parser.parse_document(value, headers)
        (route,) = self._policies.route_post(RouteFacts.of(self._topic, headers, document, post))
        return self._asked(post, route.policy)

    def warm_ups(self) -> list[Asked]:
        """Return a request for each policy: what compiles its grammar and caches its prefix."""
        return [self._asked(_WARM_UP, policy) for policy in self._policies.policies.values()]

    def _asked(self, post: Post, policy: Policy) -> Asked:
        plan = self._planner.plan(policy)
        attempt = plan.attempts[0]
        ids = self.family.prompt(post, plan.prefix)
        return Asked(post.id, policy.id, ids, attempt.params, attempt.tokens_max)
