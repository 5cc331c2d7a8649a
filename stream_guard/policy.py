"""Policies and routes: an immutable snapshot, and what a bare policy text says about itself. Pure.

What it must never do: change after it was made. A new text is a new :class:`PolicySet`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stream_guard.errors import PolicyError
from stream_guard.policy_text import decode_utf8
from stream_guard.taxonomy import Category, Taxonomy, infer_taxonomy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.judge import Effort

__all__ = ["POLICY_BYTES_MAX", "Category", "Policy", "PolicySet", "Taxonomy", "make_policy"]

POLICY_BYTES_MAX: Final = 262_144
"""The largest ``policy.md``, in bytes: several times what a model can follow."""


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


def make_policy(
    policy_id: str,
    content: bytes,
    *,
    effort: Effort = "low",
    reasoning_tokens_max: int = 512,
    source: str | None = None,
) -> Policy:
    """Make a policy of a ``policy.md`` file's bytes.

    Args:
        policy_id: the folder's name.
        content: the file's bytes; their sha256 is the policy's identity.
        effort: how long the model should reason.
        reasoning_tokens_max: in tokens.
        source: the file's name in error messages; by default ``<policy_id>/policy.md``.

    Raises:
        PolicyError: it is empty, too large, not UTF-8, or holds a NUL character.
    """
    source = source or f"{policy_id}/policy.md"
    if len(content) > POLICY_BYTES_MAX:
        message = (
            f"{source}: over {POLICY_BYTES_MAX:,} bytes; a policy is read with every post, and "
            "400 to 600 tokens work best: shorten it, or split it into several policies"
        )
        raise PolicyError(message)
    text = decode_utf8(content, source)
    if not text.strip():
        message = f"{source}: empty; write the policy, or remove its folder"
        raise PolicyError(message)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        message = f"{source}:{line}: holds a NUL character; remove it, or save the file as UTF-8"
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
