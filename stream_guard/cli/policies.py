"""The commands about policies: commands only, no logic."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from stream_guard.core.errors import PolicyError, RecordError, SettingsError
from stream_guard.core.exit_codes import ExitCode
from stream_guard.policies.describe import describe_policy, list_lines, show_lines
from stream_guard.policies.diff import diff_lines, diff_policies
from stream_guard.policies.lint import CODES, lint_policies
from stream_guard.policies.lint.output import to_json, to_sarif, to_text
from stream_guard.policies.lint.tokens import token_counter
from stream_guard.policies.routing import RouteFacts
from stream_guard.policies.store import build_policies, read_policy_files, refuse_errors
from stream_guard.records.post import PostParser
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.policies.lint import Finding
    from stream_guard.policies.policy import Policy, PolicySet

app = typer.Typer(
    name="policies",
    help="Check, list, show and compare policies.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)

PathOption = Annotated[
    Path | None,
    typer.Option(
        "--path",
        "-p",
        metavar="FOLDER",
        help="The policies' folder; by default that of the settings.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Settings as TOML."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


def complete_policy(context: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of policies that begin so, for a shell's completion; none where there is no folder."""
    try:
        folder = (
            context.params.get("path") or load_settings(context.params.get("config")).policies.path
        )
        found = sorted(file.parent.name for file in Path(folder).glob("*/policy.md"))
    except (OSError, SettingsError):
        return []
    return [slug for slug in found if slug.startswith(incomplete)]


SlugArgument = Annotated[
    str,
    typer.Argument(metavar="POLICY", help="The policy's id.", autocompletion=complete_policy),
]


class LintFormat(StrEnum):
    """What ``lint`` writes."""

    text = "text"
    json = "json"
    sarif = "sarif"


def load(
    path: Path | None, config: Path | None, *, lenient: bool = False
) -> tuple[Path, PolicySet]:
    """Return the folder and its policies; ``lenient`` takes what the linter calls an error.

    Raises:
        PolicyError: they cannot be read, or hold an error.
    """
    settings = load_settings(config)
    folder = path or settings.policies.path
    policies = build_policies(
        read_policy_files(folder),
        effort=settings.engine.effort,
        reasoning_tokens_max=settings.engine.reasoning_tokens_max,
    )
    if not lenient:
        refuse_errors(policies, folder)
    return folder, policies


def find(policies: PolicySet, slug: str) -> Policy:
    """Return a policy by its id. Raises PolicyError."""
    if slug not in policies.policies:
        message = f"no policy {slug!r}; there are: {', '.join(policies.policies)}"
        raise PolicyError(message)
    return policies.policies[slug]


@app.command(epilog="Example: stream-guard policies lint --format sarif > policies.sarif")
def lint(
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    output: Annotated[LintFormat, typer.Option("--format", help="How to write.")] = LintFormat.text,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail as well.")] = False,
) -> None:
    """Say what is weak or wrong in the policies; exit 2 where something is an error."""
    try:
        folder, policies = load(path, config, lenient=True)
        findings = lint_policies(policies, folder=str(folder), count_tokens=token_counter())
    except PolicyError as error:
        findings = _unreadable(str(error))
    if output is LintFormat.sarif:
        text = to_sarif(findings, _version())
    else:
        text = to_json(findings) if output is LintFormat.json else to_text(findings)
    sys.stdout.write(text + "\n")
    failing = {"error", "warning"} if strict else {"error"}
    if any(finding.severity in failing for finding in findings):
        raise typer.Exit(ExitCode.USAGE)


def _version() -> str:
    try:
        return metadata.version("stream-guard")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def _unreadable(message: str) -> list[Finding]:
    """Return a finding for each line of an error, with the place that it names."""
    findings = []
    for line in message.splitlines():
        place = re.match(r"(?P<file>[^:\n]+):(?:(?P<line>\d+):)? (?P<rest>.*)", line)
        file, number, rest = place.group("file", "line", "rest") if place else (".", None, line)
        findings.append(CODES["SG100"].at(file, int(number or 1), detail=rest))
    return findings


@app.command("list", epilog="Example: stream-guard policies list")
def list_policies(
    path: PathOption = None, config: ConfigOption = None, *, json: JsonOption = False
) -> None:
    """List the policies, their versions and the topics that they judge."""
    _, policies = load(path, config)
    if json:
        _write_json([describe_policy(policy) for policy in policies.policies.values()])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("policy", "version", "labels", "categories", "topics"):
        table.add_column(column, overflow="fold")
    for row in list_lines(policies):
        table.add_row(*row)
    out.print(table)


@app.command(epilog="Example: stream-guard policies show dangerous-content")
def show(
    slug: SlugArgument,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show what was read out of a policy, and where: labels, categories, rule ids."""
    policy = find(load(path, config)[1], slug)
    if json:
        _write_json(describe_policy(policy))
        return
    for line in show_lines(policy):
        out.print(line, markup=False, soft_wrap=True)


@app.command(epilog="Example: stream-guard policies diff policies.before policies")
def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A folder of policies.")],
    after: Annotated[
        Path | None, typer.Argument(metavar="AFTER", help="Another; by default the settings' own.")
    ] = None,
    config: ConfigOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show what differs between two sets: texts, metadata, routes."""
    _, old = load(before, config, lenient=True)
    _, new = load(after, config, lenient=True)
    difference = diff_policies(old, new)
    if json:
        _write_json(asdict(difference))
        return
    for line in diff_lines(difference):
        out.print(line, markup=False, soft_wrap=True)


def route(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.jsonl", help="One post a line, as records hold them.")
    ],
    topic: Annotated[str, typer.Option("--topic", "-t", help="The topic that they come from.")],
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A record header.")
    ] = None,
    path: PathOption = None,
    config: ConfigOption = None,
) -> None:
    """Say which policies would judge each post of a file, and which rule says so."""
    parser = PostParser(load_settings(config).post)
    headers = [read_header(text) for text in header or ()]
    _, policies = load(path, config)
    for number, line in enumerate(read_lines(file), 1):
        try:
            post, document = parser.parse_document(line, headers)
        except RecordError as error:
            out.print(f"line {number}: a dead letter: {error}", markup=False, soft_wrap=True)
            continue
        facts = RouteFacts.of(topic, headers, document, post)
        routed = policies.route_post(facts)
        told = ", ".join(f"{r.policy.id}@{r.policy.version} ({r.mode})" for r in routed)
        out.print(f"line {number}: {post.id}: {told}", markup=False, soft_wrap=True)
        for reason in policies.routing.explain(facts):
            out.print(f"  {reason}", markup=False, soft_wrap=True)


def read_header(text: str) -> tuple[str, bytes]:
    """Return the header in ``NAME=VALUE``."""
    name, separator, value = text.partition("=")
    if not name or not separator:
        message = f"--header {text!r}: write NAME=VALUE"
        raise typer.BadParameter(message)
    return name, value.encode()


def read_lines(file: Path) -> list[bytes]:
    """Return a file's lines, without empty ones. Raises BadParameter where it cannot be read."""
    try:
        return [line for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        message = f"{file}: {error.strerror or error}"
        raise typer.BadParameter(message) from error


def _write_json(document: object) -> None:
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
