"""``stream-guard review decide``."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_guard.cli.options import (
    CategoryOption,
    ConfigOption,
    DeciderOption,
    JsonOption,
    ReasonOption,
    ValidDaysOption,
    refuse_unknown,
    valid_until,
)
from stream_guard.cli.policy_folder import load_folder
from stream_guard.cli.review.options import (
    DatabaseOption,
    ItemArgument,
    RoleChoice,
    now_ms,
    open_desk,
    record_access,
)
from stream_guard.cli.terminal import run_quietly, say, write_json
from stream_guard.core.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.records.decision import Decision


class OutcomeChoice(StrEnum):
    """What a person decides."""

    violates = "violates"
    safe = "safe"
    retract = "retract"


def _refuse_unknown_category(
    item: Mapping[str, Any], category: str | None, config: Path | None
) -> None:
    """Raise SettingsError where the item's policy is in the folder of policies and has no such category."""
    try:
        _, policies = load_folder(None, config, lenient=True)
    except PolicyError:
        return  # a reviewer's machine may have no policies
    policy = policies.policies.get(item["policy"]["id"])
    if policy is not None and category not in (None, item["verdict"]["category"]):
        codes = [each.code for each in policy.taxonomy.categories]
        refuse_unknown("--category", str(category), codes)


# Over 60 lines: half of them are the options.
def decide_item(  # noqa: PLR0913 - the command's options
    item_id: ItemArgument,
    outcome: Annotated[
        OutcomeChoice,
        typer.Argument(help="The decision. retract takes the verdict back and decides nothing."),
    ],
    *,
    by: DeciderOption,
    role: Annotated[RoleChoice, typer.Option(help="The role.")] = RoleChoice.reviewer,
    category: CategoryOption = None,
    action: Annotated[
        str | None, typer.Option(help="Recommended action. Default: the verdict's; none if safe.")
    ] = None,
    reason: ReasonOption = None,
    valid_days: ValidDaysOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Lease an item, write a decision about it to the decisions topic, and end the lease.

    With kafka.audit_topic, who decides is written there first.
    """
    from stream_guard.kafka.decision_writer import write_decision
    from stream_guard.offline.decide import section_of
    from stream_guard.offline.review.deciding import Choice, decide
    from stream_guard.offline.review.queue import Person

    retracts = outcome is OutcomeChoice.retract
    now = now_ms()
    choice = Choice(
        None if retracts else outcome.value,
        "retraction" if retracts else "review",
        category,
        action,
        reason,
        valid_until(valid_days, now),
    )
    person = Person(by, role.value)
    with open_desk(config, database, offline=False) as desk:
        run_quietly(record_access(desk, person, item_id, "lease", "decide"))
        desk.queue.claim(person, now, item_id=item_id)

        async def write(decision: Decision) -> None:
            await write_decision(desk.settings.kafka, decision)

        try:
            item, _ = desk.queue.held(item_id, person, now)
            _refuse_unknown_category(item, category, config)
            made: Decision = run_quietly(
                decide(
                    desk.queue,
                    desk.projection,
                    write,
                    item_id=item_id,
                    choice=choice,
                    person=person,
                    now_ms=now,
                    section_of=partial(section_of, desk.settings),
                )
            )
        except BaseException:
            desk.queue.release(item_id, person, now)
            raise
    if json:
        write_json(made.model_dump(mode="json"))
    else:
        say(f"decision {made.id} written to {desk.settings.kafka.decision_topic}")
