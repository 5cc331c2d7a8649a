"""A judge that cannot ask people's decisions any more fails, and delivers nothing that a person may have decided."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from stream_guard.core.errors import SettingsError
from stream_guard.judging.contract import JudgeRequest
from stream_guard.judging.human.judge import HumanFirst
from stream_guard.judging.human.table import DecisionTable
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import PostParser
from stream_guard.settings import PostSettings
from stream_guard.telemetry.metrics import Metrics
from stream_guard.testing import ManualClock, ManualJudge
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import Judgement
    from stream_guard.policies.policy import Policy
    from stream_guard.records.decision import Decision
    from stream_guard.records.post import Post


class FullTable(DecisionTable):
    """A table whose temporary folder is full."""

    def find(self, post: Post, policy: Policy, now_ms: int) -> Decision | None:  # noqa: ARG002 - it cannot look
        raise SettingsError("no room")


async def test_a_table_that_cannot_be_asked_ends_the_judge() -> None:
    table, inner = FullTable(), ManualJudge()
    human = HumanFirst(inner, table, clock=ManualClock(), metrics=Metrics(CollectorRegistry()))
    post = PostParser(PostSettings()).parse(b'{"id": "p0", "text": "0"}', ())
    policy = make_policy("spam", b"S1: a rule\nAnswer `VIOLATES` or `SAFE`.")
    delivered: list[Judgement] = []

    def deliver(judgements: Sequence[Judgement]) -> None:
        delivered.extend(judgements)

    human.submit([JudgeRequest("1", post, policy)], deliver)
    table.version = 1  # a decision came meanwhile
    asyncio.get_running_loop().call_soon(inner.answer)
    async with asyncio.timeout(HANG_S):
        error = await human.wait_failed()
    assert isinstance(error, SettingsError)
    assert delivered == []
    table.close()
