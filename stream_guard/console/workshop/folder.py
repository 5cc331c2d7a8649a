"""The folder of policies as pages show it: what is live, the drafts, and the routes. Everything here blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_guard.console.workshop.checked import Checked, check_texts
from stream_guard.core.errors import PolicyError, UnknownItemError
from stream_guard.policies.draft_editing import TEXTS, Texts, read_texts, texts_of
from stream_guard.policies.drafts import Draft, draft_folder, golden_file, read_draft
from stream_guard.policies.store import build_policies, read_policy_files
from stream_guard.policies.text import decode_utf8

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import Settings

__all__ = ["Desk", "Place", "has_draft", "load_set", "open_desk", "places_of"]


@dataclass(slots=True, frozen=True)
class Place:
    """Where posts come to a policy.

    Attributes:
        kind: ``topic``, ``rule``, ``default``, ``canary``, ``canary_of``, ``shadow`` or ``shadow_of``: those with
            ``_of`` name another policy that takes a share of this one's posts, or judges beside it.
        name: of the topic, the rule or the other policy.
        percent: the share of keys; None for all posts.
        drafted: whether the other policy has the files of this one's draft.
    """

    kind: str
    name: str
    percent: float | None = None
    drafted: bool = False


@dataclass(slots=True, frozen=True)
class Desk:
    """One policy, ready to be edited.

    Attributes:
        path: the folder of policies.
        policies: all live policies.
        live: the live version.
        live_texts: its texts.
        texts: those of the draft, or of the live version if there is no draft.
        checked: what can be said about the texts.
        draft: as it would be measured; None if there is none, or if it cannot be read.
        outdated: whether another version went live since the draft was made.
        golden: the golden set's file, which may be missing.
    """

    path: Path
    policies: PolicySet
    live: Policy
    live_texts: Mapping[str, str]
    texts: Texts
    checked: Checked
    draft: Draft | None
    outdated: bool
    golden: Path

    def places(self) -> list[Place]:
        """Return where posts come to the policy."""
        return places_of(self.policies, self.live.id, self.draft)


def load_set(settings: Settings) -> PolicySet:
    """Return all live policies, with those in which the linter finds errors. Raises PolicyError."""
    engine = settings.engine
    return build_policies(
        read_policy_files(settings.policies.path),
        effort=engine.effort,
        reasoning_tokens_max=engine.reasoning_tokens_max,
        answer=engine.answer,
        routes_needed=False,
    )


def open_desk(settings: Settings, slug: str, edited: Mapping[str, str] | None = None) -> Desk:
    """Return a policy with its draft.

    Args:
        settings: all sections.
        slug: the policy's id.
        edited: texts to check instead of the saved ones.

    Raises:
        UnknownItemError: there is no such policy.
        PolicyError: the folder cannot be read.
    """
    path = settings.policies.path
    policies = load_set(settings)
    live = policies.policies.get(slug)
    if live is None:
        raise UnknownItemError(f"there is no policy {slug!r}")
    draft = _draft(settings, slug) if has_draft(settings, slug) else None
    # Of the bytes that would be measured. Read apart, the digest could be that of an edit in between.
    texts = _texts_of(draft) if draft is not None else read_texts(path, slug)
    live_texts = {name: decode_utf8(live.files.get(name, b""), name) for name in TEXTS}
    shown = texts.files if edited is None else edited
    checked = check_texts(settings, live, live_texts, shown, texts.folder)
    return Desk(
        path,
        policies,
        live,
        live_texts,
        texts,
        checked,
        draft,
        draft is not None and draft.base != live.sha256,
        golden_file(path, live, draft.policy if draft else None),
    )


def _texts_of(draft: Draft) -> Texts:
    return texts_of(draft.folder, draft.policy.files, drafted=True)


def _draft(settings: Settings, slug: str) -> Draft | None:
    engine = settings.engine
    try:
        return read_draft(
            settings.policies.path,
            slug,
            effort=engine.effort,
            reasoning_tokens_max=engine.reasoning_tokens_max,
            answer=engine.answer,
        )
    except PolicyError:
        return None  # the findings say why


def places_of(policies: PolicySet, slug: str, draft: Draft | None = None) -> list[Place]:
    """Return where posts come to a policy, by the routes."""
    routing = policies.routing
    found = [Place("rule", rule.name) for rule in routing.rules if slug in rule.policies]
    found += [Place("topic", topic) for topic, ids in routing.topics.items() if slug in ids]
    if slug in routing.default:
        found.append(Place("default", ""))

    def drafted(other: str) -> bool:
        return draft is not None and policies.policies[other].sha256 == draft.policy.sha256

    for canary in routing.canaries:
        if canary.candidate == slug:
            found.append(Place("canary", canary.policy, canary.percent))
        if canary.policy == slug:
            other = canary.candidate
            found.append(Place("canary_of", other, canary.percent, drafted(other)))
    for shadow in routing.shadows:
        if shadow.policy == slug:
            found.append(Place("shadow", shadow.beside or "", shadow.percent))
        if shadow.beside == slug:
            found.append(Place("shadow_of", shadow.policy, shadow.percent, drafted(shadow.policy)))
    return found


def has_draft(settings: Settings, slug: str) -> bool:
    """Return whether a policy has a draft."""
    return draft_folder(settings.policies.path, slug).exists()
