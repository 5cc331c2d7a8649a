"""``stream-guard decide`` makes the decision that a person means, or says what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.core.errors import OperatorError
from stream_guard.offline.decide import Choice, make_decision
from stream_guard.policies.section import section_sha256
from stream_guard.policies.store import load_policies
from stream_guard.settings import Settings
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "# Spam\n\n## S1: Advertising\nads\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "spam"
    folder.mkdir()
    (folder / "policy.md").write_text(TEXT)
    (folder / "policy.yaml").write_text("categories: {S1: {severity: high, action: remove}}\n")
    return Settings(policies={"path": tmp_path})  # type: ignore[arg-type]


def choose(kind: str = "review", decision: str | None = "violates", **more: Any) -> Choice:  # noqa: ANN401
    return Choice(kind, decision, "r-1", "reviewer", **more)  # type: ignore[arg-type]


def test_a_decision_takes_action_severity_and_section_from_the_policy(settings: Settings) -> None:
    policy = load_policies(settings.policies.path).policies["spam"]
    verdict = make_verdict(sha256=policy.sha256)
    made = make_decision(settings, verdict, choose(category="S1", valid_days=1), 1_000)
    assert made.outcome is not None
    assert made.about is not None
    assert (made.outcome.action, made.outcome.severity) == ("remove", "high")
    assert made.about.policy.section_sha256 == section_sha256(policy, "S1")
    assert made.about.verdict_id == verdict["id"]
    assert made.valid_until == 1_000 + 86_400_000


def test_of_an_edited_policy_the_decision_rests_on_the_old_digest(settings: Settings) -> None:
    made = make_decision(settings, make_verdict(sha256="1" * 64), choose(decision="safe"), 1_000)
    assert made.about is not None
    assert made.about.policy.sha256 == "1" * 64
    assert made.about.policy.section_sha256 is None


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (choose(category="S9"), "no category 'S9'; use one of: S1"),
        (choose(decision="safe", reason="x" * 2_001), "reason"),
        (choose("expiry", None, valid_days=3), "valid_until"),
    ],
)
def test_what_does_not_fit_is_said(settings: Settings, choice: Choice, said: str) -> None:
    policy = load_policies(settings.policies.path).policies["spam"]
    with pytest.raises(OperatorError, match=said):
        make_decision(settings, make_verdict(sha256=policy.sha256), choice, 1_000)
