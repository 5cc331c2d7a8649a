"""Policies and routes: an immutable snapshot, and what a bare policy text says about itself. Pure.

What it must never do: change after it was made. A new text is a new :class:`PolicySet`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError
from stream_guard.policies.calibration import read_calibration
from stream_guard.policies.metadata import PolicyMeta
from stream_guard.policies.routing import NoRouteError, RouteFacts, Routing
from stream_guard.policies.rules.compile import read_rules
from stream_guard.policies.taxonomy import Category, Taxonomy, infer_taxonomy
from stream_guard.policies.text import decode_utf8
from stream_guard.policies.yaml_document import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.core.vocabulary import Effort, Mode, Severity, Tier, Undetermined
    from stream_guard.policies.calibration import Calibration
    from stream_guard.policies.metadata import Thresholds
    from stream_guard.policies.routing import RoutedId
    from stream_guard.policies.rules.ruleset import RuleSet

__all__ = [
    "CATEGORIES_MAX",
    "POLICY_BYTES_MAX",
    "RULE_IDS_MAX",
    "Category",
    "Policy",
    "PolicySet",
    "Taxonomy",
    "make_policy",
    "policy_sha256",
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
            bytes; with a ``rules.yaml``, of all that, a NUL and the rules' own ``sha256`` in hex:
            whatever changes how posts are judged changes it.
        text: the file's text, unmodified.
        taxonomy: its categories and rule ids, and which of them violate.
        effort: how long the model should reason.
        reasoning_tokens_max: the reasoning budget, in tokens; exact.
        action: recommended to enforcement when a post violates and its category names none.
        tiers: which tiers a post passes, in order; None for those of the settings.
        classifier: as ``policy.yaml`` names it, or None for that of the settings.
        thresholds: of the classifier, or None for none.
        undetermined: what enforcement should do with a post that could not be decided.
        golden_set: name of a CSV file in the policy's folder, or None.
        rules: what is settled before a model is asked, or None where there is no ``rules.yaml``.
        calibration: of the judge's confidence; no part of ``sha256``, since it says which one it is for.
        folder: where its files lie, which it may name by relative paths; no part of what it is.
        files: bytes of the files that it was made of, by name, for the archive; no part of what it is either.
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
    classifier: str | None = None
    thresholds: Thresholds | None = None
    undetermined: Undetermined = "hold"
    golden_set: str | None = None
    rules: RuleSet | None = None
    calibration: Calibration | None = None
    folder: str = field(default="", compare=False)
    files: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    def action_for(self, code: str | None) -> str:
        """Return the action to recommend for a post that violates in this category, if known."""
        category = self.taxonomy.category(code) if code is not None else None
        return category.action if category and category.action else self.action

    def severity_of(self, code: str | None) -> Severity | None:
        """Return what ``policy.yaml`` says of how grave this category is, if anything."""
        category = self.taxonomy.category(code) if code is not None else None
        return category.severity if category else None


def make_policy(
    policy_id: str,
    content: bytes,
    *,
    effort: Effort = "low",
    reasoning_tokens_max: int = 512,
    source: str | None = None,
    metadata: bytes | None = None,
    rules: Mapping[str, bytes] | None = None,
    calibration: bytes | None = None,
) -> Policy:
    """Make a policy of a ``policy.md`` file's bytes, and of those of the files beside it.

    Args:
        policy_id: the folder's name.
        content: the bytes of ``policy.md``.
        effort: how long the model should reason.
        reasoning_tokens_max: in tokens.
        source: the file's name in error messages; by default ``<policy_id>/policy.md``.
        metadata: the bytes of ``policy.yaml``, or None where there is none.
        rules: the bytes of ``rules.yaml`` and of the files that it names, by name; empty or None
            where there is none.
        calibration: the bytes of ``calibration.json``, or None where there is none.

    Raises:
        PolicyError: the text is empty, too large, not UTF-8, holds a NUL character or names too
            many categories or rule ids; or metadata, rules or calibration do not fit their model.
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
    meta = PolicyMeta()
    if metadata is not None:
        document = read_yaml(metadata, str(PurePath(source).with_name("policy.yaml")))
        meta = document.check(PolicyMeta)
        taxonomy = meta.apply(taxonomy, document)
    _check_size(taxonomy, source)
    rule_set = None
    if rules:
        rule_set = read_rules(rules, taxonomy, str(PurePath(source).parent))
    sha256 = policy_sha256(content, metadata, rule_set.sha256 if rule_set else None)
    files = {"policy.md": content, "policy.yaml": metadata, "calibration.json": calibration}
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
        classifier=meta.classifier,
        thresholds=meta.thresholds,
        undetermined=meta.undetermined or "hold",
        golden_set=meta.golden_set,
        rules=rule_set,
        calibration=None
        if calibration is None
        else read_calibration(calibration, str(PurePath(source).with_name("calibration.json"))),
        folder=str(PurePath(source).parent),
        files={name: held for name, held in files.items() if held is not None} | dict(rules or {}),
    )


def policy_sha256(content: bytes, metadata: bytes | None, rules_sha256: str | None) -> str:
    """Return a policy's digest, of its text, its ``policy.yaml`` and the digest of its rules, in hex."""
    digest = hashlib.sha256(content)
    if metadata is not None:
        digest.update(b"\0" + metadata)
    if rules_sha256 is not None:
        digest.update(f"\0{rules_sha256}".encode())
    return digest.hexdigest()


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
class RoutedPolicy:
    """A policy that judges a post.

    Attributes:
        policy: by which it is judged.
        mode: ``live``; ``canary``: the verdict is to be marked; ``shadow``: never to be acted on.
        stands_for: of a canary, the id of the policy that it stands in for.
    """

    policy: Policy
    mode: Mode = "live"
    stands_for: str | None = None


@dataclass(slots=True, frozen=True)
class PolicySet:
    """A snapshot of all policies and routes.

    Attributes:
        policies: by id.
        topics: ids of the policies that judge a topic's posts; names may be globs.
        default: ids of those for every other topic; may be empty.
        routing: all routes, with rules, canaries and shadows; by default made of the two above.
        sha256: hex digest of all that it was made of; empty where it was not made of files.
    """

    policies: Mapping[str, Policy]
    topics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default: tuple[str, ...] = ()
    routing: Routing = field(default_factory=Routing)
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.routing == Routing():
            object.__setattr__(self, "routing", Routing((), self.topics, self.default))
        for policy_id, where in self.routing.named().items():
            if policy_id not in self.policies:
                known = ", ".join(sorted(self.policies)) or "none"
                message = (
                    f"routes.yaml: {where} names the policy {policy_id!r}, which does not exist "
                    f"(known: {known})"
                )
                raise PolicyError(message)

    @classmethod
    def of(cls, policies: Mapping[str, Policy], routing: Routing, sha256: str = "") -> PolicySet:
        """Return a set with these routes. Raises PolicyError where one names no policy."""
        return cls(policies, routing.topics, routing.default, routing, sha256)

    def route(self, topic: str) -> tuple[Policy, ...]:
        """Return the policies that judge a topic's posts where no rule, canary or shadow applies.

        Raises:
            PolicyError: the topic has no route, and there is no default.
        """
        return tuple(routed.policy for routed in self.route_post(RouteFacts(topic)))

    def route_post(self, facts: RouteFacts) -> tuple[RoutedPolicy, ...]:
        """Return the policies that judge a post, in order, each once; never empty.

        Raises:
            PolicyError: the topic has no route, and there is no default.
        """
        try:
            return self._resolve(self.routing.route(facts))
        except NoRouteError as error:
            raise self._no_route(facts.topic, error) from error

    def route_topic(self, topic: str) -> tuple[RoutedPolicy, ...] | None:
        """Return the policies of all posts of a topic, or None where they depend on the post.

        Raises:
            PolicyError: the topic has no route, and there is no default.
        """
        try:
            routed = self.routing.fixed(topic)
        except NoRouteError as error:
            raise self._no_route(topic, error) from error
        return None if routed is None else self._resolve(routed)

    def _resolve(self, routed: tuple[RoutedId, ...]) -> tuple[RoutedPolicy, ...]:
        return tuple(RoutedPolicy(self.policies[r.policy], r.mode, r.stands_for) for r in routed)

    def _no_route(self, topic: str, error: NoRouteError) -> PolicyError:
        example = f"topics: {{{topic}: [{next(iter(self.policies), 'SLUG')}]}}"
        return PolicyError(f"{error}; add it to routes.yaml, for example: {example}")
