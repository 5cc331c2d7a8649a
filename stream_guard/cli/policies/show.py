"""``stream-guard policies show``."""

from __future__ import annotations

from stream_guard.cli.options import ConfigOption, JsonOption, PathOption, SlugArgument
from stream_guard.cli.policy_folder import find_policy, load_folder
from stream_guard.cli.terminal import say, write_json
from stream_guard.policies.describe import describe_policy, show_lines


def show(
    slug: SlugArgument,
    path: PathOption = None,
    config: ConfigOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show what Stream Guard reads out of a policy and where: labels, categories, rule ids."""
    policy = find_policy(load_folder(path, config)[1], slug)
    if json:
        write_json(describe_policy(policy))
        return
    for line in show_lines(policy):
        say(line)
