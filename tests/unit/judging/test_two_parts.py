"""One completion by two requests: what each is asked for, and what both make together."""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.judging.engine.client import Completion
from stream_guard.judging.engine.two_parts import Bounded, TwoParts
from stream_guard.judging.families.family import Reasoning
from tests.unit.judging.engine_doubles import greedy_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import FinishReason

OPEN, END, NEXT = 1, 2, 3
"""Control tokens; all others are words."""
PROMPT = [50, 51]
BUDGET = 3
REASONING = Reasoning((OPEN,), frozenset({END, NEXT}), (END,))


@dataclass
class Client:
    """Writes what a test says, one completion for each request."""

    written: list[Completion]
    asked: list[tuple[list[int], int, str]] = field(default_factory=list)

    async def generate(
        self, ids: list[int], params: Any, request_id: str, trace_headers: dict[str, str] | None
    ) -> Completion:
        assert trace_headers == {"traceparent": "t"}
        self.asked.append((ids, params.max_tokens, request_id))
        return self.written.pop(0)


def wrote(ids: Sequence[int], reason: FinishReason, cached: int = 0) -> Completion:
    """Return a completion whose tokens have themselves as their probabilities."""
    return Completion(ids, reason, cached, [{token: float(token)} for token in ids])


async def completed(
    parts: Bounded | TwoParts, *written: Completion
) -> tuple[Completion, list[tuple[list[int], int, str]]]:
    client: Any = Client(list(written))
    params: Any = greedy_params(20)
    found = await parts.complete(client, PROMPT, params, "r", {"traceparent": "t"})
    assert not client.written, "a request was not made"
    assert params.max_tokens == 20, "others use these parameters too"
    return found, client.asked


@pytest.fixture
def bounded() -> Bounded:
    thinking: Any = greedy_params(len(REASONING.opening) + BUDGET)
    return Bounded(REASONING, thinking)


async def test_most_completions_end_within_the_first_request(bounded: Bounded) -> None:
    whole = wrote([OPEN, 10, END, 4], "stop", cached=2)
    found, asked = await completed(bounded, whole)
    assert found is whole
    assert asked == [(PROMPT, 4, "r")]


async def test_reasoning_at_its_budget_is_ended_and_the_answer_follows(bounded: Bounded) -> None:
    cut = wrote([OPEN, 10, 11, 12], "length", cached=1)
    found, asked = await completed(bounded, cut, wrote([30, 31], "stop", cached=6))
    written = [OPEN, 10, 11, 12, END]
    assert asked[1] == ([*PROMPT, *written], 20 - 5, "r-more")
    assert found.ids == [*written, 30, 31]
    assert (found.finish_reason, found.cached_tokens) == ("stop", 7)
    assert (found.more_prompt_tokens, found.output_tokens) == (7, 4 + 2)
    assert [list(one) for one in found.logprobs] == [[30], [31]]
    assert found.logprobs_from == len(written), "the end was not drawn, so it has no probability"


async def test_an_answer_that_has_begun_goes_on_behind_its_last_token(bounded: Bounded) -> None:
    begun = wrote([OPEN, 10, NEXT, 30], "length")
    found, asked = await completed(bounded, begun, wrote([31], "length"))
    assert asked[1] == ([*PROMPT, OPEN, 10, NEXT, 30], 20 - 4, "r-more")
    assert found.ids == [OPEN, 10, NEXT, 30, 31]
    assert found.finish_reason == "length"
    assert [next(iter(one)) for one in found.logprobs] == found.ids
    assert found.logprobs_from == 0


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([9, 10, 11, 12], "length"),  # no reasoning: whatever it is, it does not count
        ([], "length"),
        ([OPEN, 10, 11, 12], "none"),
        ([OPEN, 10, 11, 12], "error"),
    ],
)
async def test_what_cannot_go_on_is_asked_for_once(
    bounded: Bounded, ids: list[int], reason: FinishReason
) -> None:
    first = wrote(ids, reason)
    found, asked = await completed(bounded, first)
    assert found is first
    assert len(asked) == 1


async def test_probabilities_of_the_last_tokens_stay_at_their_places(bounded: Bounded) -> None:
    begun = Completion([OPEN, 10, NEXT, 30], "length", 0, [{30: 30.0}], 3)
    found, _ = await completed(bounded, begun, wrote([31], "stop"))
    assert [list(one) for one in found.logprobs] == [[30], [31]]
    assert found.logprobs_from == 3
    cut = Completion([OPEN, 10, 11, 12], "length", 0, [{12: 12.0}], 3)
    behind = Completion([NEXT, 31], "stop", 0, [{31: 31.0}], 1)
    found, _ = await completed(bounded, cut, behind)
    assert [list(one) for one in found.logprobs] == [[31]]
    assert found.ids[found.logprobs_from :] == [31]
    begun = Completion([OPEN, 10, NEXT, 30], "length", 0, [{30: 30.0}], 3)
    found, _ = await completed(bounded, begun, behind)
    assert [list(one) for one in found.logprobs] == [[31]], "between them, some are missing"
    assert found.ids[found.logprobs_from :] == [31]


async def test_without_probabilities_there_are_none(bounded: Bounded) -> None:
    begun = Completion([OPEN, 10, NEXT, 30], "length", 0, None)
    found, _ = await completed(bounded, begun, Completion([31], "stop", 0, None))
    assert found.logprobs is None


async def test_reasoning_and_answer_by_two_requests() -> None:
    thinking: Any = greedy_params(BUDGET)
    parts = TwoParts((OPEN,), thinking, frozenset({END, NEXT}), (END, NEXT))
    found, asked = await completed(parts, wrote([10, END], "stop", 1), wrote([30], "stop", 2))
    written = [OPEN, 10, END, NEXT]
    assert asked == [([*PROMPT, OPEN], 3, "r"), ([*PROMPT, *written], 20, "r-answer")]
    assert found == Completion([*written, 30], "stop", 3, [{30: 30.0}], 4, 6, 3)


async def test_a_seed_is_that_of_the_first_request_too(bounded: Bounded) -> None:
    seeded = bounded.seeded(7)
    assert seeded.thinking.seed == 7
    assert bounded.thinking.seed is None
    assert seeded.reasoning == bounded.reasoning
