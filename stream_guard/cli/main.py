"""The command line: which commands there are, and how the program ends."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer
from typer.exceptions import TyperException

from stream_guard.cli.backfill import backfill
from stream_guard.cli.backtest import backtest
from stream_guard.cli.check import check
from stream_guard.cli.classify import classify
from stream_guard.cli.config import show_config
from stream_guard.cli.console import console
from stream_guard.cli.decide import decide
from stream_guard.cli.dlq.list import list_letters
from stream_guard.cli.dlq.replay import replay as replay_letters
from stream_guard.cli.dlq.show import show as show_letter
from stream_guard.cli.doctor import doctor
from stream_guard.cli.eval import evaluate
from stream_guard.cli.export.dsa import dsa
from stream_guard.cli.help_texts import Command, Group, show_help_whole
from stream_guard.cli.policies.attack import attack
from stream_guard.cli.policies.calibrate import calibrate
from stream_guard.cli.policies.diff import diff
from stream_guard.cli.policies.improve import draft, improve
from stream_guard.cli.policies.lint import lint
from stream_guard.cli.policies.list import list_policies
from stream_guard.cli.policies.new import new
from stream_guard.cli.policies.promote import gates, history, promote, rollback
from stream_guard.cli.policies.score import score
from stream_guard.cli.policies.show import show
from stream_guard.cli.produce import produce
from stream_guard.cli.replay import replay
from stream_guard.cli.review.decide import decide_item
from stream_guard.cli.review.list import list_items
from stream_guard.cli.review.serve import serve
from stream_guard.cli.review.show import show_item
from stream_guard.cli.review.stats import export_golden, rebuild, stats
from stream_guard.cli.round_trip import round_trip
from stream_guard.cli.route import route
from stream_guard.cli.run import run
from stream_guard.cli.studio import studio
from stream_guard.cli.tail import tail
from stream_guard.cli.terminal import say, say_error, write_what_can_be_shown
from stream_guard.core.english import did_you_mean
from stream_guard.core.errors import StreamGuardError
from stream_guard.core.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["app", "main"]

_AUTHOR: Final = "Write and try policies"
_RUN: Final = "Run the service"
_OPERATE: Final = "Operate the service"
_AUDIT: Final = "Audit and report"
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_CHOICE: Final = re.compile(r"'([^']*)' is not one of (.+)")


class _Command(NamedTuple):
    name: str
    function: Callable[..., None]
    example: str
    task: str | None = None


_COMMANDS: Final = (
    _Command(
        "classify",
        classify,
        "classify --policy dangerous-content --json posts.jsonl > judged.jsonl",
        _AUTHOR,
    ),
    _Command(
        "eval",
        evaluate,
        "eval --policy dangerous-content golden.csv --against high --min-f1 0.85 --max-flips 2%",
        _AUTHOR,
    ),
    _Command("studio", studio, "studio posts.jsonl --policy dangerous-content", _AUTHOR),
    _Command("route", route, "route posts.jsonl --topic forum.posts", _AUTHOR),
    _Command("run", run, "run --config guard.toml", _RUN),
    _Command("check", check, "check --config guard.toml", _RUN),
    _Command("doctor", doctor, "doctor --config guard.toml --json | jq .ok", _RUN),
    _Command("config", show_config, "config --schema > settings.schema.json", _RUN),
    _Command("tail", tail, "tail --json --from-beginning --limit 10 > tail.jsonl", _OPERATE),
    _Command("console", console, "console --config guard.toml", _OPERATE),
    _Command("produce", produce, "produce posts.jsonl posts", _OPERATE),
    _Command("round-trip", round_trip, "round-trip posts --timeout 60", _OPERATE),
    _Command(
        "decide",
        decide,
        "decide 0f3a9c21d4b84e6f9a7c5d1e2b3f4a60 safe --by reviewer-17 --reason satire",
        _OPERATE,
    ),
    _Command("replay", replay, "replay 0f3a9c21d4b84e6f9a7c5d1e2b3f4a60", _AUDIT),
    _Command(
        "backtest",
        backtest,
        "backtest --policy drafts/touting --topic posts --from 2026-01-01 -o touting.jsonl",
        _AUDIT,
    ),
    _Command(
        "backfill",
        backfill,
        "backfill posts.jsonl --policy dangerous-content --dry-run --price-per-hour 2.50",
        _AUDIT,
    ),
)
_POLICIES: Final = (
    _Command("new", new, "policies new ticket-touting --topic market.listings"),
    _Command("lint", lint, "policies lint --format sarif > policies.sarif"),
    _Command("list", list_policies, "policies list"),
    _Command("show", show, "policies show dangerous-content"),
    _Command("diff", diff, "policies diff policies.before policies"),
    _Command("attack", attack, "policies attack dangerous-content"),
    _Command("score", score, "policies score builtin:toxicity posts.jsonl"),
    _Command(
        "calibrate", calibrate, "policies calibrate touting verdicts.jsonl labels.csv --write"
    ),
    _Command("improve", improve, "policies improve dangerous-content --dry-run"),
    _Command("draft", draft, "policies draft dangerous-content"),
    _Command("gates", gates, "policies gates dangerous-content --since 2026-01-31"),
    _Command("promote", promote, "policies promote dangerous-content --reason 'quotes are safe'"),
    _Command("rollback", rollback, "policies rollback dangerous-content --reason 'too strict'"),
    _Command("history", history, "policies history dangerous-content"),
)
_DEAD_LETTERS: Final = (
    _Command("list", list_letters, "dlq list --reason json --since 2026-01-31"),
    _Command("show", show_letter, "dlq show posts/3/41 --content"),
    _Command("replay", replay_letters, "dlq replay --reason missing_field --dry-run"),
)
_REVIEW: Final = (
    _Command("list", list_items, "review list --why severe --limit 50"),
    _Command("show", show_item, "review show 93faccf6da84d1ad43b6a60b59a7431a --by r-17"),
    _Command(
        "decide",
        decide_item,
        "review decide 93faccf6da84d1ad43b6a60b59a7431a safe --by r-17 --reason satire",
    ),
    _Command("stats", stats, "review stats --json"),
    _Command("export", export_golden, "review export --policy dangerous-content -o reviewed.jsonl"),
    _Command("serve", serve, "review serve"),
    _Command("rebuild", rebuild, "review rebuild"),
)
_EXPORT: Final = (
    _Command("dsa", dsa, "export dsa --mapping dsa.yaml --from 2026-01-01 -o statements.jsonl"),
)

app = typer.Typer(
    cls=Group,
    name="stream-guard",
    help="Judge a stream of posts under written policies: posts come in from Kafka, verdicts go out.",
    epilog="Exit codes: "
    + ", ".join(f"{code} {code.name.lower()}" for code in ExitCode)
    + ". Each is explained in docs/reference/exit-codes.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer's own signature
    if value:
        from stream_guard.core.version import package_version

        say(f"stream-guard {package_version()}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    del version


def _add(target: typer.Typer, commands: Sequence[_Command]) -> None:
    for name, function, example, task in commands:
        epilog = f"Example: stream-guard {example}"
        target.command(name, cls=Command, epilog=epilog, rich_help_panel=task)(function)


def _add_group(name: str, text: str, commands: Sequence[_Command], task: str) -> None:
    group = typer.Typer(cls=Group, no_args_is_help=True, pretty_exceptions_enable=False)
    # A callback keeps a group of one command a group.
    group.callback()(lambda: None)
    _add(group, commands)
    app.add_typer(group, name=name, help=text, rich_help_panel=task)


_add(app, _COMMANDS)
_add_group(
    "policies",
    "Check, list, show, compare, calibrate, improve and promote policies.",
    _POLICIES,
    _AUTHOR,
)
_add_group(
    "dlq",
    "List, show and replay dead letters: records that could not be judged.",
    _DEAD_LETTERS,
    _OPERATE,
)
_add_group(
    "review",
    "Review verdicts: a queue for people, their decisions, and what these say about quality.",
    _REVIEW,
    _OPERATE,
)
_add_group("export", "Export verdicts in the forms that others ask for.", _EXPORT, _AUDIT)


def main() -> None:
    """Run a command and end with its exit code. An error of ours is one message, never a stack trace."""
    # An error names what a library warned of; `run` sets up logs of its own.
    logging.getLogger().addHandler(logging.NullHandler())
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    show_help_whole()
    write_what_can_be_shown()
    try:
        sys.exit(app(standalone_mode=False) or ExitCode.CLEAN)
    except TyperException as error:
        _say_usage(error)
        sys.exit(ExitCode.USAGE)
    except StreamGuardError as error:
        say_error(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        say_error(f"the output cannot be written: {error.strerror}; free space, or write elsewhere")
        sys.exit(ExitCode.USAGE)


def _say_usage(error: TyperException) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":
        return  # the help is printed already, and the class is private
    command = getattr(getattr(error, "ctx", None), "command_path", "stream-guard")
    message = error.format_message().rstrip(".?").replace("Value error, ", "")
    if choice := _NO_CHOICE.search(message):
        message += did_you_mean(choice[1], re.findall("'([^']*)'", choice[2]))
    say_error(f"{message}; see {command} --help")


if __name__ == "__main__":
    main()
