"""The judge by the real vLLM engine, on a model of the gpt-oss architecture with random weights."""

# ruff: noqa: ANN401 - vLLM's objects

from __future__ import annotations

import asyncio
import math
import os
from typing import TYPE_CHECKING, Any, NoReturn

import psutil
import pytest
import pytest_asyncio
import structlog

from stream_guard.core.errors import EngineError, PolicyError, PromptError
from stream_guard.judging.contract import Judgement, JudgeRequest
from stream_guard.judging.engine.judge import BUILT_PER_TURN_MAX, CONFIDENCE_METHOD, VllmJudge
from stream_guard.judging.families.family import Sampling
from stream_guard.judging.families.registry import load_family
from stream_guard.judging.tiers.ladder import Rung
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.store import load_policies
from stream_guard.records.post import Post
from stream_guard.settings import EngineSettings
from tests.integration.harness import HANG_S, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path

    from stream_guard.judging.engine.plans import Attempt
    from stream_guard.judging.families.harmony.family import Harmony

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # vLLM and torch warn of themselves while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
REASONING = 24
RATIONALE = 8
GOOD = (
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
    '{"violation":1,"policy_category":"ARS1","rule_ids":["ARS1.a"],"rationale":"Encourages."}<|return|>'
)
MALFORMED = "<|channel|>final<|message|>I am not sure.<|return|>"
EMPTY = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|><|return|>"


def engine_settings(folder: Path, **changes: Any) -> EngineSettings:
    return EngineSettings(
        **{
            "model": str(folder),
            "max_model_len": 4_096,
            "max_num_seqs": 16,
            "max_num_batched_tokens": 2_048,
            "kv_cache_memory_bytes": 64 << 20,
            "rationale_tokens_max": RATIONALE,
            # tests/integration/test_constraint.py has the others
            "constraint": "always",
            "extra": {
                "logits_processors": ["tests.integration.scripted_tokens:ScriptedTokens"],
                "async_scheduling": False,
            },
            **changes,
        }
    )


def policy_set() -> PolicySet:
    return load_policies(ROOT / "policies", effort="low", reasoning_tokens_max=REASONING)


class Collector:
    """Takes what a judge delivers, and waits for it."""

    def __init__(self) -> None:
        self.got: list[Judgement] = []
        self.calls = 0
        self._more = asyncio.Event()

    def deliver(self, judgements: Sequence[Judgement]) -> None:
        self.calls += 1
        self.got.extend(judgements)
        self._more.set()

    async def wait(self, count: int) -> list[Judgement]:
        """Return what there is once there is so much."""
        async with asyncio.timeout(HANG_S):
            while len(self.got) < count:
                self._more.clear()
                await self._more.wait()
        return self.got


class Scripted(VllmJudge):
    """The judge, whose engine emits what a request's context says: a list of completions, one a try."""

    _family: Harmony

    def __init__(self, settings: EngineSettings, *more: Any) -> None:
        super().__init__(settings, *(more or (load_family,)))
        self.completions: dict[str, list[Any]] = {}
        self.running_max = 0
        generate = self._client.generate

        async def recorded(ids: list[int], params: Any, request_id: str, headers: Any) -> Any:
            self.running_max = max(self.running_max, len(self._running))
            completion = await generate(ids, params, request_id, headers)
            self.completions.setdefault(request_id.rsplit("-", 1)[0], []).append(completion)
            return completion

        self._client.generate = recorded  # type: ignore[method-assign]

    def ids_of(self, text: str) -> list[int]:
        """Encode a completion, its markers as markers."""
        ids: list[int] = []
        names = {name: token for token, name in self._family.tokenizer._names.items()}
        for at, piece in enumerate(text.split("<|")):
            name, _, rest = piece.partition("|>") if at else ("", "", piece)
            ids += [names[f"<|{name}|>"]] if at else []
            ids += self._family.encode(rest)
        return ids

    def _params(self, request: JudgeRequest, attempt: Attempt) -> Any:
        context = request.context
        if isinstance(context, int):
            params = attempt.params.clone()
            params.extra_args = {"prefer": context}
            return params
        if not context:
            return attempt.params
        script, tokens_max = context.pop(0), attempt.tokens_max
        if script is None:  # as good as endless, for what is cancelled
            tokens_max = 1_000
        if not script:
            script = self._family.encode(" word") * tokens_max
        return self._client.sampling_params(
            Sampling(None, tokens_max),
            probabilities=False,
            extra_args={"script": script},
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def judge(random_model: Path) -> AsyncIterator[Scripted]:
    judge = Scripted(engine_settings(random_model, in_flight_requests_max=8))
    await judge.start(policy_set())
    yield judge
    await judge.close()
    assert engine_processes() == []


def engine_processes() -> list[psutil.Process]:
    """Processes below this one that run an engine or its fork server."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if "forkserver" in " ".join(process.cmdline())]


_numbers = iter(range(1_000_000))


def requests(
    count: int,
    *,
    name: str = "age-restricted-goods-and-services",
    text: str = "hello",
    context: Any = None,
) -> list[JudgeRequest]:
    policy = policy_set().policies[name]
    return [
        JudgeRequest(
            f"r{next(_numbers)}",
            Post(id="1", text=f"{text} {n}", sha256="", text_bytes=9),
            policy,
            context=context,
        )
        for n in range(count)
    ]


async def judged(judge: VllmJudge, wanted: Iterable[JudgeRequest]) -> list[Judgement]:
    wanted, collector = list(wanted), Collector()
    judge.submit(wanted, collector.deliver)
    got = await collector.wait(len(wanted))
    assert sorted(j.request.id for j in got) == sorted(r.id for r in wanted)
    assert judge.in_flight() == 0
    return got


async def test_answers_have_the_shape_that_each_policy_allows(judge: Scripted) -> None:
    policies = policy_set().policies
    wanted = [request for name in policies for request in requests(12, name=name)]
    for judgement in await judged(judge, wanted):
        answer, provenance = judgement.answer, judgement.provenance
        assert answer is not None
        assert provenance is not None
        taxonomy = judgement.request.policy.taxonomy
        category = taxonomy.category(answer.category or "")
        assert category is not None
        assert category.violates == (answer.decision == "violates")
        assert set(answer.rule_ids) <= set(taxonomy.rule_ids)
        assert (answer.parse_status, provenance.finish_reason, provenance.attempts) == (
            "ok",
            "stop",
            1,
        )
        assert provenance.cached_tokens > 0
        assert provenance.engine_version == judge.describe()["version"]
        assert judgement.confidence is not None
        assert 0 <= judgement.confidence <= 1
        assert judgement.confidence_method == CONFIDENCE_METHOD
        assert judgement.started_ns <= judgement.finished_ns


async def test_confidence_is_the_probability_of_violation(judge: Scripted) -> None:
    for digit, decision in (("0", "safe"), ("1", "violates")):
        (token,) = judge._family.encode(digit)
        (judgement,) = await judged(judge, requests(1, context=token))
        assert judgement.answer is not None
        assert judgement.answer.decision == decision
        assert judgement.confidence is not None


async def test_confidence_is_what_both_digits_probabilities_say(
    judge: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both probabilities come from the judge's own run: bf16 differs from one batch, or processor, to the next."""
    zero, one = (judge._family.encode(digit)[0] for digit in "01")

    def with_alternatives(_: Any, attempt: Attempt) -> Any:
        params = attempt.params.clone()
        params.logprobs = 2  # after the grammar's mask these are the two digits
        return params

    monkeypatch.setattr(judge._asker, "_params", with_alternatives)
    for judgement in await judged(judge, requests(8)):
        request = judgement.request
        (completion,) = judge.completions[request.id]
        reading = judge._family.read(list(completion.ids), request.policy, complete=True)
        position = reading.label_position
        assert position is not None
        at = completion.logprobs[position]
        no, yes = (math.exp(at[digit].logprob) for digit in (zero, one))
        assert no + yes == pytest.approx(1, abs=1e-4)
        assert judgement.confidence == pytest.approx(yes, abs=1e-4)


async def test_reasoning_that_the_grammar_ends_is_cut_and_reasoning_that_ends_itself_is_not(
    judge: Scripted,
) -> None:
    (word,) = judge._family.encode(" the")
    for context, cut in ((word, True), ([judge.ids_of(GOOD)], False)):
        (request,) = requests(1, context=context)
        if cut:  # a tiny budget, which the model never leaves by itself
            request.reasoning_tokens_max = 3
        (judgement,) = await judged(judge, [request])
        assert judgement.answer is not None
        assert judgement.answer.parse_status == "ok"
        assert judgement.provenance is not None
        assert judgement.provenance.finish_reason == "stop"
        assert judgement.provenance.reasoning_cut is cut


async def test_reasoning_and_rationale_take_their_budgets_and_no_more(judge: Scripted) -> None:
    (word,) = judge._family.encode(" the")
    (request,) = requests(1, context=word)
    (judgement,) = await judged(judge, [request])
    control = judge._family.tokenizer.control
    ids = list(judge.completions[request.id][0].ids)
    assert ids.index(control.end) - ids.index(control.message) - 1 == REASONING
    final = ids[len(ids) - ids[::-1].index(control.message) :]
    assert final.count(word) == RATIONALE
    assert judgement.answer is not None
    assert judgement.answer.parse_status == "ok"


async def test_what_cannot_be_read_is_tried_again(judge: Scripted) -> None:
    (request,) = requests(1, context=[judge.ids_of(MALFORMED), judge.ids_of(GOOD)])
    (judgement,) = await judged(judge, [request])
    assert judgement.answer is not None
    assert judgement.answer.rule_ids == ("ARS1.a",)
    assert judgement.answer.parse_status == "ok"
    assert judgement.provenance is not None
    assert judgement.provenance.attempts == 2
    spent = sum(len(completion.ids) for completion in judge.completions[request.id])
    assert judgement.provenance.output_tokens == spent


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [(MALFORMED, "malformed", "stop"), (EMPTY, "empty", "stop"), ("", "truncated", "length")],
)
async def test_what_can_never_be_read_is_undetermined(
    judge: Scripted, script: str, status: str, reason: str
) -> None:
    tries = [judge.ids_of(script) for _ in range(2)]  # no script: words until the limit
    (judgement,) = await judged(judge, requests(1, context=tries))
    assert judgement.answer is not None
    assert (judgement.answer.decision, judgement.answer.parse_status) == ("undetermined", status)
    assert judgement.provenance is not None
    assert (judgement.provenance.attempts, judgement.provenance.finish_reason) == (2, reason)
    assert judgement.confidence is None


async def test_a_second_try_has_half_the_budget(judge: Scripted) -> None:
    (policy,) = {request.policy.sha256: request.policy for request in requests(1)}.values()
    first, second = judge._planner.plan(policy).attempts
    assert first.tokens_max - second.tokens_max == REASONING - REASONING // 2


async def test_a_post_longer_than_the_context_is_judged_in_windows(judge: Scripted) -> None:
    long, short = requests(1, text="word " * 9_000), requests(1)
    by_id = {judgement.request.id: judgement for judgement in await judged(judge, [*long, *short])}
    found = by_id[long[0].id]
    assert found.error is None
    assert found.answer is not None
    assert found.answer.parse_status == "ok"
    provenance, whole = found.provenance, by_id[short[0].id].provenance
    assert provenance is not None
    assert whole is not None
    assert (provenance.windows > 2, whole.windows) == (True, 1)
    assert provenance.prompt_sha256 == whole.prompt_sha256
    # The windows share the policy's part of the prompt.
    prefix = len(judge._planner.plan(long[0].policy).prefix.ids)
    assert provenance.cached_tokens >= provenance.windows * (prefix // 16 * 16)


async def test_a_post_without_an_answer_in_time_is_undetermined(
    judge: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = judge._settings.model_copy(update={"request_timeout_s": 0.05})
    monkeypatch.setattr(judge._asker, "_settings", hasty)
    (judgement,) = await judged(judge, requests(1, context=[None, None]))
    assert judgement.answer is not None
    assert (judgement.answer.decision, judgement.answer.parse_status) == ("undetermined", "timeout")


async def test_a_slow_post_holds_back_no_other_and_can_be_cancelled(judge: Scripted) -> None:
    slow, quick, collector = requests(1, context=[None, None]), requests(6), Collector()
    judge.submit([*slow, *quick], collector.deliver)
    got = await collector.wait(len(quick))
    assert {judgement.request.id for judgement in got} == {request.id for request in quick}
    judge.cancel(slow)
    assert judge.in_flight() == 0
    await judged(judge, requests(3))
    assert len(collector.got) == len(quick)


async def test_what_still_waits_can_be_cancelled(judge: Scripted) -> None:
    wanted, collector = requests(30), Collector()
    judge.submit(wanted, collector.deliver)
    judge.cancel(wanted[10:])
    got = await collector.wait(10)
    await judged(judge, requests(1))
    assert {judgement.request.id for judgement in got} == {request.id for request in wanted[:10]}


async def test_no_more_is_admitted_than_the_limit(judge: Scripted) -> None:
    judge.running_max = 0
    await judged(judge, requests(40))
    assert judge.running_max == 8


async def test_tokens_in_flight_have_a_limit_too(
    judge: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge.running_max = 0
    monkeypatch.setattr(judge, "_tokens_max", 1)
    await judged(judge, requests(5))
    assert judge.running_max == 1


def refuse_prompts(judge: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every post be settled at once, by an error."""

    def refuse(*_: object) -> NoReturn:
        message = "no prompt"
        raise PromptError(message)

    monkeypatch.setattr(judge._family, "prompt", refuse)


async def test_what_is_settled_together_is_delivered_together(
    judge: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_prompts(judge, monkeypatch)
    collector = Collector()
    judge.submit(requests(2 * BUILT_PER_TURN_MAX), collector.deliver)
    await collector.wait(2 * BUILT_PER_TURN_MAX)
    assert collector.calls == 2


async def test_what_is_cancelled_just_before_its_delivery_is_not_delivered(
    judge: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_prompts(judge, monkeypatch)
    (dropped,), (kept,) = requests(1), requests(1)
    settle = judge._settle

    def settle_and_cancel(job: Any, judgement: Judgement) -> None:
        settle(job, judgement)
        if judgement.request is dropped:
            judge.cancel([dropped])

    monkeypatch.setattr(judge, "_settle", settle_and_cancel)
    collector = Collector()
    judge.submit([dropped, kept], collector.deliver)
    assert [judgement.request for judgement in await collector.wait(1)] == [kept]
    assert judge.in_flight() == 0


async def test_a_rung_asks_with_its_own_effort_and_its_exact_budget(judge: Scripted) -> None:
    system = {}
    for effort, budget in (("medium", 40), ("high", 7), (None, None)):
        (request,) = requests(1, text="a rung", context=judge.ids_of(" word")[0])
        request.effort, request.reasoning_tokens_max = effort, budget  # type: ignore[assignment]
        (judgement,) = await judged(judge, [request])
        provenance = judgement.provenance
        assert provenance is not None
        assert provenance.effort == (effort or "low")
        (completion,) = judge.completions[request.id]
        ids = list(completion.ids)
        control = judge._family.tokenizer.control
        assert ids.index(control.end) - ids.index(control.message) - 1 == (budget or REASONING)
        system[provenance.effort] = provenance.prompt_sha256
    assert len(set(system.values())) == 3


async def test_the_grammars_of_higher_rungs_are_compiled_beforehand(
    judge: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    rungs = [("low", REASONING), ("medium", 33), ("high", 100_000)]
    monkeypatch.setattr(judge, "_rungs", lambda _: [Rung(*rung) for rung in rungs])  # type: ignore[arg-type]
    judge.completions.clear()
    policy = make_policy("rungs", b"Posts about dogs are not allowed.", reasoning_tokens_max=9)
    with structlog.testing.capture_logs() as logs:
        await judge.prepare(PolicySet({"rungs": policy}))
    # Two attempts of each rung that fits; the one that does not is named, and what asks for it is refused.
    assert sum(map(len, judge.completions.values())) == 4
    assert [(log["event"], log["effort"]) for log in logs] == [("rung_does_not_fit", "high")]
    (request,) = requests(1)
    request.effort, request.reasoning_tokens_max = "high", 100_000
    (judgement,) = await judged(judge, [request])
    assert isinstance(judgement.error, PromptError)


async def test_new_policies_are_prepared_while_it_runs(judge: Scripted) -> None:
    short = make_policy("short", b"Posts about cats are not allowed.", reasoning_tokens_max=8)
    await judge.prepare(PolicySet({"short": short}))
    (judgement,) = await judged(judge, [JudgeRequest("new", Post("1", "a cat", "", 5), short)])
    assert judgement.answer is not None
    assert judgement.answer.category is None
    with pytest.raises(PolicyError, match=r"engine\.max_model_len"):
        await judge.prepare(PolicySet({"long": make_policy("long", b"word " * 5_000)}))


def core_process() -> psutil.Process:
    """Return the engine's process: the fork server's child."""
    (core,) = [process for process in engine_processes() if process.ppid() != os.getpid()]
    return core


@pytest.mark.usefixtures("judge")
async def test_a_wrong_setting_is_named(random_model: Path) -> None:
    for changes, named in (
        ({"extra": {"no_such_argument": 1}}, "no_such_argument"),
        ({"dtype": "nonsense"}, r"engine\.dtype"),
        ({"model": "/no/such/model"}, r"engine\.model"),
    ):
        wrong = VllmJudge(engine_settings(random_model, **changes), load_family)
        with pytest.raises(EngineError, match=named):
            await wrong.start(policy_set())
        await wrong.close()
