"""Reads the policies that a command works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.core.english import did_you_mean
from stream_guard.core.errors import PolicyError
from stream_guard.policies.store import build_policies, read_policy_files, refuse_errors
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.policies.policy import Policy, PolicySet

__all__ = ["find_policy", "load_folder"]


def load_folder(
    path: Path | None, config: Path | None, *, lenient: bool = False, routes_needed: bool = False
) -> tuple[Path, PolicySet]:
    """Return the folder and its policies.

    Args:
        path: the folder; None for that of the settings.
        config: the settings file.
        lenient: accept policies in which the linter finds errors.
        routes_needed: refuse several policies without ``routes.yaml``, which nothing but routing needs.

    Raises:
        PolicyError: a policy cannot be read, or holds an error.
    """
    settings = load_settings(config)
    folder = path or settings.policies.path
    policies = build_policies(
        read_policy_files(folder),
        effort=settings.engine.effort,
        reasoning_tokens_max=settings.engine.reasoning_tokens_max,
        answer=settings.engine.answer,
        routes_needed=routes_needed,
    )
    if not lenient:
        refuse_errors(policies, folder)
    return folder, policies


def find_policy(policies: PolicySet, slug: str) -> Policy:
    """Return a policy by its id. Raises PolicyError where there is none."""
    if slug not in policies.policies:
        known = ", ".join(policies.policies) or "none"
        meant = did_you_mean(slug, policies.policies)
        message = f"no policy {slug!r}{meant}; the folder has: {known}"
        raise PolicyError(message)
    return policies.policies[slug]
