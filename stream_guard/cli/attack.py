"""``stream-guard policies attack``: command only, no logic."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import sys
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from stream_guard.cli.policies import ConfigOption, JsonOption, PathOption, SlugArgument, find, load
from stream_guard.cli.terminal import stdout_kept_clean
from stream_guard.core.errors import LimitError, PolicyError, RecordError, SettingsError
from stream_guard.policies.lint.examples import find_examples
from stream_guard.policies.text import read_sections
from stream_guard.records.post import Post, PostParser
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.offline.attack import AttackReport
    from stream_guard.policies.policy import Policy

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
_TEXT_COLUMNS = ("text", "content", "post", "prompt", "message", "example")


def attack(
    slug: SlugArgument,
    posts: Annotated[
        Path | None,
        typer.Option(
            "--posts",
            metavar="FILE",
            help="Posts to disguise: .jsonl as records hold them, .csv with a column 'text', or one text a line. "
            "By default the policy's golden set, or else the quoted examples in its text.",
        ),
    ] = None,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    posts_max: Annotated[
        int, typer.Option("--posts-max", min=1, help="Take no more than these.")
    ] = 50,
    hidden_max: Annotated[
        float | None,
        typer.Option(
            "--hidden-max",
            min=0,
            max=1,
            metavar="SHARE",
            help="Exit 5 where a larger share of violating posts passes as safe in disguise.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Try known disguises and orders on a policy with the real model, and count the decisions that flip."""
    from stream_guard.judging.assembly import make_judge
    from stream_guard.offline.attack import run_attacks
    from stream_guard.telemetry.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.telemetry)
    folder, policies = load(path, config)
    policy = find(policies, slug)
    found = read_posts(posts, policy, folder, PostParser(settings.post))[:posts_max]
    judge = make_judge(settings.engine)
    with stdout_kept_clean(), Progress(console=err, transient=True) as bar:
        task = bar.add_task("judging", total=None)
        report = asyncio.run(
            run_attacks(
                judge,
                policies,
                policy,
                found,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        )
    if json:
        document = asdict(report) | {"hidden_share": report.hidden_share}
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _show(report)
    if hidden_max is not None and report.hidden_share > hidden_max:
        message = f"{report.hidden_share:.1%} of violating posts passed in disguise; --hidden-max is {hidden_max:.1%}"
        raise LimitError(message)


def _show(report: AttackReport) -> None:
    out.print(
        f"{report.policy}@{report.version} by {report.model}: {report.posts} posts, {report.violating} violating"
        + (f"; {report.undecided} left out, undecided as they are" if report.undecided else ""),
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("attack", "held", "hidden", "accused", "undetermined", "failed"):
        table.add_column(column, justify="left" if column == "attack" else "right")
    for result in report.results:
        table.add_row(*(str(value) for value in asdict(result).values()))
    out.print(table)
    out.print(
        f"hidden: {report.hidden_share:.1%} of violating posts in all disguises", markup=False
    )


def read_posts(file: Path | None, policy: Policy, folder: Path, parser: PostParser) -> list[Post]:
    """Return the posts to try.

    Raises:
        SettingsError: the file cannot be read, or holds no post.
        PolicyError: no file is named, and the policy has neither a golden set nor examples.
    """
    if file is None and policy.golden_set is not None:
        file = folder / policy.id / policy.golden_set
    if file is None:
        examples = find_examples(read_sections(policy.text), policy.taxonomy)
        texts = list(dict.fromkeys(example.text for example in examples))
        if not texts:
            message = (
                f"policy {policy.id!r} has neither a golden set nor quoted examples with an answer; name posts with "
                "--posts FILE"
            )
            raise PolicyError(message)
        return [_post(number, text) for number, text in enumerate(texts, 1)]
    try:
        content = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"--posts {file}: {error}"
        raise SettingsError(message) from error
    found = _parse(file, content, parser)
    if not found:
        message = f"--posts {file}: holds no post"
        raise SettingsError(message)
    return found


def _parse(file: Path, content: str, parser: PostParser) -> list[Post]:
    if file.suffix == ".jsonl":
        return [
            _record(file, n, line, parser)
            for n, line in enumerate(content.splitlines(), 1)
            if line.strip()
        ]
    if file.suffix == ".csv":
        # Published sets begin with a line about their use; the header is the first with a column that we know.
        lines = content.splitlines(keepends=True)
        for start, line in enumerate(lines[:5]):
            names = [name.strip().casefold() for name in next(csv.reader([line]), [])]
            column = next((names.index(name) for name in _TEXT_COLUMNS if name in names), None)
            if column is not None:
                rows = csv.reader(io.StringIO("".join(lines[start + 1 :])))
                texts = [row[column] for row in rows if len(row) > column and row[column].strip()]
                return [_post(number, text) for number, text in enumerate(texts, 1)]
        message = f"--posts {file}: no column is called one of {', '.join(_TEXT_COLUMNS)}"
        raise SettingsError(message)
    return [_post(n, line) for n, line in enumerate(content.splitlines(), 1) if line.strip()]


def _record(file: Path, number: int, line: str, parser: PostParser) -> Post:
    try:
        return parser.parse(line.encode(), [])
    except RecordError as error:
        message = f"--posts {file}:{number}: not a post: {error}"
        raise SettingsError(message) from error


def _post(number: int, text: str) -> Post:
    data = text.encode("utf-8", "replace")
    return Post(str(number), text, hashlib.sha256(data).hexdigest(), len(data))
