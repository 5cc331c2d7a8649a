"""``stream-guard decide`` makes the decision that a person means, or says what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.cli.options import valid_until
from stream_guard.core.errors import OperatorError
from stream_guard.offline.choice import Choice
from stream_guard.offline.decide import make_decision
from stream_guard.policies.section import section_sha256
from stream_guard.policies.store import load_policies
from stream_guard.settings import Settings
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.records.decision import Decision

TEXT = "# Spam\n\n## S1: Advertising\nads\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "spam"
    folder.mkdir()
    (folder / "policy.md").write_text(TEXT)
    (folder / "policy.yaml").write_text("categories: {S1: {severity: high, action: remove}}\n")
    return Settings(policies={"path": tmp_path})  # type: ignore[arg-type]


def made(settings: Settings, verdict: dict[str, Any], choice: Choice) -> Decision:
    return make_decision(settings, verdict, choice, by="r-1", role="reviewer", now_ms=1_000)


def test_a_decision_takes_action_severity_and_section_from_the_policy(settings: Settings) -> None:
    policy = load_policies(settings.policies.path).policies["spam"]
    verdict = make_verdict(sha256=policy.sha256)
    decision = made(settings, verdict, Choice("violates", category="S1", valid_until=2_000))
    assert decision.outcome is not None
    assert decision.about is not None
    assert (decision.outcome.action, decision.outcome.severity) == ("remove", "high")
    assert decision.about.policy.section_sha256 == section_sha256(policy, "S1")
    assert decision.about.verdict_id == verdict["id"]
    assert decision.valid_until == 2_000
    assert decision.decided_by.id == "r-1"


def test_of_an_edited_policy_the_decision_rests_on_the_old_digest(settings: Settings) -> None:
    decision = made(settings, make_verdict(sha256="1" * 64), Choice("safe"))
    assert decision.about is not None
    assert decision.about.policy.sha256 == "1" * 64
    assert decision.about.policy.section_sha256 is None


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice("violates", category="S9"), "no category 'S9'; use one of: S1"),
        (Choice("safe", reason="x" * 2_001, action="x" * 2_001), "action: .*; reason: "),
        (Choice(None, "expiry", valid_until=2_000), "valid_until"),
    ],
)
def test_what_does_not_fit_is_said(settings: Settings, choice: Choice, said: str) -> None:
    policy = load_policies(settings.policies.path).policies["spam"]
    with pytest.raises(OperatorError, match=said):
        made(settings, make_verdict(sha256=policy.sha256), choice)


def test_days_end_at_a_time() -> None:
    assert valid_until(1, 1_000) == 1_000 + 86_400_000
    assert valid_until(None, 1_000) is None
