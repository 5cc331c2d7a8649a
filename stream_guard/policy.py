"""Policies and routes: an immutable snapshot, and what a bare policy text says about itself. Pure.

What it must never do: change after it was made. A new text is a new :class:`PolicySet`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from stream_guard.errors import PolicyError
from stream_guard.policy_meta import PolicyMeta
from stream_guard.policy_text import decode_utf8
from stream_guard.policy_yaml import read_yaml
from stream_guard.taxonomy import Category, Taxonomy, infer_taxonomy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.judge import Effort
    from stream_guard.policy_meta import Thresholds, Tier, Undetermined

__all__ = [
    "CATEGORIES_MAX",
    "POLICY_BYTES_MAX",
    "RULE_IDS_MAX",
    "Category",
    "Policy",
    "PolicySet",
    "Taxonomy",
    "make_policy",
]

POLICY_BYTES_MAX: Final = 262_144
"""The largest ``policy.md``, in bytes: several times what a model can follow."""
CATEGORIES_MAX: Final = 200
RULE_IDS_MAX: Final = 2_000


@dataclass(slots=True, frozen=True)
class Policy:
    """One policy, as judged by.

    Attributes:
        id: the folder's name (slug).
        version: the label that people use; by default the first 12 hex digits of ``sha256``.
        sha256: hex digest of ``policy.md``'s bytes; with a ``policy.yaml``, of those, a NUL and its
            bytes: whatever changes how posts are judged changes it.
        text: the file's text, unmodified.
        taxonomy: its categories and rule ids, and which of them violate.
        effort: how long the model should reason.
        reasoning_tokens_max: the reasoning budget, in tokens; exact.
        action: recommended to enforcement when a post violates and its category names none.
        tiers: which tiers a post passes, in order; None for those of the settings.
        thresholds: of the classifier, or None for none.
        undetermined: what enforcement should do with a post that could not be decided.
        golden_set: name of a CSV file in the policy's folder, or None.
    """

    id: str
    version: str
    sha256: str
    text: str
    taxonomy: Taxonomy
    effort: Effort = "low"
    reasoning_tokens_max: int = 512
    action: str = "review"
    tiers: tuple[Tier, ...] | None = None
    thresholds: Thresholds | None = None
    undetermined: Undetermined = "hold"
    golden_set: str | None = None

    def action_for(self, code: str | None) -> str:
        """Return the action to recommend for a post that violates in this category, if known."""
        category = self.taxonomy.category(code) if code is not None else None
        return category.action if category and category.action else self.action


def make_policy(
    policy_id: str,
    content: bytes,
    *,
    effort: Effort = "low",
    reasoning_tokens_max: int = 512,
    source: str | None = None,
    metadata: bytes | None = None,
) -> Policy:
    """Make a policy of a ``policy.md`` file's bytes, and of those of a ``policy.yaml`` beside it.

    Args:
        policy_id: the folder's name.
        content: the bytes of ``policy.md``.
        effort: how long the model should reason.
        reasoning_tokens_max: in tokens.
        source: the file's name in error messages; by default ``<policy_id>/policy.md``.
        metadata: the bytes of ``policy.yaml``, or None where there is none.

    Raises:
        PolicyError: the text is empty, too large, not UTF-8, holds a NUL character or names too
            many categories or rule ids; or the metadata does not fit its model.
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
    taxonomy = infer_taxonomy(text)
    digest = hashlib.sha256(content)
    meta = PolicyMeta()
    if metadata is not None:
        digest.update(b"\0" + metadata)
        document = read_yaml(metadata, str(PurePath(source).with_name("policy.yaml")))
        meta = document.check(PolicyMeta)
        taxonomy = meta.apply(taxonomy, document)
    _check_size(taxonomy, source)
    sha256 = digest.hexdigest()
    return Policy(
        id=policy_id,
        version=meta.version or sha256[:12],
        sha256=sha256,
        text=text,
        taxonomy=taxonomy,
        effort=meta.effort or effort,
        reasoning_tokens_max=meta.reasoning_tokens_max or reasoning_tokens_max,
        action=meta.action or "review",
        tiers=tuple(meta.tiers) if meta.tiers else None,
        thresholds=meta.thresholds,
        undetermined=meta.undetermined or "hold",
        golden_set=meta.golden_set,
    )


def _check_size(taxonomy: Taxonomy, source: str) -> None:
    """Refuse what would make the grammar of answers enormous."""
    for what, number, limit in (
        ("categories", len(taxonomy.categories), CATEGORIES_MAX),
        ("rule ids", len(taxonomy.rule_ids), RULE_IDS_MAX),
    ):
        if number > limit:
            message = f"{source}: {number} {what}, over the limit of {limit}; split the policy"
            raise PolicyError(message)


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
