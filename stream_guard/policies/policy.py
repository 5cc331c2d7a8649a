"""Policies and routes as an immutable snapshot. A new text makes a new :class:`PolicySet`. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from stream_guard.core.decoding import GREEDY, Decoding
from stream_guard.core.errors import PolicyError
from stream_guard.policies.calibration import read_calibration
from stream_guard.policies.metadata import Gates, PolicyMeta
from stream_guard.policies.routing import NoRouteError, RouteFacts, Routing
from stream_guard.policies.rules.compile import read_rules
from stream_guard.policies.taxonomy import Category, Taxonomy, infer_taxonomy
from stream_guard.policies.text import decode_utf8
from stream_guard.policies.yaml_document import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.vocabulary import (
        AnswerMode,
        Effort,
        JudgeUnit,
        Mode,
        Severity,
        Tier,
        Undetermined,
    )
    from stream_guard.policies.answer_format import AnswerFormat
    from stream_guard.policies.calibration import Calibration
    from stream_guard.policies.metadata import Thresholds
    from stream_guard.policies.outcomes import Outcome
    from stream_guard.policies.routing import RoutedId
    from stream_guard.policies.rules.ruleset import RuleSet
    from stream_guard.settings.actions import LimitTerms

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
"""The largest ``policy.md``, in bytes; a model follows much less."""
CATEGORIES_MAX: Final = 200
RULE_IDS_MAX: Final = 2_000


@dataclass(slots=True, frozen=True)
class Policy:
    """One policy.

    Attributes:
        id: the folder's name (slug).
        version: a name for people; by default the first 12 hex digits of ``sha256``.
        sha256: hex digest of everything that changes how posts are judged: the bytes of ``policy.md``; a
            NUL and the bytes of ``policy.yaml``, if any; a NUL and the rules' ``sha256`` in hex, if any.
        text: the file's text, unmodified.
        taxonomy: its categories and rule ids, and which of them violate.
        effort: how long the model reasons.
        reasoning_tokens_max: the exact reasoning budget, in tokens.
        decoding: how the tokens of its answers are chosen.
        action: recommended action for a violating post whose category has none.
        tiers: the tiers of a post, in order; None for those of the settings.
        classifier: as in ``policy.yaml``, or None for that of the settings.
        thresholds: of the classifier, or None.
        undetermined: recommended action for a post that could not be decided.
        judge: whether a post is judged alone, with its thread as context, or the thread as a whole.
        answer: ``native``: the policy is the whole developer message, and its text states the answer's format.
            ``structured``: Stream Guard states it.
        answer_format: the format that the text states, or why it cannot be read. A native policy has one.
        golden_set: name of a CSV file in the policy's folder, or None.
        rules: decide posts before the model, or None where there is no ``rules.yaml``.
        calibration: of the judge's confidence. Not part of ``sha256``, which it names.
        limits: on its actions, as in ``policy.yaml``.
        gates: as in ``policy.yaml``.
        folder: the folder of its files, for relative paths. Not compared.
        files: bytes of its files, by name, for the archive. Not compared.
    """

    id: str
    version: str
    sha256: str
    text: str
    taxonomy: Taxonomy
    effort: Effort = "low"
    reasoning_tokens_max: int = 512
    decoding: Decoding = GREEDY
    action: str = "review"
    tiers: tuple[Tier, ...] | None = None
    classifier: str | None = None
    thresholds: Thresholds | None = None
    undetermined: Undetermined = "hold"
    judge: JudgeUnit = "post"
    answer: AnswerMode = "structured"
    answer_format: AnswerFormat | str = "the text was not read"
    golden_set: str | None = None
    rules: RuleSet | None = None
    calibration: Calibration | None = None
    limits: tuple[LimitTerms, ...] = ()
    gates: Gates = field(default_factory=Gates)
    folder: str = field(default="", compare=False)
    files: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def native(self) -> AnswerFormat | None:
        """The format of the answers, if the policy is used natively."""
        if self.answer == "structured" or isinstance(self.answer_format, str):
            return None
        return self.answer_format

    def action_for(self, code: str | None, labels: Sequence[str] = ()) -> str:
        """Return the recommended action for a violation: that of its category, its label, or the policy.

        Args:
            code: of the category, or None.
            labels: of the answer.
        """
        category = self.taxonomy.category(code) if code is not None else None
        if category and category.action:
            return category.action
        outcome = self.outcome_of(code, labels)
        return outcome.action if outcome and outcome.action else self.action

    def outcome_of(self, code: str | None, labels: Sequence[str] = ()) -> Outcome | None:
        """Return the outcome of an answer by its label, else by its category; None where it has neither."""
        named = self.taxonomy.outcome(labels[0]) if labels else None
        category = self.taxonomy.category(code) if named is None and code is not None else None
        return self.taxonomy.outcome_of(category) if category is not None else named

    def severity_of(self, code: str | None) -> Severity | None:
        """Return the severity of this category in ``policy.yaml``, or None."""
        category = self.taxonomy.category(code) if code is not None else None
        return category.severity if category else None


# Over 60 lines: half of them are arguments and the fields of one result.
def make_policy(  # noqa: PLR0913 - each file and each default is an argument
    policy_id: str,
    content: bytes,
    *,
    effort: Effort = "low",
    reasoning_tokens_max: int = 512,
    answer: AnswerMode = "structured",
    source: str | None = None,
    metadata: bytes | None = None,
    rules: Mapping[str, bytes] | None = None,
    calibration: bytes | None = None,
) -> Policy:
    """Make a policy from the bytes of ``policy.md`` and of the files beside it.

    Args:
        policy_id: the folder's name.
        content: the bytes of ``policy.md``.
        effort: how long the model reasons, unless ``policy.yaml`` says.
        reasoning_tokens_max: in tokens, unless ``policy.yaml`` says.
        answer: how the model is asked, unless ``policy.yaml`` says.
        source: the file's name in error messages; by default ``<policy_id>/policy.md``.
        metadata: the bytes of ``policy.yaml``, or None where there is none.
        rules: the bytes of ``rules.yaml`` and of the files that it names, by name; empty or None
            where there is no ``rules.yaml``.
        calibration: the bytes of ``calibration.json``, or None where there is none.

    Raises:
        PolicyError: the text is empty, too large or not UTF-8, contains a NUL character, or has too
            many categories or rule ids; its answer format cannot be read, and it is used natively; or metadata, rules
            or calibration do not fit their model.
    """
    source = source or f"{policy_id}/policy.md"
    beside = PurePath(source)
    text = _read_text(content, source)
    taxonomy = infer_taxonomy(text)
    meta = PolicyMeta()
    if metadata is not None:
        document = read_yaml(metadata, str(beside.with_name("policy.yaml")))
        meta = document.check(PolicyMeta)
        taxonomy = meta.apply(taxonomy, document)
    _check_size(taxonomy, source)
    answer_format = meta.read_format(text, taxonomy)
    if (meta.answer or answer) == "native" and isinstance(answer_format, str):
        message = (
            f"{source}: answer: native, but {answer_format}; state the format at the top and the bottom of the text, "
            "declare answer_format in policy.yaml, or set answer: structured there"
        )
        raise PolicyError(message)
    rule_set = read_rules(rules, taxonomy, str(beside.parent)) if rules else None
    curve = None
    if calibration is not None:
        curve = read_calibration(calibration, str(beside.with_name("calibration.json")))
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
        decoding=GREEDY.changed(meta.temperature, meta.top_p, meta.samples),
        action=meta.action or "review",
        tiers=tuple(meta.tiers) if meta.tiers else None,
        classifier=meta.classifier,
        thresholds=meta.thresholds,
        undetermined=meta.undetermined or "hold",
        judge=meta.judge or "post",
        answer=meta.answer or answer,
        answer_format=answer_format,
        golden_set=meta.golden_set,
        rules=rule_set,
        calibration=curve,
        limits=tuple(meta.limits),
        gates=meta.gates,
        folder=str(beside.parent),
        files={name: held for name, held in files.items() if held is not None} | dict(rules or {}),
    )


def _read_text(content: bytes, source: str) -> str:
    """Return the text of a ``policy.md``. Raises PolicyError as :func:`make_policy`."""
    if len(content) > POLICY_BYTES_MAX:
        message = (
            f"{source}: over {POLICY_BYTES_MAX:,} bytes; the model reads a policy with every post, and "
            "400 to 600 tokens work best: shorten it, or split it into several policies"
        )
        raise PolicyError(message)
    text = decode_utf8(content, source)
    if not text.strip():
        message = f"{source}: empty; write the policy, or remove its folder"
        raise PolicyError(message)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        message = f"{source}:{line}: contains a NUL character; remove it, or save the file as UTF-8"
        raise PolicyError(message)
    return text


def policy_sha256(content: bytes, metadata: bytes | None, rules_sha256: str | None) -> str:
    """Return the hex digest of a policy: of its text, its ``policy.yaml`` and the digest of its rules."""
    digest = hashlib.sha256(content)
    if metadata is not None:
        digest.update(b"\0" + metadata)
    if rules_sha256 is not None:
        digest.update(f"\0{rules_sha256}".encode())
    return digest.hexdigest()


def _check_size(taxonomy: Taxonomy, source: str) -> None:
    """Reject a taxonomy that would make the grammar of answers too large."""
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
        policy: the policy.
        mode: ``live``; ``canary``: the verdict is marked; ``shadow``: nobody acts on the verdict.
        stands_for: of a canary, the id of the policy that it replaces.
    """

    policy: Policy
    mode: Mode = "live"
    stands_for: str | None = None


@dataclass(slots=True, frozen=True)
class PolicySet:
    """A snapshot of all policies and routes.

    Attributes:
        policies: by id.
        topics: ids of the policies that judge a topic's posts; topic names may be globs.
        default: ids of the policies for every other topic; may be empty.
        routing: all routes, with rules, canaries and shadows; by default made from ``topics`` and ``default``.
        sha256: hex digest of all its files; empty where it was not read from files.
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
        """Return a set with these routes. Raises PolicyError where a route names an unknown policy."""
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
        """Return the policies that judge every post of a topic, or None where they depend on the post.

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
