"""Measures a model by the product's own path: real prompt builder, real vLLM, real parser, held-out policies and posts.

Two baselines that do not read the policy are measured as well: always safe, and naive Bayes over the words of a post,
trained on as many posts under training policies. A post that could not be judged never counts as right.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, get_args

from stream_guard.judging.assembly import make_judge
from stream_guard.judging.contract import JudgeRequest
from stream_guard.policies.policy import PolicySet, make_policy
from tools.demo_model import policies as synthetic
from tools.demo_model.formats import Form
from tools.demo_model.policies import Size, edit_policy, write
from tools.demo_model.posts import make_post
from tools.demo_model.words import pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_guard.core.vocabulary import Decision, Effort
    from stream_guard.judging.contract import Judgement
    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import Post
    from stream_guard.settings import EngineSettings
    from tools.demo_model.posts import Kind, SyntheticPost
    from tools.demo_model.words import Split

EFFORTS: Final[tuple[Effort, ...]] = ("low", "medium", "high")
_BOOTSTRAPS: Final = 2_000
_BASELINE_POLICIES: Final = 1_500
_THREADS: Final = 0.33
_FORMS: Final[dict[Form, str]] = {
    "labels": "label words",
    "digits": "1 or 0",
    "code": "category code",
    "json": "JSON",
}
_NAMING: Final = ("code", "json")
"""The native forms that name a category."""


@dataclass(slots=True, frozen=True)
class Case:
    """One post under one policy, with the right answer.

    Attributes:
        pair: number of the pair of cases with the same post and an edited policy; None outside such pairs.
        form: the format that the policy asks for.
        three: whether the policy has a third label.
        native: whether the answer has the policy's own format.
    """

    policy: Policy
    post: Post
    kind: Kind
    category: str | None
    rule_id: str | None
    pair: int | None = None
    form: Form = "labels"
    three: bool = False
    native: bool = False

    @property
    def violates(self) -> bool:
        """Whether the post does."""
        return self.kind == "forbidden"

    @property
    def decision(self) -> Decision:
        """The right decision."""
        if self.kind == "escalated":
            return "undetermined"
        return "violates" if self.violates else "safe"


@dataclass(slots=True)
class Outcome:
    """The model's answer to a case."""

    case: Case
    decision: str
    category: str | None
    rule_ids: tuple[str, ...]
    parse_status: str
    rationale: str | None
    output_tokens: int

    @property
    def right(self) -> bool:
        """Whether the decision is."""
        return self.decision == self.case.decision


@dataclass(slots=True, frozen=True)
class Figure:
    """A share with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    count: int


@dataclass(slots=True)
class Report:
    """All figures of one run."""

    figures: list[Figure] = field(default_factory=list)
    wrong: list[Outcome] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures and the errors, for JSON."""
        return {
            "figures": [asdict(figure) for figure in self.figures],
            "wrong": [
                {
                    "post": wrong.case.post.text,
                    "policy": wrong.case.policy.text,
                    "effort": wrong.case.policy.effort,
                    "kind": wrong.case.kind,
                    "right": wrong.case.decision,
                    "answer": "native" if wrong.case.native else "structured",
                    "thread": [entry.text for entry in wrong.case.post.context],
                    "rule_id": wrong.case.rule_id,
                    "decision": wrong.decision,
                    "rule_ids": wrong.rule_ids,
                    "rationale": wrong.rationale,
                }
                for wrong in self.wrong
            ],
        }


def make_cases(
    seed: int, *, policies: int, posts: int, flips: int, split: Split = "held_out"
) -> list[Case]:
    """Draw policies with posts, and for each ``flips`` posts that break a rule again under an edited policy.

    Half of the policies are used natively, and a third of the posts have a thread around them.
    """
    draw = random.Random(f"evaluate/{seed}/{split}")
    words, size = pool(split), Size()
    cases: list[Case] = []
    pair = 0
    for number in range(policies):
        made = synthetic.make_policy(draw, words, size)
        style = draw.randrange(1 << 30)
        effort = EFFORTS[number % len(EFFORTS)]
        native = number // len(EFFORTS) % 2 == 1
        policy = _product_policy(f"p{number}", made, effort, style, split, native=native)
        drawn = [make_post(draw, made, words, threads=_THREADS) for _ in range(posts)]
        cases.extend(
            _case(f"{number}-{index}", policy, made, post, native=native)
            for index, post in enumerate(drawn)
        )
        broken = [post for post in drawn if post.kind in ("forbidden", "escalated")][:flips]
        for index, post in enumerate(broken):
            assert post.rule is not None, "a rule settled it"
            edited = edit_policy(draw, made, post.rule, words)
            other = _product_policy(
                f"p{number}-{index}", edited, effort, style, split, native=native
            )
            after = replace(post, kind="none", rule=None, topic="")
            for side, under, text, each in (
                ("a", policy, made, post),
                ("b", other, edited, after),
            ):
                name = f"{number}-{index}-{side}"
                cases.append(_case(name, under, text, each, pair, native=native))
            pair += 1
    return cases


def _product_policy(
    name: str,
    made: synthetic.SyntheticPolicy,
    effort: Effort,
    style: int,
    split: Split,
    *,
    native: bool,
) -> Policy:
    # Of two policies that share a style, only the words differ.
    pieces = write(made, random.Random(style), pool(split), Size(), native=native)
    text = "".join(piece.text for piece in pieces)
    metadata = f"answer: {'native' if native else 'structured'}\n"
    return make_policy(name, text.encode(), effort=effort, metadata=metadata.encode())


def _case(
    name: str,
    policy: Policy,
    made: synthetic.SyntheticPolicy,
    post: SyntheticPost,
    pair: int | None = None,
    *,
    native: bool,
) -> Case:
    broken = post.kind in ("forbidden", "escalated")
    rule = post.rule.id if post.rule is not None and post.kind != "excepted" else None
    category = rule.partition(".")[0] if broken and rule else made.safe_code
    return Case(
        policy,
        post.product_post(name),
        post.kind,
        category,
        rule,
        pair,
        made.form,
        three=len(made.labels) > 2,
        native=native,
    )


async def judge_cases(
    settings: EngineSettings, cases: Sequence[Case], progress: Callable[[int, int], None]
) -> list[Outcome]:
    """Judge all cases by the real engine.

    Raises:
        EngineError: it did not start, or died.
    """
    judge = make_judge(settings)
    by_id = {str(number): case for number, case in enumerate(cases)}
    said: dict[str, Outcome] = {}
    finished = asyncio.Event()

    def deliver(judgements: Sequence[Judgement]) -> None:
        for judgement in judgements:
            said[judgement.request.id] = _outcome(by_id[judgement.request.id], judgement)
        progress(len(said), len(cases))
        if len(said) == len(cases):
            finished.set()

    try:
        await judge.start(PolicySet({case.policy.id: case.policy for case in cases}))
        judge.submit(
            [JudgeRequest(n, case.post, case.policy) for n, case in by_id.items()], deliver
        )
        died = asyncio.create_task(judge.wait_failed())
        done = asyncio.create_task(finished.wait())
        await asyncio.wait((died, done), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise died.result()
        died.cancel()
    finally:
        await judge.close()
    return [said[n] for n in by_id]


def _outcome(case: Case, judgement: Judgement) -> Outcome:
    assert judgement.provenance is not None, "the model answered"
    answer, spent = judgement.answer, judgement.provenance.output_tokens
    if answer is None:
        return Outcome(case, "failed", None, (), "failed", None, spent)
    return Outcome(
        case,
        answer.decision,
        answer.category,
        answer.rule_ids,
        answer.parse_status,
        answer.rationale,
        spent,
    )


def report(outcomes: Sequence[Outcome], seed: int) -> Report:
    """Return the figures."""
    plain = [o for o in outcomes if o.case.pair is None]
    found = Report(wrong=[o for o in plain if not o.right])
    add = found.figures.append
    add(share("accuracy", [o.right for o in plain]))
    for mode in ("structured", "native"):
        own = [o for o in plain if o.case.native == (mode == "native")]
        add(share(f"accuracy: {mode}", [o.right for o in own]))
    add(_f1("F1 of violations", [(o.case.violates, o.decision == "violates") for o in plain], seed))
    found.figures.extend(_of_answers(plain))
    for mode in ("structured", "native"):
        pairs: dict[int, list[bool]] = {}
        for o in outcomes:
            if o.case.pair is not None and o.case.native == (mode == "native"):
                pairs.setdefault(o.case.pair, []).append(o.right)
        add(share(f"flips right (both of a pair): {mode}", [all(pair) for pair in pairs.values()]))
    found.figures.extend(_of_kinds(plain))
    for effort in EFFORTS:
        own = [o for o in plain if o.case.policy.effort == effort]
        add(share(f"accuracy: effort {effort}", [o.right for o in own]))
        tokens = [o.output_tokens for o in own]
        mean = sum(tokens) / max(1, len(tokens))
        add(Figure(f"output tokens: effort {effort}", mean, min(tokens), max(tokens), len(tokens)))
    add(share("baseline always safe: accuracy", [o.case.decision == "safe" for o in plain]))
    words = words_alone(plain, seed)
    right = [word == o.case.decision for word, o in zip(words, plain, strict=True)]
    add(share("baseline words alone: accuracy", right))
    return found


def _of_answers(plain: Sequence[Outcome]) -> Iterator[Figure]:
    """Yield what answers name beyond the decision, and how many could not be read."""
    named = [o for o in plain if o.case.violates and (not o.case.native or o.case.form in _NAMING)]
    yield share("category right, of violations", [o.category == o.case.category for o in named])
    structured = [o for o in plain if o.case.violates and not o.case.native]
    right = [o.rule_ids == (o.case.rule_id,) for o in structured]
    yield share("rule id right, of violations (structured)", right)
    failed = [o.parse_status not in ("ok", "repaired", "category_dropped") for o in plain]
    yield share("parse failures", failed)


def _of_kinds(plain: Sequence[Outcome]) -> Iterator[Figure]:
    """Yield the accuracy of each kind of post, thread and native answer."""
    yield share("escalations right", [o.right for o in plain if o.case.kind == "escalated"])
    around = [o for o in plain if o.case.post.context]
    yield share("posts in a thread right", [o.right for o in around])
    innocent = [o.right for o in around if o.case.decision == "safe"]
    yield share("posts in a thread right: safe ones", innocent)
    three = [o for o in plain if o.case.three]
    yield share("policies with a third label", [o.right for o in three])
    for form in get_args(Form):
        own = [o.right for o in plain if o.case.native and o.case.form == form]
        yield share(f"accuracy: native, {_FORMS[form]}", own)
    for kind in ("forbidden", "allowed", "excepted", "none"):
        yield share(f"accuracy: {kind}", [o.right for o in plain if o.case.kind == kind])


def share(name: str, right: Sequence[bool]) -> Figure:
    """Return a share with Wilson's interval."""
    from scipy.stats import binomtest

    if not right:
        return Figure(name, 0.0, 0.0, 1.0, 0)
    interval = binomtest(sum(right), len(right)).proportion_ci(method="wilson")
    return Figure(
        name, sum(right) / len(right), float(interval.low), float(interval.high), len(right)
    )


def _f1(name: str, pairs: Sequence[tuple[bool, bool]], seed: int) -> Figure:
    """Return F1 with a bootstrap's interval."""
    import numpy as np
    from sklearn.metrics import f1_score

    truth, said = (np.array(column) for column in zip(*pairs, strict=True))
    random_state = np.random.default_rng(seed)
    again = []
    for _ in range(_BOOTSTRAPS):
        drawn = random_state.integers(0, len(truth), len(truth))
        t, s = truth[drawn], said[drawn]
        again.append(2 * (t & s).sum() / max(1, t.sum() + s.sum()))
    low, high = np.quantile(again, (0.025, 0.975))
    return Figure(name, float(f1_score(truth, said)), float(low), float(high), len(pairs))


def words_alone(outcomes: Sequence[Outcome], seed: int) -> list[str]:
    """Judge by the words of posts alone, as learnt from posts under training policies."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    cases = make_cases(seed, policies=_BASELINE_POLICIES, posts=8, flips=0, split="train")
    model = make_pipeline(CountVectorizer(ngram_range=(1, 2)), MultinomialNB())
    model.fit([case.post.text for case in cases], [case.decision for case in cases])
    return [str(said) for said in model.predict([outcome.case.post.text for outcome in outcomes])]
