"""``stream-guard policies gates``, ``promote``, ``rollback`` and ``history``."""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from stream_guard.cli.eval import ForceOption
from stream_guard.cli.options import ConfigOption, JsonOption, PathOption, SlugArgument
from stream_guard.cli.policies.measuring import (
    LIMIT,
    SHADOW,
    Asked,
    LimitOption,
    OutOption,
    ShadowOption,
    SinceOption,
    TopicsOption,
    measure,
    say_found,
)
from stream_guard.cli.policies.rulings import FromTopicsOption, Source
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.review.options import DatabaseOption, OfflineOption
from stream_guard.cli.terminal import run_quietly, say, write_json, write_table
from stream_guard.cli.warm_engine import NoStudioOption
from stream_guard.core.errors import LimitError, SettingsError
from stream_guard.core.times import time_text
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.judging.archive.promotion import Promotion

ReasonOption: TypeAlias = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why. It stays in the archive.")
]
ByOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who does it. Default: this user's name."),
]


def gates(  # noqa: PLR0913 - each is an option
    slug: SlugArgument,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    topics: TopicsOption = None,
    since: SinceOption = None,
    limit: LimitOption = LIMIT,
    shadow: ShadowOption = SHADOW,
    database: DatabaseOption = None,
    offline: OfflineOption = False,
    from_topics: FromTopicsOption = False,
    out: OutOption = None,
    force: ForceOption = False,
    no_studio: NoStudioOption = False,
    json: JsonOption = False,
) -> None:
    """Measure the draft of a policy against the live version, and hold it against its gates. Nothing changes.

    Both versions judge the golden set. For max_flips, the draft judges the records of the last day again; for
    min_agreement, the posts that people decided on. Verdicts of a shadow with the draft's files count as well. Exit
    code 5 if a gate does not hold.
    """
    source = Source(database, offline, from_topics)
    found = measure(
        slug, path, config, Asked(topics, since, limit, shadow, out, force, no_studio, source)
    )
    if json:
        write_json(found.describe())
    else:
        say_found(found)
    failing = [str(gate) for gate in found.gates if not gate.held]
    if failing:
        raise LimitError("\n".join(failing))


def promote(  # noqa: PLR0913 - each is an option
    slug: SlugArgument,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    reason: ReasonOption,
    by: ByOption = None,
    topics: TopicsOption = None,
    since: SinceOption = None,
    limit: LimitOption = LIMIT,
    shadow: ShadowOption = SHADOW,
    database: DatabaseOption = None,
    offline: OfflineOption = False,
    from_topics: FromTopicsOption = False,
    out: OutOption = None,
    force: ForceOption = False,
    no_studio: NoStudioOption = False,
    json: JsonOption = False,
) -> None:
    """Make the draft of a policy live, if its gates hold. They are measured again, as by policies gates.

    The archive gets both versions and a record: who, when, why, and each gate with its figure. Then the files are
    replaced in one step. Exit code 5, and nothing changes, if a gate does not hold.
    """
    from stream_guard.offline.improve.promoting import Change
    from stream_guard.offline.improve.promoting import promote as make_live
    from stream_guard.policies.drafts import rebase

    who, why = _who(by), _text(reason, "--reason")
    source = Source(database, offline, from_topics)
    found = measure(
        slug, path, config, Asked(topics, since, limit, shadow, out, force, no_studio, source)
    )
    if not json:
        say_found(found)
    change = Change(found.settings, found.path, found.live, who, why, _now_ms())
    record: Promotion = run_quietly(make_live(change, found.draft, found.gates, found.measured))
    rebase(found.path, found.draft.policy)
    _say_record(record, json=json)


def rollback(
    slug: SlugArgument,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    reason: ReasonOption,
    by: ByOption = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="VERSION",
            help="A version's name, or the first digits of its sha256. Default: the version that the latest "
            "promotion replaced.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make an earlier version of a policy live again, from the archive. No gate is checked, and no engine starts.

    The golden set and the draft stay as they are.
    """
    from stream_guard.offline.improve.promoting import Change
    from stream_guard.offline.improve.promoting import rollback as go_back

    settings = load_settings(config)
    folder, policies = load_folder(path, config, lenient=True)
    change = Change(
        settings,
        folder,
        find_policy(policies, slug),
        _who(by),
        _text(reason, "--reason"),
        _now_ms(),
    )
    _say_record(run_quietly(go_back(change, to)), json=json)


def history(slug: SlugArgument, config: ConfigOption = None, *, json: JsonOption = False) -> None:
    """List who made which version of a policy live, when and why. Exit code 6 if a record was altered or is missing."""
    from stream_guard.offline.improve.promoting import history as read

    records: list[Promotion] = run_quietly(read(load_settings(config), slug))
    if json:
        write_json([record.describe() for record in records])
        return
    if not records:
        say(f"{slug}: the archive has no promotion of it")
        return
    rows = [
        (
            time_text(record.at_ms),
            record.kind,
            str(record.old),
            str(record.new),
            record.by,
            record.reason,
        )
        for record in records
    ]
    write_table(("at", "what", "from", "to", "by", "reason"), rows)


def _who(by: str | None) -> str:
    if by is not None:
        return _text(by, "--by")
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise SettingsError("--by: this user has no name; say who does it") from error


def _text(text: str, option: str) -> str:
    if not text.strip():
        raise SettingsError(f"{option}: is empty; say it in a few words")
    return text.strip()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _say_record(record: Promotion, *, json: bool) -> None:
    if json:
        write_json(record.describe())
        return
    say(f"{record.policy_id}: {record.new} is live, in place of {record.old}")
