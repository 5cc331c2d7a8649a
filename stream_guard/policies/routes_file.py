"""Reads ``routes.yaml`` into a Routing, and reports every error with its line. Pure.

``default`` and ``topics`` are enough for most sets; ``rules``, ``canaries``, ``shadows`` and ``lanes`` add to
them. A route to an unknown policy is rejected.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BaseModel, Field, StrictStr

from stream_guard.core.english import did_you_mean
from stream_guard.policies.lanes_file import LANES_MAX, LaneEntry, read_lanes
from stream_guard.policies.routing import Canary, RouteRule, Routing, Shadow
from stream_guard.policies.when import STRICT, Topic, When, is_pointer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from stream_guard.policies.yaml_document import Document

__all__ = ["RULES_MAX", "read_routes"]

RULES_MAX: Final = 1_000
_IDS_MAX: Final = 500


def _is_key(key: str) -> str:
    if key in {"author", "id", "tenant", "language"} or re.fullmatch(r"header:.+", key):
        return key
    if key.startswith("/"):
        return is_pointer(key)
    message = "must be author, id, tenant, language, header:NAME or a JSON pointer such as /thread"
    raise ValueError(message)


_Slug = StrictStr
_Slugs = Annotated[list[_Slug], Field(min_length=1, max_length=_IDS_MAX)]
_Percent = Annotated[float, Field(ge=0, le=100)]


class _Rule(BaseModel):
    model_config = STRICT

    name: Annotated[StrictStr, Field(min_length=1, max_length=100)]
    when: When
    policies: _Slugs


class _Canary(BaseModel):
    model_config = STRICT

    policy: _Slug
    candidate: _Slug
    percent: _Percent
    key: Annotated[StrictStr, AfterValidator(_is_key)] = "author"


class _Shadow(BaseModel):
    model_config = STRICT

    policy: _Slug
    percent: _Percent = 100.0
    key: Annotated[StrictStr, AfterValidator(_is_key)] = "id"
    beside: _Slug | None = None


class _Routes(BaseModel):
    """``routes.yaml``."""

    model_config = STRICT

    default: _Slugs | None = None
    topics: dict[Topic, _Slugs] = Field(default_factory=dict)
    rules: Annotated[list[_Rule], Field(max_length=RULES_MAX)] = Field(default_factory=list)
    canaries: list[_Canary] = Field(default_factory=list)
    shadows: list[_Shadow] = Field(default_factory=list)
    lanes: Annotated[list[LaneEntry], Field(max_length=LANES_MAX)] = Field(default_factory=list)

    def named(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield every policy id with its path in the file."""
        lists: list[tuple[tuple[str | int, ...], list[str]]] = [(("default",), self.default or [])]
        lists += [(("topics", topic), slugs) for topic, slugs in self.topics.items()]
        lists += [(("rules", i, "policies"), rule.policies) for i, rule in enumerate(self.rules)]
        for path, slugs in lists:
            yield from (((*path, index), slug) for index, slug in enumerate(slugs))
        for index, canary in enumerate(self.canaries):
            yield ("canaries", index, "policy"), canary.policy
            yield ("canaries", index, "candidate"), canary.candidate
        for index, shadow in enumerate(self.shadows):
            yield ("shadows", index, "policy"), shadow.policy
            if shadow.beside is not None:
                yield ("shadows", index, "beside"), shadow.beside


def read_routes(document: Document, known: Collection[str]) -> Routing:
    """Make a Routing from ``routes.yaml``.

    Args:
        document: the file.
        known: ids of all policies.

    Raises:
        PolicyError: a key or value is invalid, a policy does not exist or is a duplicate, there are rules without
            a default, or a lane can never take a post.
    """
    routes = document.check(_Routes)
    for path, slug in routes.named():
        if slug not in known:
            message = (
                f"no policy {slug!r}{did_you_mean(slug, known)}; correct it, or add {slug}/policy.md "
                f"(known: {', '.join(sorted(known))})"
            )
            raise document.error(path, message)
    _check_twice(document, routes)
    _check_shares(document, routes)
    example = f"'default: [{next(iter(known))}]'"
    if routes.default is None and not routes.topics:
        raise document.error((), f"no routes; add a default, for example {example}")
    if routes.default is None and routes.rules:
        message = f"rules need a default for posts that match no rule; add for example {example}"
        raise document.error(("rules",), message)
    return Routing(
        tuple(
            RouteRule(r.name, tuple(r.when.conditions()), tuple(r.policies)) for r in routes.rules
        ),
        {topic: tuple(slugs) for topic, slugs in routes.topics.items()},
        tuple(routes.default or ()),
        tuple(Canary(c.percent, c.key, c.policy, c.candidate) for c in routes.canaries),
        tuple(Shadow(s.percent, s.key, s.policy, s.beside) for s in routes.shadows),
        read_lanes(document, routes.lanes),
    )


def _check_twice(document: Document, routes: _Routes) -> None:
    """Reject duplicate policies in a list, and duplicate rule names."""
    seen: set[tuple[tuple[str | int, ...], str]] = set()
    for path, slug in routes.named():
        if isinstance(path[-1], int):
            if (path[:-1], slug) in seen:
                raise document.error(path, f"duplicate policy {slug!r}; keep one")
            seen.add((path[:-1], slug))
    names: set[str] = set()
    for index, rule in enumerate(routes.rules):
        if rule.name in names:
            message = f"duplicate rule name {rule.name!r}; give each rule its own"
            raise document.error(("rules", index, "name"), message)
        names.add(rule.name)


def _check_shares(document: Document, routes: _Routes) -> None:
    """Reject contradictory canaries and shadows."""
    stable = [canary.policy for canary in routes.canaries]
    for index, canary in enumerate(routes.canaries):
        path = ("canaries", index)
        if canary.policy in stable[:index]:
            message = f"{canary.policy!r} already has a canary; keep one"
            raise document.error((*path, "policy"), message)
        if canary.candidate in stable:
            message = f"{canary.candidate!r} has its own canary, or is its own candidate; name another policy"
            raise document.error((*path, "candidate"), message)
    shadows = [shadow.policy for shadow in routes.shadows]
    for index, shadow in enumerate(routes.shadows):
        if shadow.policy in shadows[:index]:
            message = f"{shadow.policy!r} is already a shadow; keep one"
            raise document.error(("shadows", index, "policy"), message)
        if shadow.policy == shadow.beside:
            message = "a policy cannot be beside itself; name another one"
            raise document.error(("shadows", index, "beside"), message)
