"""Measures a model by the product's own path: real prompt builder, real vLLM, real parser, held-out policies and posts.

Two baselines that do not read the policy are measured as well: always safe, and naive Bayes over the words of a post,
trained on as many posts under training policies. A post that could not be judged never counts as right.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_guard.judging.assembly import make_judge
from stream_guard.judging.contract import JudgeRequest
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post
from tools.demo_model import policies as synthetic
from tools.demo_model.policies import Size, edit_policy, write
from tools.demo_model.posts import make_post
from tools.demo_model.words import pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.contract import Judgement
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import EngineSettings
    from tools.demo_model.posts import Kind, SyntheticPost
    from tools.demo_model.words import Split

EFFORTS: Final[tuple[Effort, ...]] = ("low", "medium", "high")
_BOOTSTRAPS: Final = 2_000
_BASELINE_POLICIES: Final = 1_500


@dataclass(slots=True, frozen=True)
class Case:
    """One post under one policy, with the right answer.

    Attributes:
        pair: number of the pair of cases with the same post and an edited policy; None outside such pairs.
    """

    policy: Policy
    post: Post
    kind: Kind
    violates: bool
    category: str | None
    rule_id: str | None
    pair: int | None = None


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
        return self.decision == ("violates" if self.case.violates else "safe")


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
                    "violates": wrong.case.violates,
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
    """Draw policies with posts, and for each ``flips`` violating posts again under an edited policy."""
    draw = random.Random(f"evaluate/{seed}/{split}")
    words, size = pool(split), Size()
    cases: list[Case] = []
    pair = 0
    for number in range(policies):
        made = synthetic.make_policy(draw, words, size)
        effort = EFFORTS[number % len(EFFORTS)]
        style = draw.randrange(1 << 30)
        policy = _product_policy(f"p{number}", made, effort, style, split)
        drawn = [make_post(draw, made, words) for _ in range(posts)]
        cases.extend(_case(f"{number}-{index}", policy, post) for index, post in enumerate(drawn))
        violating = [post for post in drawn if post.kind == "forbidden"][:flips]
        for index, post in enumerate(violating):
            assert post.rule is not None, "a rule settled it"
            edited = edit_policy(draw, made, post.rule, words)
            other = _product_policy(f"p{number}-{index}", edited, effort, style, split)
            cases.append(_case(f"{number}-{index}-a", policy, post, pair))
            cases.append(
                Case(
                    other,
                    _product_post(f"{number}-{index}-b", post.text),
                    "none",
                    violates=False,
                    category=edited.safe_code,
                    rule_id=None,
                    pair=pair,
                )
            )
            pair += 1
    return cases


def _product_policy(
    name: str, made: synthetic.SyntheticPolicy, effort: Effort, style: int, split: Split
) -> Policy:
    # Of two policies that share a style, only the words differ.
    pieces = write(made, random.Random(style), pool(split), Size())
    return make_policy(name, "".join(piece.text for piece in pieces).encode(), effort=effort)


def _case(name: str, policy: Policy, post: SyntheticPost, pair: int | None = None) -> Case:
    violates = post.kind == "forbidden"
    rule = post.rule.id if post.rule is not None and post.kind in ("forbidden", "allowed") else None
    safe = next((c.code for c in policy.taxonomy.categories if not c.violates), None)
    category = rule.partition(".")[0] if violates and rule else safe
    return Case(policy, _product_post(name, post.text), post.kind, violates, category, rule, pair)


def _product_post(name: str, text: str) -> Post:
    data = text.encode()
    return Post(name, text, hashlib.sha256(data).hexdigest(), len(data))


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
    violations = [o for o in plain if o.case.violates]
    found = Report(wrong=[o for o in plain if not o.right])
    add = found.figures.append
    add(share("accuracy", [o.right for o in plain]))
    add(_f1("F1 of violations", [(o.case.violates, o.decision == "violates") for o in plain], seed))
    add(share("category right, of violations", [o.category == o.case.category for o in violations]))
    add(
        share("rule id right, of violations", [o.rule_ids == (o.case.rule_id,) for o in violations])
    )
    add(
        share(
            "parse failures",
            [o.parse_status not in ("ok", "repaired", "category_dropped") for o in plain],
        )
    )
    pairs: dict[int, list[bool]] = {}
    for outcome in outcomes:
        if outcome.case.pair is not None:
            pairs.setdefault(outcome.case.pair, []).append(outcome.right)
    add(share("flips right (both of a pair)", [all(pair) for pair in pairs.values()]))
    for kind in ("forbidden", "allowed", "excepted", "none"):
        add(share(f"accuracy: {kind}", [o.right for o in plain if o.case.kind == kind]))
    for effort in EFFORTS:
        own = [o for o in plain if o.case.policy.effort == effort]
        add(share(f"accuracy: effort {effort}", [o.right for o in own]))
        tokens = [o.output_tokens for o in own]
        mean = sum(tokens) / max(1, len(tokens))
        add(Figure(f"output tokens: effort {effort}", mean, min(tokens), max(tokens), len(tokens)))
    add(share("baseline always safe: accuracy", [not o.case.violates for o in plain]))
    words = words_alone(plain, seed)
    add(
        share(
            "baseline words alone: accuracy",
            [w == o.case.violates for w, o in zip(words, plain, strict=True)],
        )
    )
    return found


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


def words_alone(outcomes: Sequence[Outcome], seed: int) -> list[bool]:
    """Judge by the words of posts alone, as learnt from posts under training policies."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    cases = make_cases(seed, policies=_BASELINE_POLICIES, posts=8, flips=0, split="train")
    model = make_pipeline(CountVectorizer(ngram_range=(1, 2)), MultinomialNB())
    model.fit([case.post.text for case in cases], [case.violates for case in cases])
    return [bool(said) for said in model.predict([outcome.case.post.text for outcome in outcomes])]
