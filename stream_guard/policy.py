"""Policies and routes: an immutable snapshot, and what a bare policy text says about itself. Pure.

What it must never do: change after it was made. A new text is a new :class:`PolicySet`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_guard.errors import PolicyError
from stream_guard.taxonomy import Category, Taxonomy, infer_taxonomy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.judge import Effort

__all__ = ["Category", "Policy", "PolicySet", "Taxonomy", "make_policy"]


@dataclass(slots=True, frozen=True)
class Policy:
    """One policy, as judged by.

    Attributes:
        id: the folder's name (slug).
        version: the label that people use; by default the first 12 hex digits of ``sha256``.
        sha256: hex digest of the file's bytes.
        text: the file's text, unmodified.
        taxonomy: its categories and rule ids, and which of them violate.
        effort: how long the model should reason.
        reasoning_tokens_max: the reasoning budget, in tokens; exact.
        action: recommended to enforcement when a post violates.
    """

    id: str
    version: str
    sha256: str
    text: str
    taxonomy: Taxonomy
    effort: Effort = "low"
    reasoning_tokens_max: int = 512
    action: str = "review"


def make_policy(policy_id: str, content: bytes, *, effort: Effort = "low",
                reasoning_tokens_max: int = 512) -> Policy:
    """Make a policy of a ``policy.md`` file's bytes.

    Raises:
        PolicyError: it is empty or not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"policy {policy_id!r}: line {line} is not UTF-8; save the file as UTF-8"
        raise PolicyError(message) from error
    if not text.strip():
        message = f"policy {policy_id!r} is empty; write the policy or remove its folder"
        raise PolicyError(message)
    sha256 = hashlib.sha256(content).hexdigest()
    return Policy(
        id=policy_id,
        version=sha256[:12],
        sha256=sha256,
        text=text,
        taxonomy=infer_taxonomy(text),
        effort=effort,
        reasoning_tokens_max=reasoning_tokens_max,
    )


@dataclass(slots=True, frozen=True)
class PolicySet:
    """A snapshot of all policies and routes.

    Attributes:
        policies: by id.
        topics: ids of the policies that judge a topic's posts.
        default: ids of those for every other topic; may be empty.
    """

    policies: Mapping[str, Policy]
    topics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for where, ids in (("default", self.default), *self.topics.items()):
            for policy_id in ids:
                if policy_id not in self.policies:
                    known = ", ".join(sorted(self.policies)) or "none"
                    message = (
                        f"routes.yaml: {where!r} names the policy {policy_id!r}, which does not "
                        f"exist (known: {known})"
                    )
                    raise PolicyError(message)

    def route(self, topic: str) -> tuple[Policy, ...]:
        """Return the policies that a post of this topic is judged by, in the order given.

        Raises:
            PolicyError: the topic has no route, and there is no default.
        """
        ids = self.topics.get(topic) or self.default
        if not ids:
            message = (
                f"topic {topic!r} has no route and there is no default; add it to routes.yaml, "
                f"for example: topics: {{{topic}: [{next(iter(self.policies), 'SLUG')}]}}"
            )
            raise PolicyError(message)
        return tuple(self.policies[policy_id] for policy_id in ids)
