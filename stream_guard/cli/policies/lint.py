"""``stream-guard policies lint``."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from stream_guard.cli.options import ConfigOption, PathOption, complete_policy
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.terminal import count_of, say, write_json
from stream_guard.core.errors import PolicyError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.core.version import package_version
from stream_guard.policies.lint import Context, lint_policies
from stream_guard.policies.lint.findings import unreadable
from stream_guard.policies.lint.output import to_json, to_sarif
from stream_guard.policies.lint.tokens import token_counter
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.policies.lint import Finding
    from stream_guard.settings import Settings


class LintFormat(StrEnum):
    """The form of the findings."""

    text = "text"
    json = "json"
    sarif = "sarif"


def lint(
    slug: Annotated[
        str | None,
        typer.Argument(
            metavar="[POLICY]",
            help="Only this policy. Default: all policies and the routes.",
            autocompletion=complete_policy,
        ),
    ] = None,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    output: Annotated[
        LintFormat, typer.Option("--format", help="sarif is for code review tools.")
    ] = LintFormat.text,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings as well.")] = False,
) -> None:
    """Find what is wrong or weak in policies, with the place and a remedy for each finding.

    Exit code 2 if a finding is an error.
    """
    try:
        folder, policies = load_folder(path, config, lenient=True)
        findings = lint_policies(
            policies,
            folder=str(folder),
            count_tokens=token_counter(),
            context=_context(load_settings(config)),
        )
    except PolicyError as error:
        findings = unreadable(str(error))
    else:
        if slug is not None:
            inside = str(folder / find_policy(policies, slug).id) + os.sep
            findings = [finding for finding in findings if finding.file.startswith(inside)]
    if output is LintFormat.text:
        _say(findings)
    else:
        as_json = output is LintFormat.json
        text = to_json(findings) if as_json else to_sarif(findings, package_version())
        write_json(orjson.loads(text))
    failing = {"error", "warning"} if strict else {"error"}
    if any(finding.severity in failing for finding in findings):
        raise typer.Exit(ExitCode.USAGE)


def _context(settings: Settings) -> Context:
    """Return what bounds a prompt, without asking a network for the model."""
    from stream_guard.judging.engine.probe import context_tokens

    tokens = context_tokens(settings.engine)
    return Context(tokens, settings.engine.rationale_tokens_max, settings.post.max_text_bytes)


def _say(findings: Sequence[Finding]) -> None:
    counts = dict.fromkeys(("error", "warning", "note"), 0)
    for finding in findings:
        counts[finding.severity] += 1
        place = f"{finding.file}:{finding.line}:{finding.column}"
        say(f"{place}: {finding.severity} {finding.code}: {finding.message}")
        say(f"    {finding.remedy}")
    say(", ".join(count_of(count, severity) for severity, count in counts.items()))
