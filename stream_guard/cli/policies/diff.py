"""``stream-guard policies diff``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stream_guard.cli.options import ConfigOption, JsonOption
from stream_guard.cli.policy_folder import load_folder
from stream_guard.cli.terminal import say, write_json
from stream_guard.policies.diff import diff_lines, diff_policies


def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A folder of policies.")],
    after: Annotated[
        Path | None,
        typer.Argument(metavar="AFTER", help="Another folder. Default: the setting policies.path."),
    ] = None,
    config: ConfigOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show how two folders of policies differ: texts, metadata and routes."""
    _, old = load_folder(before, config, lenient=True)
    _, new = load_folder(after, config, lenient=True)
    difference = diff_policies(old, new)
    if json:
        write_json(asdict(difference))
        return
    for line in diff_lines(difference):
        say(line)
