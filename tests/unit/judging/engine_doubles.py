"""An engine's judge with a model family of the tests, and an engine that follows a script."""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from stream_guard.core.decoding import GREEDY
from stream_guard.core.errors import EngineError, PromptError
from stream_guard.judging.contract import Judgement, JudgeRequest
from stream_guard.judging.engine.client import Completion, VllmClient
from stream_guard.judging.engine.judge import Observers, VllmJudge
from stream_guard.judging.engine.prefixes import CacheRoom
from stream_guard.judging.engine.steps import Compilations
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post
from stream_guard.settings import EngineSettings
from tests.hang import HANG_S
from tests.plain_family import Plain, load_plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from stream_guard.core.decoding import Decoding
    from stream_guard.judging.contract import FinishReason
    from stream_guard.judging.engine.prefixes import PrefixCache
    from stream_guard.judging.families.family import (
        Constraint,
        Exchange,
        Reading,
        Sampling,
    )
    from stream_guard.policies.policy import Policy

POLICY = make_policy("cats", b"Posts about cats are not allowed.")
POLICIES = PolicySet({"cats": POLICY})
PAIR = (0.1, 0.4)
"""Probabilities of "safe" and "violates" where both are asked for: together they are half of all."""


@dataclass
class Params:
    """What the scripted engine gets in place of vLLM's sampling parameters."""

    constraint: Constraint | None
    max_tokens: int
    probabilities: bool
    decoding: Decoding
    seed: int | None = None
    pair: tuple[int, int] | None = None

    def clone(self) -> Params:
        return replace(self)


def greedy_params(max_tokens: int) -> Params:
    """Return parameters of so many tokens, without a constraint."""
    return Params(None, max_tokens, probabilities=False, decoding=GREEDY)


class ScriptedClient(VllmClient):
    """An engine without vLLM: a post's text says what it writes, one word for each attempt.

    The word ``wait`` waits for ``gate``; ``reject`` rejects the prompt, and ``die`` ends the engine.

    Attributes:
        chosen: probability of each token that it writes.
        held: completions that wait now.
        stopped: completions that were cancelled while they waited.
    """

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self.gate = asyncio.Event()
        self.held = 0
        self.stopped = 0
        self.changed = asyncio.Event()
        self.plain = load_plain(settings)
        self.prompts: list[str] = []
        self.params: list[Params] = []
        self.dead: asyncio.Future[EngineError] | None = None
        self.tries: dict[str, int] = {}
        self.chosen = 0.75

    async def start(self) -> None:
        self.version = "scripted 1"
        self.dead = asyncio.get_running_loop().create_future()

    @property
    def model_len_max(self) -> int:
        return 400

    @property
    def cache_room(self) -> CacheRoom | None:
        return CacheRoom(1_000, 16, 4)

    async def compilations(self) -> Compilations:
        return Compilations()

    def sampling_params(self, sampling: Sampling, **wanted: Any) -> Any:
        told = (wanted[name] for name in ("probabilities", "decoding"))
        return Params(sampling.constraint, sampling.tokens_max, *told)

    def pair_params(self, labels: tuple[int, int]) -> Any:
        return Params(None, 1, False, GREEDY, pair=labels)  # noqa: FBT003 - no probability of the token itself

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
        if params.pair:
            found = {
                token: SimpleNamespace(logprob=math.log(share))
                for token, share in zip(params.pair, PAIR, strict=True)
            }
            return Completion(params.pair[:1], "length", 5, [found])
        words = prompt.rpartition("Text: ")[2].partition("\nAnswer:")[0].split()
        request = request_id.rpartition("-")[0]
        attempt = self.tries[request] = self.tries.get(request, -1) + 1
        word = words[min(attempt, len(words) - 1)]
        if word == "wait":
            word = await self._wait()
        if word == "reject":
            message = "the engine rejected a prompt"
            raise PromptError(message)
        if word == "die":
            assert self.dead is not None
            error = EngineError("the engine's process died")
            if not self.dead.done():
                self.dead.set_result(error)
            raise error
        ends: dict[str, FinishReason] = {"endless": "length", "broken": "error"}
        written = self.plain.encode(word)
        logprobs = [{token: SimpleNamespace(logprob=math.log(self.chosen))} for token in written]
        return Completion(written, ends.get(word, "stop"), 7, logprobs)

    async def _wait(self) -> str:
        """Wait for the gate, and return what is then written."""
        self.held += 1
        self.changed.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            self.changed.set()
            raise
        finally:
            self.held -= 1
        return "1"

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until this holds; it is tried when a completion begins to wait or is cancelled."""
        async with asyncio.timeout(HANG_S):
            while not reached():
                self.changed.clear()
                await self.changed.wait()

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

    async def until(self, count: int) -> None:
        """Wait until so many judgements are delivered."""
        async with asyncio.timeout(HANG_S):
            while len(self.delivered) < count:
                self.more.clear()
                await self.more.wait()

    async def judged(self, *texts: str, policy: Policy = POLICY, run: int = 0) -> list[Judgement]:
        """Return the judgements of these posts, in their order."""
        requests = [
            JudgeRequest(
                f"{text} {run}", Post(text, text, text, len(text)), policy, context=number, run=run
            )
            for number, text in enumerate(texts)
        ]
        del self.delivered[:]
        self.judge.submit(requests, self.deliver)
        await self.until(len(texts))
        return sorted(self.delivered, key=lambda judgement: judgement.request.context)


class Thinker(Plain):
    """The same family with a thought before a slash; each of its characters counts as a token."""

    def read(self, ids: Sequence[int], policy: Policy, *, complete: bool) -> Reading:
        thought, _, said = self.decode(ids).strip().rpartition("/")
        reading = super().read(self.encode(said), policy, complete=complete)
        return replace(reading, label_position=None, reasoning_tokens=len(thought))


@contextlib.asynccontextmanager
async def world_of(
    random_model: Path, prefixes: PrefixCache | None = None, **changes: Any
) -> AsyncIterator[World]:
    """Start a judge with these settings of the engine."""
    own = {"model": str(random_model), "max_model_len": 400, "constraint": "always"}
    settings = EngineSettings(**{**own, **changes})
    clients: list[ScriptedClient] = []
    heard: list[Exchange] = []

    def make_client(settings: EngineSettings) -> ScriptedClient:
        clients.append(ScriptedClient(settings))
        return clients[-1]

    observers = Observers(keep_thoughts=True, listen=heard.append)
    judge = VllmJudge(
        settings, load_plain, observers=observers, prefixes=prefixes, make_client=make_client
    )
    await judge.start(POLICIES)
    try:
        yield World(judge, clients[0], heard)
    finally:
        await judge.close()
