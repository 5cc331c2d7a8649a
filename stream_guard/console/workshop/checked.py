"""Reads texts that are being edited: what Stream Guard infers from them, the linter's findings, and the differences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from stream_guard.core.errors import PolicyError
from stream_guard.judging.engine.probe import context_tokens
from stream_guard.policies.calibration import CALIBRATION_BYTES_MAX
from stream_guard.policies.describe import describe_policy
from stream_guard.policies.diff import diff_policies, diff_texts
from stream_guard.policies.draft_editing import TEXTS
from stream_guard.policies.files import read_policy_file
from stream_guard.policies.lint import Context, lint_policy
from stream_guard.policies.lint.context import check_context
from stream_guard.policies.lint.findings import unreadable
from stream_guard.policies.lint.tokens import token_counter
from stream_guard.policies.policy import Policy, PolicySet, make_policy
from stream_guard.policies.rules.spec import RULES_FILE
from stream_guard.policies.store import with_banks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from stream_guard.policies.diff import FieldChange
    from stream_guard.policies.lint import Finding
    from stream_guard.settings import Settings

__all__ = ["Checked", "check_texts"]


@dataclass(slots=True, frozen=True)
class Checked:
    """What can be said about texts.

    Attributes:
        policy: made of them; None where they cannot be read.
        described: as :func:`.describe_policy` returns it; None likewise.
        findings: of the linter, in the order of the lines.
        fields: what differs from the live version, declared or inferred.
        lines: unified diffs of the texts, by the file's name; without those that are equal.
    """

    policy: Policy | None
    described: Mapping[str, Any] | None
    findings: tuple[Finding, ...]
    fields: tuple[FieldChange, ...]
    lines: Mapping[str, tuple[str, ...]]

    @property
    def errors(self) -> int:
        """Number of findings that keep the texts from going live."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def changed(self) -> bool:
        """Whether the texts differ from the live version."""
        return bool(self.lines)


def check_texts(
    settings: Settings,
    live: Policy,
    live_texts: Mapping[str, str],
    texts: Mapping[str, str],
    folder: Path,
) -> Checked:
    """Check texts as a version of a policy. It blocks for some milliseconds, and once for longer: call it in a thread.

    Args:
        settings: defaults of policies, and what bounds a prompt.
        live: the live version.
        live_texts: its texts, by the file's name.
        texts: the texts to check.
        folder: that has the other files of the version.
    """
    lines = {
        name: diff
        for name in TEXTS
        if (diff := diff_texts(_even(live_texts[name]), _even(texts[name]), name))
    }
    try:
        policy = _make(settings, live.id, texts, folder)
    except PolicyError as error:
        shown = str(error).replace(f"{folder}/", "")
        return Checked(None, None, tuple(unreadable(shown)), (), lines)
    findings = lint_policy(policy, source="policy.md", count_tokens=_counter())
    context = Context(
        context_tokens(settings.engine),
        settings.engine.rationale_tokens_max,
        settings.post.max_text_bytes,
    )
    findings += check_context(policy, "policy.md", _counter(), context)
    differences = diff_policies(_alone(live), _alone(policy)).policies
    fields = differences[0].metadata if differences else ()
    return Checked(policy, describe_policy(policy), tuple(findings), fields, lines)


def _even(text: str) -> str:
    return text.replace("\r\n", "\n")


def _make(settings: Settings, slug: str, texts: Mapping[str, str], folder: Path) -> Policy:
    engine = settings.engine
    contents = {name: _even(text).encode("utf-8", "replace") for name, text in texts.items()}
    rules = with_banks(folder, folder, contents[RULES_FILE] or None)
    return make_policy(
        slug,
        contents["policy.md"],
        effort=engine.effort,
        reasoning_tokens_max=engine.reasoning_tokens_max,
        answer=engine.answer,
        source=str(folder / "policy.md"),
        metadata=contents["policy.yaml"] or None,
        rules=rules,
        calibration=read_policy_file(folder / "calibration.json", folder, CALIBRATION_BYTES_MAX),
    )


def _alone(policy: Policy) -> PolicySet:
    return PolicySet({policy.id: policy}, default=(policy.id,))


@lru_cache(maxsize=1)
def _counter() -> Callable[[str], int]:
    """Return the counter of tokens; its vocabulary is read once."""
    return token_counter()
