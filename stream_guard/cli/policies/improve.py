"""``stream-guard policies improve`` and ``policies draft``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_guard.cli.options import ConfigOption, JsonOption, PathOption, SlugArgument
from stream_guard.cli.policies.rulings import FromTopicsOption, Source, find_rulings
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.review.options import DatabaseOption, OfflineOption
from stream_guard.cli.terminal import (
    count_of,
    run_quietly,
    say,
    show_progress,
    write_json,
    write_table,
)
from stream_guard.core.errors import SettingsError
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stream_guard.offline.improve.golden_rows import Rows
    from stream_guard.offline.improve.groups import Group
    from stream_guard.offline.improve.rulings import Ruling

_TEXT_CHARACTERS_MAX = 120


# Over 60 lines: a third of them are the options.
def improve(  # noqa: PLR0913 - each is an option
    slug: SlugArgument,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    examples: Annotated[
        int, typer.Option("--examples", metavar="N", min=0, help="Show N posts of each group.")
    ] = 3,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be added; write nothing.")
    ] = False,
    database: DatabaseOption = None,
    offline: OfflineOption = False,
    from_topics: FromTopicsOption = False,
    json: JsonOption = False,
) -> None:
    """Learn from people: group the verdicts that they overturned, and add the posts to the policy's golden set.

    No text is added twice, and no label of the golden set is changed. A draft of the policy is made for you to edit in
    _drafts/POLICY, which no service reads. Then run policies gates.
    """
    from stream_guard.offline.improve.golden_rows import add_rows, plan_rows
    from stream_guard.offline.improve.groups import group_overturned
    from stream_guard.offline.improve.rulings import with_texts
    from stream_guard.policies.drafts import golden_file, make_draft

    settings = load_settings(config)
    folder, policies = load_folder(path, config)
    policy = find_policy(policies, slug)
    golden = golden_file(folder, policy)
    rulings = find_rulings(config, slug, Source(database, offline, from_topics))
    overturned = [ruling for ruling in rulings if ruling.overturned]
    if not offline:
        with show_progress("reading posts") as progress:
            overturned = run_quietly(with_texts(settings, overturned, progress))
    groups = group_overturned(overturned)
    rows = plan_rows(golden, policy, overturned, text_bytes_max=settings.post.max_text_bytes)
    if not dry_run and rows.new:
        add_rows(golden, rows.new)
    draft = make_draft(folder, policy)[0] if overturned and not dry_run else None
    if json:
        write_json(_describe(slug, len(rulings), groups, rows, golden, dry_run=dry_run))
        return
    say(
        f"{slug}: people decided on {count_of(len(rulings), 'verdict')} and overturned {len(overturned):,}, in "
        f"{count_of(len(groups), 'group')}"
    )
    _say_groups(groups, examples)
    _say_rows(rows, golden, dry_run=dry_run)
    if draft is not None:
        at = "" if path is None else f" --path {path}"
        if policy.golden_set is None:
            say(f"declare it: add golden_set: {golden.name} to {draft / 'policy.yaml'}")
        say(f"edit {draft / 'policy.md'}, then run: stream-guard policies gates {slug}{at}")


def _describe(
    slug: str,
    decided: int,
    groups: Sequence[Group],
    rows: Rows,
    golden: Path,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    return {
        "policy": slug,
        "decided": decided,
        "overturned": sum(len(group.rulings) for group in groups),
        "groups": [group.describe() for group in groups],
        "golden_set": str(golden),
        "dry_run": dry_run,
        "added": [{"id": row.id, "label": row.label} for row in rows.new],
        "known": rows.known,
        "conflicts": [
            {"id": each.row.id, "label": each.row.label, "line": each.line, "there": each.label}
            for each in rows.conflicts
        ],
        "without_text": rows.without_text,
    }


def _say_groups(groups: Sequence[Group], examples: int) -> None:
    table = [
        (
            str(group.machine),
            ", ".join(group.rule_ids) or "none",
            str(group.person),
            f"{len(group.rulings):,}",
        )
        for group in groups
    ]
    if table:
        write_table(("verdict", "rules", "people", "verdicts"), table, right=("verdicts",))
    for group in groups:
        if examples:
            rules = f" ({', '.join(group.rule_ids)})" if group.rule_ids else ""
            say(f"{group.machine}{rules}, people say {group.person}:")
        for ruling in group.rulings[:examples]:
            say(f"  {ruling.place}: {_text(ruling)}")
            if ruling.reason:
                say(f"    {ruling.reason}")


def _text(ruling: Ruling) -> str:
    if ruling.text is None:
        return "(the post is gone)"
    whole = ruling.text
    return whole if len(whole) <= _TEXT_CHARACTERS_MAX else f"{whole[:_TEXT_CHARACTERS_MAX]}..."


def _say_rows(rows: Rows, golden: Path, *, dry_run: bool) -> None:
    would = "would add" if dry_run else "added"
    say(f"{would} {count_of(len(rows.new), 'row')} to {golden}; {rows.known:,} were there")
    for each in rows.conflicts:
        say(
            f"not added: line {each.line} has the same text with the label {each.label}, people say {each.row.label}; "
            "correct the golden set by hand if they are right"
        )
    if rows.without_text:
        say(f"not added: {count_of(rows.without_text, 'post')} without a text any more")


def draft(
    slug: SlugArgument,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Throw an existing draft away, and copy the live version again."
        ),
    ] = False,
    rebase: Annotated[
        bool,
        typer.Option(
            "--rebase",
            help="Say that the draft includes the live version, which has changed since the draft was made.",
        ),
    ] = False,
) -> None:
    """Make a draft of a policy in _drafts/POLICY, which no service reads. A draft that exists stays as it is."""
    from stream_guard.policies.drafts import make_draft
    from stream_guard.policies.drafts import rebase as rebase_draft

    if fresh and rebase:
        raise SettingsError("--fresh and --rebase exclude each other; name one")
    folder, policies = load_folder(path, config)
    policy = find_policy(policies, slug)
    if rebase:
        rebase_draft(folder, policy)
        say(f"the draft of {slug} follows the version {policy.version} ({policy.sha256[:12]})")
        return
    place, made = make_draft(folder, policy, fresh=fresh)
    say(f"{'made' if made else 'there is already'} {place}")
