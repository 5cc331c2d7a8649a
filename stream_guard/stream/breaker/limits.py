"""Finds the limits that hold for an action: the operator's and the policy's. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.settings.actions import EACH, ActionLimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_guard.policies.policy import Policy
    from stream_guard.settings.actions import LimitTerms, Window

UNLIMITED_ACTIONS: Final = frozenset({"none", "review"})
"""Actions that take nothing from anybody; no limit counts them."""
_CACHED_MAX: Final = 20_000


class Scope(NamedTuple):
    """What one counter counts. None stands for all together.

    Attributes:
        window: the time over which it counts.
        policy, tenant, action: names.
    """

    window: Window
    policy: str | None = None
    tenant: str | None = None
    action: str | None = None

    @property
    def posts(self) -> Scope:
        """The counter that has the posts for this one's share."""
        return self._replace(action=None)


class Held(NamedTuple):
    """A counter, and the limits that hold for it: the strictest decides.

    Attributes:
        scope: the counter.
        terms: of each limit.
    """

    scope: Scope
    terms: tuple[LimitTerms, ...]


class LimitFinder:
    """Finds limits.

    Args:
        limits: the operator's.
    """

    def __init__(self, limits: Sequence[ActionLimit]) -> None:
        self._limits = tuple(limits)
        self._known: dict[tuple[str, str, str | None, str | None], tuple[Held, ...]] = {}

    def limits(self, policy: Policy) -> bool:
        """Return whether any limit can hold for this policy's verdicts."""
        return bool(policy.limits) or any(
            one.policy in (None, EACH, policy.id) for one in self._limits
        )

    def any_limit(self, policies: Iterable[Policy]) -> bool:
        """Return whether there is any limit at all."""
        return bool(self._limits) or any(policy.limits for policy in policies)

    def of_action(self, policy: Policy, tenant: str | None, action: str) -> tuple[Held, ...]:
        """Return the counters that an action must fit in."""
        return self._find(policy, tenant, action)

    def of_post(self, policy: Policy, tenant: str | None) -> tuple[Scope, ...]:
        """Return the counters that count a post: those of limits on shares."""
        shares = (
            held.scope
            for held in self._find(policy, tenant, None)
            if any(term.share_max is not None for term in held.terms)
        )
        return tuple(dict.fromkeys(scope.posts for scope in shares))

    def _find(self, policy: Policy, tenant: str | None, action: str | None) -> tuple[Held, ...]:
        key = policy.id, policy.sha256, tenant, action
        known = self._known.get(key)
        if known is None:
            known = self._resolve(policy, tenant, action)
            if len(self._known) >= _CACHED_MAX:
                self._known.clear()
            self._known[key] = known
        return known

    def _resolve(self, policy: Policy, tenant: str | None, action: str | None) -> tuple[Held, ...]:
        """Return the counters, each once; with ``action`` None, those of every action."""
        found: dict[Scope, list[LimitTerms]] = {}
        for terms in (*self._limits, *policy.limits):
            named = terms.policy if isinstance(terms, ActionLimit) else policy.id
            names = ((named, policy.id), (terms.tenant, tenant), (terms.action, action))
            of_any_action = action is None
            if any(
                wanted not in (None, EACH, actual)
                for wanted, actual in (names[:2] if of_any_action else names)
            ):
                continue
            if terms.tenant == EACH and tenant is None:
                continue  # a post without a tenant belongs to none
            counted = [None if wanted is None else actual for wanted, actual in names]
            found.setdefault(Scope(terms.window, *counted), []).append(terms)
        return tuple(Held(scope, tuple(terms)) for scope, terms in found.items())
