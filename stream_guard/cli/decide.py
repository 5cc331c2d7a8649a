"""``stream-guard decide``."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from stream_guard.cli.options import (
    CategoryOption,
    ConfigOption,
    DeciderOption,
    FromOption,
    JsonOption,
    ReasonOption,
    ValidDaysOption,
    valid_until,
)
from stream_guard.cli.terminal import run_quietly, say, show_progress, write_json
from stream_guard.core.errors import SettingsError
from stream_guard.kafka.bounds import read_bound
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from stream_guard.records.decision import Decision


class OutcomeChoice(StrEnum):
    """Whether the post breaks the policy."""

    violates = "violates"
    safe = "safe"


class KindChoice(StrEnum):
    """What kind of decision it is."""

    review = "review"
    appeal = "appeal"
    retraction = "retraction"
    expiry = "expiry"


# Over 60 lines: most of them are the options.
def decide(  # noqa: PLR0913 - the command's options
    verdict_id: Annotated[str, typer.Argument(metavar="VERDICT-ID", help="The verdict's id.")],
    outcome: Annotated[
        OutcomeChoice | None,
        typer.Argument(help="The decision; none for --kind retraction and expiry."),
    ] = None,
    *,
    by: DeciderOption,
    role: Annotated[str, typer.Option(help="The role, one of decisions.roles.")] = "reviewer",
    kind: Annotated[KindChoice, typer.Option(help="The kind of decision.")] = KindChoice.review,
    category: CategoryOption = None,
    action: Annotated[
        str | None, typer.Option(help="Recommended action. Default: the policy's; none if safe.")
    ] = None,
    reason: ReasonOption = None,
    valid_days: ValidDaysOption = None,
    first: FromOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Overrule a verdict, take it back, or say that it has expired: write one decision.

    The verdict is searched in the verdict topic, from --from on.
    """
    from stream_guard.offline.choice import Choice
    from stream_guard.offline.decide import decide as write

    replaces = kind in (KindChoice.review, KindChoice.appeal)
    if replaces != (outcome is not None):
        what = "needs violates or safe" if replaces else "takes neither violates nor safe"
        raise SettingsError(f"--kind {kind.value} {what}")
    begin, settings = read_bound(first, "--from"), load_settings(config)

    async def make() -> Decision:
        now_ms = time.time_ns() // 1_000_000
        choice = Choice(
            None if outcome is None else outcome.value,
            kind.value,
            category,
            action,
            reason,
            valid_until(valid_days, now_ms),
        )
        with show_progress("reading") as progress:
            return await write(
                settings,
                verdict_id,
                choice,
                by=by,
                role=role,
                now_ms=now_ms,
                first=begin,
                progress=progress,
            )

    decision: Decision = run_quietly(make())
    if json:
        write_json(decision.model_dump(mode="json"))
    else:
        say(f"decision {decision.id} written to {settings.kafka.decision_topic}")
