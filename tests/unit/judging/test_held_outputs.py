"""vLLM's scheduler with held outputs: what is sent when, and that nothing is lost or sent twice."""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from stream_guard.judging.engine import arguments
from stream_guard.judging.engine.held_outputs import LABEL_AFTER, HeldOutputs


class Kind(enum.Enum):
    """As vLLM's ``RequestOutputKind``."""

    DELTA = 1
    FINAL_ONLY = 2


class Logprobs(NamedTuple):
    """As vLLM's ``LogprobsLists``."""

    logprob_token_ids: Any
    logprobs: Any
    sampled_token_ranks: Any
    cu_num_generated_tokens: list[int] | None = None

    def slice_request(self, place: int, count: int) -> Logprobs:
        if self.cu_num_generated_tokens is not None:
            place = self.cu_num_generated_tokens[place]
        rows = slice(place, place + count)
        return Logprobs(self[0][rows], self[1][rows], self[2][rows])


class Status(enum.Enum):
    """As vLLM's ``RequestStatus``."""

    RUNNING = 1
    FINISHED_ERROR = 2


@dataclass
class Request:
    """A request that ends after so many tokens."""

    request_id: str
    tokens_max: int
    kind: Kind = Kind.FINAL_ONLY
    num_logprobs: int | None = 0
    stop: list[str] = field(default_factory=list)
    after: int | None = None
    use_structured_output: bool = False
    status: Status = Status.RUNNING
    resumable: bool = True
    written: list[int] = field(default_factory=list)

    @property
    def sampling_params(self) -> Any:
        return SimpleNamespace(
            output_kind=self.kind,
            num_logprobs=self.num_logprobs,
            stop=self.stop,
            extra_args=None if self.after is None else {LABEL_AFTER: self.after},
        )


class Grammar:
    """Refuses the token 99 until it has three others. Like xgrammar's, it keeps the tokens before a refused one."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def accept_tokens(self, request: Request, ids: list[int]) -> bool:
        if not request.use_structured_output:
            return True
        for token in ids:
            if token == 99 and len(self.accepted) < 3:
                return False
            self.accepted.append(token)
        return True


class Base:
    """vLLM's scheduler, as far as it sends outputs."""

    def __init__(self, *, log_stats: bool = False) -> None:
        self.requests: dict[str, Request] = {}
        self.structured_output_manager = Grammar()
        self.log_stats = log_stats
        self.seen: list[Any] = []

    def update_from_output(self, _: Any, output: Any) -> Any:
        self.seen.append(output.logprobs)
        sent = []
        for request in list(self.requests.values()):
            place = output.req_id_to_index[request.request_id]
            ids = output.sampled_token_ids[place]
            count = len(ids)
            ids, stopped = self._update_request_with_output(request, ids)
            if ids and not self.structured_output_manager.accept_tokens(request, ids):
                request.status, request.resumable, stopped = Status.FINISHED_ERROR, False, True
            if not ids and not stopped:
                continue
            logprobs = None
            if request.num_logprobs is not None and output.logprobs:
                logprobs = output.logprobs.slice_request(place, count)
            if stopped:
                del self.requests[request.request_id]
            failed = request.status is Status.FINISHED_ERROR
            reason = ("error" if failed else "stop") if stopped else None
            sent.append(
                SimpleNamespace(
                    request_id=request.request_id,
                    new_token_ids=ids,
                    new_logprobs=logprobs,
                    finish_reason=reason,
                )
            )
        return {0: SimpleNamespace(outputs=sent)}

    def _update_request_with_output(
        self,
        request: Request,
        new_token_ids: list[int],
        is_stale: bool = False,  # noqa: FBT001, FBT002 - as vLLM has it
    ) -> tuple[list[int], bool]:
        assert not is_stale
        room = request.tokens_max - len(request.written)
        del new_token_ids[room:]
        request.written += new_token_ids
        return new_token_ids, len(request.written) == request.tokens_max


class Held(HeldOutputs, Base):
    """What is tested."""


def step(scheduler: Base, **tokens: list[int]) -> dict[str, Any]:
    """Let the model write these tokens; each has itself as its log probability. Return what is sent."""
    every = [token for ids in tokens.values() for token in ids]
    several = any(len(ids) != 1 for ids in tokens.values())
    begins = [sum(map(len, list(tokens.values())[:place])) for place in range(len(tokens) + 1)]
    logprobs = Logprobs(
        np.array([[token, 7] for token in every], np.int32),
        np.array([[token, -7] for token in every], np.float32),
        np.ones(len(every), np.int64),
        begins if several else None,
    )
    output = SimpleNamespace(
        sampled_token_ids=[list(ids) for ids in tokens.values()],
        req_id_to_index={name: place for place, name in enumerate(tokens)},
        logprobs=logprobs,
    )
    sent = scheduler.update_from_output(None, output)[0].outputs
    return {one.request_id: one for one in sent}


def with_requests(*requests: Request, log_stats: bool = False) -> Held:
    scheduler = Held(log_stats=log_stats)
    scheduler.requests = {request.request_id: request for request in requests}
    return scheduler


def test_a_completion_is_sent_once_when_it_ends_with_each_tokens_probability() -> None:
    scheduler = with_requests(Request("a", 3), Request("b", 2))
    assert step(scheduler, b=[20], a=[10]) == {}
    (b,) = step(scheduler, b=[21], a=[11]).values()
    (a,) = step(scheduler, a=[12]).values()
    for output, ids in ((a, [10, 11, 12]), (b, [20, 21])):
        assert (output.new_token_ids, output.finish_reason) == (ids, "stop")
        assert output.new_logprobs.logprob_token_ids.tolist() == [[token] for token in ids]
        assert output.new_logprobs.logprobs.tolist() == [[token] for token in ids]
        assert len(output.new_logprobs.sampled_token_ranks) == len(ids)
    assert scheduler.seen == [None] * 3, "vLLM cuts no arrays"


def test_several_tokens_of_one_step_keep_their_own_probabilities() -> None:
    scheduler = with_requests(Request("a", 3), Request("b", 4))
    assert step(scheduler, a=[10, 11], b=[20]) == {}
    (a,) = step(scheduler, b=[21, 22], a=[12, 13, 14]).values()
    assert a.new_token_ids == [10, 11, 12], "what is written behind the end is dropped"
    assert a.new_logprobs.logprobs.tolist() == [[10], [11], [12]]
    (b,) = step(scheduler, b=[23]).values()
    assert b.new_logprobs.logprobs.tolist() == [[20], [21], [22], [23]]


def test_other_tokens_probabilities_are_kept_as_they_are() -> None:
    scheduler = with_requests(Request("a", 2, num_logprobs=1), Request("b", 1, num_logprobs=None))
    (b,) = step(scheduler, a=[10], b=[20]).values()
    assert b.new_logprobs is None
    (a,) = step(scheduler, a=[11]).values()
    assert a.new_logprobs.logprob_token_ids.tolist() == [[10, 7], [11, 7]]
    assert a.new_logprobs.logprobs.tolist() == [[10, -7], [11, -7]]


def test_with_statistics_the_first_token_is_sent_at_once() -> None:
    scheduler = with_requests(Request("a", 3), log_stats=True)
    (first,) = step(scheduler, a=[10]).values()
    assert (first.new_token_ids, first.finish_reason) == ([10], None)
    assert first.new_logprobs.logprobs.tolist() == [[10]]
    assert step(scheduler, a=[11]) == {}
    (last,) = step(scheduler, a=[12]).values()
    assert last.new_token_ids == [11, 12]
    assert last.new_logprobs.logprobs.tolist() == [[11], [12]]


@pytest.mark.parametrize("log_stats", [False, True])
@pytest.mark.parametrize(
    ("steps", "behind"),
    [
        ([[10], [5], [11], [5], [12], [13]], [12, 13]),
        ([[10, 5], [11, 5, 12], [13]], [12, 13]),
        ([[10], [11], [5], [12], [13], [5]], []),
        ([[10], [11], [12], [13], [14], [15]], [10, 11, 12, 13, 14, 15]),
    ],
)
def test_probabilities_are_sent_of_what_is_behind_the_last_place_of_a_token(
    steps: list[list[int]], behind: list[int], *, log_stats: bool
) -> None:
    scheduler = with_requests(Request("a", 6, after=5), log_stats=log_stats)
    sent = [output for ids in steps for output in step(scheduler, a=ids).values()]
    assert [token for one in sent for token in one.new_token_ids] == [
        token for ids in steps for token in ids
    ]
    assert [one.new_logprobs for one in sent[:-1]] == [None] * log_stats
    last = sent[-1].new_logprobs
    assert (last.logprobs.tolist() if behind else last) == ([[t] for t in behind] or None)
    if behind:
        assert last.logprob_token_ids.tolist() == [[token] for token in behind]


@pytest.mark.parametrize("request_", [Request("a", 3, Kind.DELTA), Request("a", 3, stop=["end"])])
def test_who_wants_parts_gets_parts(request_: Request) -> None:
    scheduler = with_requests(request_)
    for token in (10, 11, 12):
        (part,) = step(scheduler, a=[token]).values()
        assert part.new_token_ids == [token]
        assert part.new_logprobs.logprobs.tolist() == [[token]]


def test_the_grammar_accepts_each_token_once() -> None:
    scheduler = with_requests(Request("a", 3, use_structured_output=True))
    for token in (10, 11, 12):
        step(scheduler, a=[token])
    assert scheduler.structured_output_manager.accepted == [10, 11, 12]
    assert not scheduler.requests


@pytest.mark.parametrize(
    ("steps", "accepted"),
    [([[10], [99]], [10]), ([[10], [11, 99]], [10, 11]), ([[10, 99]], [10])],
    ids=["one token a step", "several tokens, as with speculation", "in the first step"],
)
@pytest.mark.parametrize("log_stats", [False, True])
def test_tokens_that_the_grammar_refuses_end_the_request_and_are_tried_once(
    steps: list[list[int]], accepted: list[int], *, log_stats: bool
) -> None:
    request = Request("a", 9, use_structured_output=True)
    scheduler = with_requests(request, log_stats=log_stats)
    for ids in steps[:-1]:
        step(scheduler, a=ids)
    (failed,) = step(scheduler, a=steps[-1]).values()
    assert failed.finish_reason == "error"
    assert not request.resumable
    assert not scheduler.requests
    assert scheduler.structured_output_manager.accepted == accepted
    assert failed.new_token_ids[-1] == 99


def test_it_can_be_turned_off() -> None:
    scheduler = with_requests(Request("a", 2))
    scheduler.holds = False
    (part,) = step(scheduler, a=[10]).values()
    assert part.new_logprobs.logprobs.tolist() == [[10, -7]]
    assert scheduler.seen != [None]


@pytest.mark.parametrize(
    ("own", "overlaps", "name"),
    [
        (None, False, "stream_guard.judging.engine.schedulers.HeldScheduler"),
        (None, True, "stream_guard.judging.engine.schedulers.HeldAsyncScheduler"),
        ("mine.Scheduler", True, "mine.Scheduler"),
    ],
)
def test_the_operators_own_scheduler_is_kept(own: str | None, name: str, *, overlaps: bool) -> None:
    scheduling = SimpleNamespace(scheduler_cls=own, async_scheduling=overlaps)
    arguments.hold_outputs(SimpleNamespace(scheduler_config=scheduling))
    assert scheduling.scheduler_cls == name


def test_vllms_warning_about_our_scheduler_is_not_logged_and_others_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments.quiet_vllm()
    logger = logging.getLogger("vllm.config.scheduler")
    with caplog.at_level(logging.WARNING, logger="vllm.config.scheduler"):
        for name in ("stream_guard.judging.engine.schedulers.HeldScheduler", "mine.Scheduler"):
            logger.warning("Using custom scheduler class %s.", name)
    assert [record.getMessage() for record in caplog.records] == [
        "Using custom scheduler class mine.Scheduler."
    ]
