"""Routes a post to the policies that judge it: rules, then topics, then the default. Pure.

The first matching rule decides. Without one, the topic's entry decides: exact names before globs,
globs in their order. Without an entry, the default decides. Then canaries replace a policy by a new
version for a share of keys, and shadows add policies for a share of keys.

A hash decides whether a key is in a share. So every consumer and every run decides the same, and a
larger percentage only adds keys.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from fnmatch import translate
from typing import TYPE_CHECKING, Any

from stream_guard.core.vocabulary import Mode
from stream_guard.policies.lanes import Lanes
from stream_guard.policies.route_facts import Condition, RouteFacts, is_glob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "Canary",
    "Condition",
    "Mode",
    "NoRouteError",
    "RouteFacts",
    "RouteRule",
    "RoutedId",
    "Routing",
    "Shadow",
    "in_share",
]


class NoRouteError(LookupError):
    """A topic has no entry, and there is no default. Rules require a default, so there are no rules."""


@dataclass(slots=True, frozen=True)
class RouteRule:
    """Conditions that must all hold, and the policies that then judge."""

    name: str
    conditions: tuple[Condition, ...]
    policies: tuple[str, ...]

    def matches(self, facts: RouteFacts) -> bool:
        """Return whether every condition holds."""
        return all(condition.matches(facts) for condition in self.conditions)


@dataclass(slots=True, frozen=True)
class _Share:
    """A percentage of keys.

    Attributes:
        percent: 0 to 100.
        key: ``author``, ``id``, ``tenant``, ``language``, ``header:NAME`` or a JSON pointer.
    """

    percent: float
    key: str

    def value(self, facts: RouteFacts) -> str | None:
        """Return the post's key as text, or None where it has none; it is then in no share."""
        if self.key.startswith("header:"):
            return _text(facts.value("header", self.key.removeprefix("header:")))
        if self.key.startswith("/"):
            return _text(facts.value("field", self.key))
        return _text(getattr(facts, self.key))


def _text(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    return value if value is None or isinstance(value, str) else repr(value)


def in_share(salt: str, key: str, percent: float) -> bool:
    """Return whether a key is in a share of keys. The result never changes.

    The first 8 bytes of SHA-256 over salt, NUL and key are a number, evenly distributed below 2**64.
    The key is in the share if the number is below ``percent / 100 * 2**64``.
    """
    content = f"{salt}\0{key}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.sha256(content).digest()[:8])
    return number < percent / 100 * 2**64


@dataclass(slots=True, frozen=True)
class Canary(_Share):
    """Replaces ``policy`` by ``candidate`` for a share of keys; its verdicts are marked."""

    policy: str
    candidate: str

    def chosen(self, facts: RouteFacts) -> bool:
        """Return whether the candidate judges this post."""
        key = self.value(facts)
        return key is not None and in_share(f"canary:{self.candidate}", key, self.percent)


@dataclass(slots=True, frozen=True)
class Shadow(_Share):
    """Also judges a share of keys under ``policy``; nobody acts on these verdicts.

    ``beside`` limits it to posts that this policy judges; None for every post.
    """

    policy: str
    beside: str | None = None

    def chosen(self, facts: RouteFacts) -> bool:
        """Return whether the shadow judges this post, if ``beside`` allows."""
        key = self.value(facts)
        return key is not None and in_share(f"shadow:{self.policy}", key, self.percent)


@dataclass(slots=True, frozen=True)
class RoutedId:
    """A policy that judges a post.

    Attributes:
        policy: its id.
        mode: ``live``; ``canary``: replaces another policy, and is marked; ``shadow``: nobody acts on it.
        stands_for: of a canary, the id of the policy that it replaces.
    """

    policy: str
    mode: Mode = "live"
    stands_for: str | None = None


@dataclass(slots=True, frozen=True)
class Routing:
    """All routes.

    Attributes:
        rules: in their order; the first match decides.
        topics: ids by topic name or glob; exact names win, then the file's order.
        default: for every other post.
        canaries, shadows: applied afterwards.
        lanes: of the posts, whichever policies judge them.
    """

    rules: tuple[RouteRule, ...] = ()
    topics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default: tuple[str, ...] = ()
    canaries: tuple[Canary, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    lanes: Lanes = field(default_factory=Lanes)
    _globs: tuple[tuple[str, re.Pattern[str]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        globs = [(name, re.compile(translate(name))) for name in self.topics if is_glob(name)]
        object.__setattr__(self, "_globs", tuple(globs))

    def named(self) -> dict[str, str]:
        """Return every policy id with the first place that names it."""
        places: dict[str, str] = {}
        for rule in self.rules:
            places |= {i: f"rule {rule.name!r}" for i in rule.policies if i not in places}
        for topic, ids in self.topics.items():
            places |= {i: f"topics: {topic}" for i in ids if i not in places}
        places |= {i: "default" for i in self.default if i not in places}
        for canary in self.canaries:
            places.setdefault(canary.candidate, f"canary of {canary.policy}")
        for shadow in self.shadows:
            places.setdefault(shadow.policy, "shadow")
        return places

    def route(self, facts: RouteFacts) -> tuple[RoutedId, ...]:
        """Return the policies that judge a post, in order, each once.

        Raises:
            NoRouteError: nothing matches and there is no default.
        """
        _, ids = self._base(facts)
        return self._with_shares(ids, facts)

    def fixed(self, topic: str) -> tuple[RoutedId, ...] | None:
        """Return the policies that judge every post of a topic, or None where they depend on the post.

        Raises:
            NoRouteError: as :meth:`route`.
        """
        if self.canaries or self.shadows:
            return None
        facts = RouteFacts(topic)
        for rule in self.rules:
            others = [c for c in rule.conditions if c.kind != "topic"]
            if all(c.matches(facts) for c in rule.conditions if c.kind == "topic"):
                if others:
                    return None
                break
        return self.route(facts)

    def explain(self, facts: RouteFacts) -> Iterator[str]:
        """Yield lines that explain how a post is routed.

        Raises:
            NoRouteError: as :meth:`route`.
        """
        for rule in self.rules:
            failed = next((c for c in rule.conditions if not c.matches(facts)), None)
            if failed is None:
                yield f"rule {rule.name!r} matches"
                break
            yield f"rule {rule.name!r} does not match; condition not met: {failed}"
        place, ids = self._base(facts)
        yield f"{place} names {', '.join(ids)}"
        for canary in self.canaries:
            if canary.policy in ids:
                yield _explain_share(
                    f"canary {canary.candidate} for {canary.policy}", canary, facts
                )
        for shadow in self.shadows:
            if shadow.beside is None or shadow.beside in ids:
                yield _explain_share(f"shadow {shadow.policy}", shadow, facts)

    def _base(self, facts: RouteFacts) -> tuple[str, tuple[str, ...]]:
        """Return the route that decides, as text, and its policy ids."""
        for rule in self.rules:
            if rule.matches(facts):
                return f"rule {rule.name!r}", rule.policies
        if ids := self.topics.get(facts.topic):
            return f"topic {facts.topic!r}", ids
        for name, pattern in self._globs:
            if pattern.fullmatch(facts.topic):
                return f"topic {name!r}", self.topics[name]
        if not self.default:
            message = f"topic {facts.topic!r} has no route and there is no default"
            raise NoRouteError(message)
        return "the default", self.default

    def _with_shares(self, ids: tuple[str, ...], facts: RouteFacts) -> tuple[RoutedId, ...]:
        routed: dict[str, RoutedId] = {}
        for policy in ids:
            canary = next(
                (c for c in self.canaries if c.policy == policy and c.chosen(facts)), None
            )
            if canary is None:
                routed.setdefault(policy, RoutedId(policy))
            else:
                mark = RoutedId(canary.candidate, "canary", policy)
                routed.setdefault(canary.candidate, mark)
        for shadow in self.shadows:
            if (shadow.beside is None or shadow.beside in ids) and shadow.chosen(facts):
                routed.setdefault(shadow.policy, RoutedId(shadow.policy, "shadow"))
        return tuple(routed.values())


def _explain_share(what: str, share: Canary | Shadow, facts: RouteFacts) -> str:
    key = share.value(facts)
    if key is None:
        return f"{what}: no, the post has no {share.key}"
    verdict = "yes" if share.chosen(facts) else "no"
    return f"{what}: {verdict}, by {share.key}, at {share.percent:g} %"
