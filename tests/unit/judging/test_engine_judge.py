"""The engine's judge works with any model family: here with one of the tests, and an engine that follows a script."""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.core.errors import EngineError, PromptError
from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance
from stream_guard.judging.engine.client import Completion, VllmClient
from stream_guard.judging.engine.judge import Observers, VllmJudge
from stream_guard.judging.families.family import Constraint, Exchange, Reading
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post
from stream_guard.settings import EngineSettings
from tests.plain_family import Plain, load_plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from stream_guard.judging.contract import FinishReason
    from stream_guard.policies.policy import Policy

POLICY = make_policy("cats", b"Posts about cats are not allowed.")
POLICIES = PolicySet({"cats": POLICY})


@dataclass
class Params:
    """What the scripted engine gets in place of vLLM's sampling parameters."""

    constraint: Constraint | None
    max_tokens: int
    probabilities: bool

    def clone(self) -> Params:
        return Params(self.constraint, self.max_tokens, self.probabilities)


class ScriptedClient(VllmClient):
    """An engine without vLLM: a post's text says what it writes, one word for each attempt."""

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self.plain = load_plain(settings)
        self.prompts: list[str] = []
        self.params: list[Params] = []
        self.dead: asyncio.Future[EngineError] | None = None
        self.tries: dict[str, int] = {}

    async def start(self) -> None:
        self.version = "scripted 1"
        self.dead = asyncio.get_running_loop().create_future()

    @property
    def model_len_max(self) -> int:
        return 400

    def sampling_params(self, **wanted: Any) -> Any:
        return Params(wanted["constraint"], wanted["tokens_max"], wanted["probabilities"])

    async def generate(
        self,
        ids: list[int],
        params: Any,
        request_id: str,
        trace_headers: dict[str, str] | None,  # noqa: ARG002 - the client's
    ) -> Completion:
        prompt = self.plain.decode(ids)
        self.prompts.append(prompt)
        self.params.append(params)
        if "warm-up" in request_id:
            return Completion((), "length", 0, None)
        words = prompt.rpartition("Text: ")[2].partition("\nAnswer:")[0].split()
        request = request_id.rpartition("-")[0]
        attempt = self.tries[request] = self.tries.get(request, -1) + 1
        word = words[min(attempt, len(words) - 1)]
        ends: dict[str, FinishReason] = {"endless": "length", "broken": "error"}
        written = self.plain.encode(word)
        logprobs = [{token: SimpleNamespace(logprob=math.log(0.75))} for token in written]
        return Completion(written, ends.get(word, "stop"), 7, logprobs)

    async def wait_dead(self) -> EngineError:
        assert self.dead is not None
        return await asyncio.shield(self.dead)

    def is_dead(self) -> bool:
        return self.dead is not None and self.dead.done()

    async def answers(self) -> bool:
        return True

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class World:
    """A judge, its engine, and all that it delivered."""

    judge: VllmJudge
    client: ScriptedClient
    heard: list[Exchange]
    delivered: list[Judgement] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def deliver(self, judgements: Sequence[Judgement]) -> None:
        self.delivered.extend(judgements)
        self.more.set()

    async def judged(self, *texts: str, policy: Policy = POLICY) -> list[Judgement]:
        """Return the judgements of these posts, in their order."""
        requests = [
            JudgeRequest(text, Post(text, text, "", len(text)), policy, context=number)
            for number, text in enumerate(texts)
        ]
        self.judge.submit(requests, self.deliver)
        async with asyncio.timeout(60):
            while len(self.delivered) < len(texts):
                self.more.clear()
                await self.more.wait()
        return sorted(self.delivered, key=lambda judgement: judgement.request.context)


@pytest.fixture
async def world(random_model: Path) -> AsyncIterator[World]:
    settings = EngineSettings(model=str(random_model), max_model_len=400)
    clients: list[ScriptedClient] = []
    heard: list[Exchange] = []

    def make_client(settings: EngineSettings) -> ScriptedClient:
        clients.append(ScriptedClient(settings))
        return clients[-1]

    observers = Observers(keep_thoughts=True, listen=heard.append)
    judge = VllmJudge(settings, load_plain, observers=observers, make_client=make_client)
    await judge.start(POLICIES)
    yield World(judge, clients[0], heard)
    await judge.close()


async def test_another_familys_prompt_is_sent_and_its_answer_read(world: World) -> None:
    no, yes = await world.judged("0", "1")
    assert (no.answer, yes.answer) == (Answer("safe"), Answer("violates"))
    assert [no.confidence, yes.confidence] == pytest.approx([0.25, 0.75])
    assert world.client.prompts[-1].endswith("1 for yes.\n\nText: 1\nAnswer:")
    assert "<|" not in "".join(world.client.prompts)
    assert world.client.params[-1] == Params(Constraint("choice", ["0", "1"]), 4, True)  # noqa: FBT003
    provenance = yes.provenance
    assert provenance is not None
    prefix = world.client.plain.prefix(POLICY, "low")
    assert (provenance.prompt_sha256, provenance.cached_tokens) == (prefix.sha256, 7)
    assert [(one.completion, one.analysis) for one in world.heard] == [("0", ""), ("1", "")]
    assert yes.thoughts == (), "this family has no reasoning to keep"


async def test_what_another_family_cannot_read_is_retried_and_then_undetermined(
    world: World,
) -> None:
    again, never, endless = await world.judged("maybe 1", "maybe maybe", "endless")
    assert again.answer == Answer("violates")
    assert never.answer == Answer("undetermined", parse_status="malformed")
    assert endless.answer == Answer("undetermined", parse_status="truncated")
    for judgement in (again, never, endless):
        assert isinstance(judgement.provenance, Provenance)
        assert judgement.provenance.attempts == 2


class Thinker(Plain):
    """The same family with a thought before a slash; each of its characters counts as a token."""

    def read(self, ids: Sequence[int], policy: Policy, *, complete: bool) -> Reading:
        thought, _, said = self.decode(ids).strip().rpartition("/")
        reading = super().read(self.encode(said), policy, complete=complete)
        return replace(reading, label_position=None, reasoning_tokens=len(thought))


async def test_reasoning_that_used_its_whole_budget_is_told_of_the_attempt_that_answered(
    world: World,
) -> None:
    # The first attempt may reason for four tokens, the second for half of that.
    policy = replace(POLICY, reasoning_tokens_max=4)
    plain = world.client.plain
    world.judge._asker._family = Thinker(plain._tokenizer, plain._date)
    told = {
        "hmm/1": False,
        "hmmm/1": True,
        "hmmm/maybe h/1": False,
        "hmmm/maybe hm/1": True,
        "h/maybe h/maybe": False,
        "hmmm/maybe endless": False,
        "hmmm/maybe broken": False,
    }
    judgements = await world.judged(*told, policy=policy)
    for judgement, cut in zip(judgements, told.values(), strict=True):
        assert judgement.provenance is not None
        assert judgement.provenance.reasoning_cut is cut, judgement.request.id


async def test_a_post_too_long_for_another_familys_prompt_is_rejected(world: World) -> None:
    (judgement,) = await world.judged("cat " * 1_000)
    assert isinstance(judgement.error, PromptError)


async def test_nothing_is_delivered_after_the_engine_has_died(world: World) -> None:
    assert world.client.dead is not None
    error = EngineError("the engine's process died")
    world.client.dead.set_result(error)
    assert await world.judge.wait_failed() is error
    world.judge.submit([JudgeRequest("late", Post("late", "1", "", 1), POLICY)], world.deliver)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.delivered == []
