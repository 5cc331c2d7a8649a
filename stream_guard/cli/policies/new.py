"""``stream-guard policies new``."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_guard.cli.options import ConfigOption, PathOption
from stream_guard.cli.terminal import say
from stream_guard.policies.new_policy import new_policy
from stream_guard.settings import load_settings

SlugArgument = Annotated[
    str,
    typer.Argument(metavar="SLUG", help="Id of the new policy, which is the name of its folder."),
]
TopicOption = Annotated[
    str | None,
    typer.Option(
        "--topic", metavar="TOPIC", help="Topic whose posts it judges. Default: the policy's id."
    ),
]


def new(
    slug: SlugArgument,
    path: PathOption = None,
    config: ConfigOption = None,
    topic: TopicOption = None,
) -> None:
    """Make a policy to edit: its text with every part, a golden set, and a route. Never overwrites a policy."""
    folder = path or load_settings(config).policies.path
    for file in new_policy(folder, slug, topic or slug):
        say(f"wrote {file}")
    at = "" if path is None else f" --path {path}"
    say(f"edit policy.md and golden.csv, then run: stream-guard policies lint {slug}{at}")
