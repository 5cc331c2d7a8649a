"""``stream-guard route``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream_guard.cli.options import ConfigOption, PathOption
from stream_guard.cli.policy_folder import load_folder
from stream_guard.cli.posts import read_lines
from stream_guard.cli.terminal import say
from stream_guard.core.errors import RecordError, SettingsError
from stream_guard.policies.lanes import severity_of
from stream_guard.policies.routing import RouteFacts
from stream_guard.records.post import PostParser
from stream_guard.settings import load_settings


def route(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.jsonl", help="Posts, a record's value a line.")
    ],
    topic: Annotated[str, typer.Option("--topic", "-t", help="The topic that they come from.")],
    header: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="NAME=VALUE", help="A record header; may be repeated."),
    ] = None,
    path: PathOption = None,
    config: ConfigOption = None,
) -> None:
    """Show which policies judge each post of a file, which routing rule decides that, and the lane of each."""
    parser = PostParser(load_settings(config).post).of_topic(topic)
    headers = [read_header(text) for text in header or ()]
    _, policies = load_folder(path, config, routes_needed=True)
    for number, line in read_lines(file):
        try:
            post, document = parser.parse_document(line, headers)
        except RecordError as error:
            say(f"line {number}: would be a dead letter: {error}")
            continue
        facts = RouteFacts.of(topic, headers, document, post)
        routed = policies.route_post(facts)
        shown = ", ".join(f"{r.policy.id}@{r.policy.version} ({r.mode})" for r in routed)
        say(f"line {number}: {post.id}: {shown}")
        for reason in policies.routing.explain(facts):
            say(f"  {reason}")
        if lanes := policies.routing.lanes:
            for one in routed:
                lane = lanes.of(facts, severity_of(one.policy.taxonomy))
                say(f"  lane {lane.name} under {one.policy.id}")


def read_header(text: str) -> tuple[str, bytes]:
    """Return the header in ``NAME=VALUE``. Raises SettingsError."""
    name, separator, value = text.partition("=")
    if not name or not separator:
        message = f"--header {text}: write NAME=VALUE, for example --header tenant=acme"
        raise SettingsError(message)
    return name, value.encode()
