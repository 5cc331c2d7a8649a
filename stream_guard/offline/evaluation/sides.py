"""Resolves ``--against``: a policy at an effort, another version of it, or earlier predictions.

Sides that cannot be compared are rejected before the engine starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_guard.core.english import did_you_mean
from stream_guard.core.errors import PolicyError, SettingsError
from stream_guard.offline.evaluation.predictions import read_predictions
from stream_guard.policies.effort import with_effort
from stream_guard.policies.store import (
    POLICY_FILES,
    build_policies,
    read_policy_files,
    read_policy_folder,
    refuse_errors,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.vocabulary import Effort
    from stream_guard.offline.evaluation.predictions import Prediction
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.settings import Settings

__all__ = ["Side", "side_against"]

_EFFORTS: Final[Mapping[str, Effort]] = {"low": "low", "medium": "medium", "high": "high"}


@dataclass(slots=True, frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: for display.
        policy: the policy to judge by; None for earlier predictions.
        predictions: of an earlier run; None where the side must be judged.
    """

    name: str
    policy: Policy | None
    predictions: Sequence[Prediction] | None = None

    @classmethod
    def of(cls, policy: Policy) -> Side:
        """Make a side from a policy."""
        return cls(f"{policy.id}@{policy.version} at {policy.effort} effort", policy)


def side_against(against: str, policy: Policy, policies: PolicySet, settings: Settings) -> Side:
    """Find the other side.

    Args:
        against: an effort; the id of another policy; a folder of policies, or one policy's folder, with another
            version; or a ``predictions.jsonl``.
        policy: the policy of this side.
        policies: the known policies.
        settings: efforts and budgets.

    Raises:
        SettingsError: ``against`` is not one of these.
        PolicyError: the other version cannot be used.
    """
    if against in _EFFORTS:
        if against == policy.effort:
            message = (
                f"--against {against}: both sides have this effort; set another one with --effort"
            )
            raise SettingsError(message)
        return Side.of(with_effort(policy, _EFFORTS[against], settings.cascade))
    if against in policies.policies:
        if against == policy.id:
            message = f"--against {against}: this is the same policy; name another policy, a folder or an effort"
            raise SettingsError(message)
        other = policies.policies[against]
        return Side.of(other)
    place = Path(against)
    if against.endswith(".jsonl"):
        predictions, _ = read_predictions(place)
        return Side(str(place), None, predictions)
    if place.is_dir():
        return _version(place, policy, settings)
    known = ", ".join(policies.policies)
    meant = did_you_mean(against, (*_EFFORTS, *policies.policies))
    message = (
        f"--against {against}: unknown{meant}; name an effort (low, medium, high), a policy ({known}), a folder with "
        "another version, or a predictions.jsonl"
    )
    raise SettingsError(message)


def _version(folder: Path, policy: Policy, settings: Settings) -> Side:
    """Return another version of a policy, from a folder of policies or a policy's own folder."""
    engine = settings.engine
    effort, budget, answer = engine.effort, engine.reasoning_tokens_max, engine.answer
    if (folder / POLICY_FILES[0]).is_file():
        found = read_policy_folder(
            folder, policy.id, effort=effort, reasoning_tokens_max=budget, answer=answer
        )
    else:
        policies = build_policies(
            read_policy_files(folder), effort=effort, reasoning_tokens_max=budget, answer=answer
        )
        refuse_errors(policies, folder)
        if policy.id not in policies.policies:
            message = (
                f"{folder}: no policy {policy.id!r}; there are: {', '.join(policies.policies)}"
            )
            raise PolicyError(message)
        found = policies.policies[policy.id]
    side = Side.of(found)
    return replace(side, name=f"{side.name} in {folder}")
