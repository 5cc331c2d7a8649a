"""What people do while everything breaks: they decide about verdicts, contradict each other, and delete posts.

What it must never do: decide about a verdict that a reader with ``read_committed`` has not got.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.records.decision import Decision, about_verdict, encode_decision
from stream_guard.records.verdict_changes import HUMAN
from tests.soak import posting
from tests.soak.members import Member, now_ms

if TYPE_CHECKING:
    from tests.soak.schedule import Planned
    from tests.soak.stage import Group, Stage

DECISIONS: Final = 40
"""Verdicts that each group's people decide about in one fault."""
DELETIONS: Final = 40
_VERDICTS_S: Final = 60.0
_LOOK_S: Final = 0.2
_CONTRADICTED_EVERY: Final = 4
_TAKEN_BACK_EVERY: Final = 10


class PeopleFaults:
    """Each method is one kind of fault."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def decide(self, fault: Planned) -> str:
        """Decide about verdicts of each group, kill a member in the middle, and send all decided posts again."""
        stage = self._stage
        draw = random.Random(fault.draw)  # noqa: S311 - a schedule, not a secret
        written: list[tuple[Group, list[Decision]]] = [
            (group, self._decisions(group, await self._verdicts(group), draw))
            for group in stage.groups
        ]
        for group, decisions in written:
            await self._write(group, decisions[: len(decisions) // 2])
        killed = [await stage.pick(g.members, fault.draw, Member.kill) for g in stage.groups]
        for group, decisions in written:
            await self._write(group, decisions[len(decisions) // 2 :])
        stage.poster.repeat(decided_posts(stage))
        count = sum(len(decisions) for _, decisions in written)
        return f"{count} decisions, and {', '.join(killed)} killed"

    async def delete(self, fault: Planned) -> str:
        """Delete the last posts of a partition at their source."""
        partition = self._stage.partition(fault.draw)
        count = self._stage.poster.delete(partition, DELETIONS)
        return f"{count} posts of partition {partition}"

    async def _verdicts(self, group: Group) -> list[dict[str, Any]]:
        """Return the newest verdicts of the machine on posts that nobody has decided about; wait for some."""
        async with asyncio.timeout(_VERDICTS_S):
            while True:
                found: dict[tuple[str, str], dict[str, Any]] = {}
                for value in reversed(self._stage.reader.newest[group.verdicts]):
                    verdict = orjson.loads(value)
                    subject = verdict["policy"]["id"], verdict["content"]["id"]
                    if is_machines(verdict) and subject not in group.decided:
                        found.setdefault(subject, verdict)
                    if len(found) == DECISIONS:
                        break
                if found:
                    group.decided.update(found)
                    return [*found.values()]
                await asyncio.sleep(_LOOK_S)

    def _decisions(
        self, group: Group, verdicts: list[dict[str, Any]], draw: random.Random
    ) -> list[Decision]:
        """Return a decision about each verdict, and a contradicting one about some, in any order."""
        made = []
        for number, verdict in enumerate(verdicts):
            name = f"{group.mode}-{verdict['id']}"
            at_ms = now_ms() + number
            if number % _TAKEN_BACK_EVERY == 1:
                made.append(_decision(f"{name}-back", at_ms, verdict, draw.choice(_TAKES_BACK)))
                continue
            made.append(_decision(name, at_ms, verdict, "review"))
            if number % _CONTRADICTED_EVERY == 0:
                # Equal times are decided by the ids.
                at_ms += draw.choice((-1_000, 0, 1_000))
                made.append(_decision(f"{name}-appeal", at_ms, verdict, "appeal"))
        draw.shuffle(made)
        return made

    async def _write(self, group: Group, decisions: list[Decision]) -> None:
        last = await posting.send_keyed(
            self._stage.cluster.bootstrap,
            group.decisions,
            [encode_decision(decision)[:2] for decision in decisions],
        )
        for partition, offset in last.items():
            group.last_decisions[partition] = max(offset, group.last_decisions.get(partition, -1))


_TAKES_BACK: Final = ("retraction", "expiry")


def decided_posts(stage: Stage) -> list[str]:
    """Return the ids of all posts that anybody has decided about."""
    return sorted({name for group in stage.groups for _, name in group.decided})


def is_machines(verdict: dict[str, Any]) -> bool:
    """Return whether a machine gave a verdict on a numbered post of the poster."""
    numbered = verdict["content"]["id"].removeprefix("p").isdigit()
    return numbered and verdict["provenance"]["tier"] != HUMAN and "retracts" not in verdict


def _decision(name: str, at_ms: int, verdict: dict[str, Any], kind: Any) -> Decision:  # noqa: ANN401 - a literal
    outcome = None
    if kind in ("review", "appeal"):
        safe = kind == "review"
        outcome = {
            "decision": "safe" if safe else "violates",
            "action": "none" if safe else "remove",
        }
    return Decision.model_validate(
        {
            "schema_version": "1.0",
            "id": name,
            "kind": kind,
            "decided_at": at_ms,
            "decided_by": {"id": "reviewer-1", "role": "reviewer"},
            "about": about_verdict(verdict).model_dump(),
            "outcome": outcome,
        }
    )
