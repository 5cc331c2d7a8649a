"""What a reviewer may choose for an item: the categories of its policy with their keys, and actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.core.errors import PolicyError, SettingsError
from stream_guard.offline.review.deciding import Choice
from stream_guard.policies.store import SLUG, load_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stream_guard.policies.policy import Policy

__all__ = ["Category", "Choices", "choices_for", "make_choice"]

_KEYS: Final = 9
_NO_ANSWER: Final = frozenset({"none", "review"})
"""Actions that do not enforce a violation."""


class Category(NamedTuple):
    """A category of a violation; ``key`` selects it, and is empty after the ninth."""

    code: str
    title: str
    key: str


class Choices(NamedTuple):
    """What may be chosen.

    Attributes:
        categories: those that violate, in the policy's order.
        selected: the verdict's category, or empty.
        actions: that the policy and the verdict name.
        policy: as the folder has it now; None where it has none of this id.
        outdated: whether the folder has another version than the verdict's.
    """

    categories: Sequence[Category]
    selected: str
    actions: Sequence[str]
    policy: Policy | None
    outdated: bool


def choices_for(item: Mapping[str, Any], folder: Path) -> Choices:
    """Return what may be chosen for an item. Reads the policy's files, so it belongs in a thread."""
    policy = _policy_of(item["policy"]["id"], folder)
    said: str | None = item["verdict"]["category"]
    named = {}
    if policy is not None:
        named = {each.code: each.title for each in policy.taxonomy.categories if each.violates}
    selected = said if said is not None and item["verdict"]["decision"] == "violates" else ""
    if selected and selected not in named:
        named = {selected: selected} | named
    categories = [
        Category(code, title, str(number) if number <= _KEYS else "")
        for number, (code, title) in enumerate(named.items(), 1)
    ]
    actions = {item["verdict"]["action"]}
    if policy is not None:
        actions |= {policy.action, *(policy.action_for(code) for code in named)}
    return Choices(
        categories,
        selected,
        sorted(actions - _NO_ANSWER),
        policy,
        outdated=policy is not None and policy.sha256 != item["policy"]["sha256"],
    )


def make_choice(
    choices: Choices, *, decision: str, category: str, action: str, reason: str
) -> Choice:
    """Return the choice of a form.

    Args:
        choices: what may be chosen.
        decision: ``violates`` or ``safe``.
        category: a code, or empty.
        action: a word; empty for the policy's own for the category.
        reason: the person's words, or empty.

    Raises:
        SettingsError: the decision or the category is none of these.
    """
    words = reason.replace("\r\n", "\n").strip() or None
    if decision == "safe":
        return Choice("safe", reason=words)
    if decision != "violates":
        raise SettingsError("a decision is missing: say violates or safe")
    if category and category not in {each.code for each in choices.categories}:
        raise SettingsError("the policy has no such category; load the page again")
    act: str | None = action.strip() or None
    if act is None and choices.policy is not None and category:
        said = choices.policy.action_for(category)
        act = None if said in _NO_ANSWER else said
    return Choice("violates", category=category or None, action=act, reason=words)


def _policy_of(policy_id: str, folder: Path) -> Policy | None:
    # The id comes from a record: it must not name another folder.
    if not SLUG.fullmatch(policy_id):
        return None
    try:
        return load_policy(folder / policy_id)
    except PolicyError:
        return None
