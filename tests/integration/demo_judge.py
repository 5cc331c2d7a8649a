"""One real vLLM engine with the demo model, shared by the tests of a module; it keeps what it was asked."""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_guard.judging.contract import Judgement, JudgeRequest, Provenance
from stream_guard.judging.engine.judge import VllmJudge
from stream_guard.judging.engine.plans import Planner
from stream_guard.judging.families.registry import load_family
from stream_guard.offline.session import judge_all
from stream_guard.policies.policy import PolicySet
from stream_guard.records.post import Post
from stream_guard.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from stream_guard.judging.families.harmony.family import Harmony
    from stream_guard.policies.policy import Policy

JUDGE_S: Final = 300
_numbers = itertools.count()


class Asked(NamedTuple):
    """One request to the engine, and what came back."""

    id: str
    params: Any
    completion: Any

    @property
    def first(self) -> bool:
        """Whether it begins an attempt: it neither goes on with one nor asks for two labels."""
        return not self.id.endswith(("-more", "-answer")) and self.params.max_tokens > 1


class Recorded(VllmJudge):
    """The judge.

    Attributes:
        asked: by the id of a post's request, what the engine was asked for it.
        completed: by the same, the completion of each attempt.
    """

    _family: Harmony

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings, load_family)
        self.asked: dict[str, list[Asked]] = {}
        self.completed: dict[str, list[Any]] = {}
        generate = self._client.generate

        async def recorded(ids: list[int], params: Any, request_id: str, headers: Any) -> Any:
            completion = await generate(ids, params, request_id, headers)
            asked = Asked(request_id, params, completion)
            self.asked.setdefault(request_id.partition("-")[0], []).append(asked)
            return completion

        self._client.generate = recorded  # type: ignore[method-assign, assignment]

    def _read_model(self) -> None:
        super()._read_model()
        complete = self._asker._complete

        async def recorded(
            prompt: Any, params: Any, parts: Any, request_id: str, *more: Any
        ) -> Any:
            completion = await complete(prompt, params, parts, request_id, *more)
            self.completed.setdefault(request_id.partition("-")[0], []).append(completion)
            return completion

        self._asker._complete = recorded  # type: ignore[method-assign]

    def first(self, judgement: Judgement) -> list[Asked]:
        """Return the first request of each attempt at a post."""
        return [one for one in self.asked[judgement.request.id] if one.first]

    @contextlib.contextmanager
    def under(self, constraint: str) -> Iterator[None]:
        """Ask as another constraint does, on the same engine."""
        own = self._planner
        settings = self._settings.model_copy(update={"constraint": constraint})
        self._planner = Planner(settings, self._family, self._make_params)
        try:
            yield
        finally:
            self._planner = own


@contextlib.asynccontextmanager
async def demo_judge(policies: Sequence[Policy], **changes: Any) -> AsyncIterator[Recorded]:
    """Start an engine under these policies, with these settings in place of the tests' own."""
    own = {
        "model": "demo",
        "max_model_len": 2_048,
        "max_num_seqs": 16,
        "kv_cache_memory_bytes": 256 << 20,
        "rationale_tokens_max": 48,
        "in_flight_requests_max": 32,
    }
    judge = Recorded(EngineSettings(**{**own, **changes}))
    await judge.start(PolicySet({policy.id: policy for policy in policies}))
    try:
        yield judge
    finally:
        await judge.close()


def request_of(policy: Policy, text: str, **more: Any) -> JudgeRequest:
    """Return a request with an id of its own for a post of this text."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return JudgeRequest(
        f"r{next(_numbers)}", Post("1", text, digest, len(text.encode())), policy, **more
    )


async def judged(judge: VllmJudge, asked: Sequence[JudgeRequest]) -> list[Judgement]:
    """Return the judgements of these requests, in their order."""
    async with asyncio.timeout(JUDGE_S):
        found = await judge_all(judge, asked)
    by_id = {judgement.request.id: judgement for judgement in found}
    return [by_id[request.id] for request in asked]


def provenance_of(judgement: Judgement) -> Provenance:
    """Return where a judgement comes from."""
    assert isinstance(judgement.provenance, Provenance)
    return judgement.provenance
