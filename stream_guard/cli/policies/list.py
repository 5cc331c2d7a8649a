"""``stream-guard policies list``."""

from __future__ import annotations

from stream_guard.cli.options import ConfigOption, JsonOption, PathOption
from stream_guard.cli.policy_folder import load_folder
from stream_guard.cli.terminal import write_json, write_table
from stream_guard.policies.describe import describe_policy, list_lines


def list_policies(
    path: PathOption = None, config: ConfigOption = None, *, json: JsonOption = False
) -> None:
    """List the policies, their versions and the topics that they judge."""
    _, policies = load_folder(path, config)
    if json:
        write_json([describe_policy(policy) for policy in policies.policies.values()])
        return
    write_table(("policy", "version", "labels", "categories", "topics"), list_lines(policies))
