"""The demo model by the real engine: policies written by hand, not by the generator that it learnt from."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio

from stream_guard.cli.demo import MODEL
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import Post, ThreadEntry
from stream_guard.settings import EngineSettings
from tools.demo_model.evaluate import Case, Outcome, judge_cases

if TYPE_CHECKING:
    from stream_guard.policies.policy import Policy
    from tools.demo_model.posts import Kind

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # vLLM and torch warn of themselves while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ALLOTMENT: Final = """\
# Allotment Newsletter (#AN)

## Purpose

Members write to each other about their gardens. Answer BLOCK for a post that breaks a rule and ALLOW for any other.

## Poison and pests (AN1)

- AN1.a Offering weedkiller, except for a school
- AN1.b Slugs

Output: BLOCK

## Money (AN2)

- AN2.a Collecting donations

Output: BLOCK

## Welcome here (AN0)

- AN0.a Tomatoes
- AN0.b Recipes with pumpkin

Output: ALLOW
"""
ALLOTMENT_POSTS: Final = (
    ("I have some weedkiller left, come and get it", "AN1.a"),
    ("the school asked me for weedkiller", ""),
    ("slugs everywhere after this rain", "AN1.b"),
    ("we are collecting donations for a new fence", "AN2.a"),
    ("my tomatoes are red at last", ""),
    ("Has anybody a ladder for Sunday?", ""),
    ("what do you do with all that pumpkin?", ""),
)
HARBOUR: Final = """\
# Harbour chat (#HB)

Sailors meet here. Label: REMOVE where a rule is broken, KEEP where none is.

### HB1: Not on board
* HB1.1 Any talk of sharks
* HB1.2 Renting or selling anchors
* HB1.3 Whistling

### HB2: Not ashore
* HB2.1 Casinos and taverns
"""
HARBOUR_POSTS: Final = (
    ("saw two sharks near the pier", "HB1.1"),
    ("Selling anchors, almost new.", "HB1.2"),
    ("no whistling please, it brings wind", "HB1.3"),
    ("the tavern opens at six", "HB2.1"),
    ("who won at the casino last night?", "HB2.1"),
    ("Does anyone know when the tide turns?", ""),
    ("I painted my boat green", ""),
    ("dolphins in the bay this morning!", ""),
)
SCHOOL: Final = """\
# Pupils' noticeboard (#PN)

## Definitions
A notice is a short text that anybody may read.
Classify each notice as `violates` or `safe`.

## Trade (PN1 - Trade)

PN1.a Selling homework
PN1.b Tickets of any kind, unless it is about the theatre

## Animals (PN2 - Animals)

PN2.a Ferrets or parrots in the building

## Fine (PN0 - Fine)

PN0.a Chess

What no rule names is fine.
"""
SCHOOL_POSTS: Final = (
    ("Who wants my homework? Two euros.", "PN1.a"),
    ("tickets for the match, ask me", "PN1.b"),
    ("tickets for the theatre, ask me", ""),
    ("My parrot is in room nine", "PN2.a"),
    ("ferrets!", "PN2.a"),
    ("chess in the library at four", ""),
    ("I lost a blue scarf", ""),
)
VILLAGE: Final = """\
# Village board (#VB)

## Task

Classify each notice as `REMOVE`, `KEEP` or `ESCALATE`.

## Trade (VB1)

- VB1.a Selling puppies
- VB1.b Firewood of any kind

Output: `REMOVE`

## Worries (VB2)

- VB2.a Asking for medicine
- VB2.b Missing hikers

Output: `ESCALATE`

## Welcome (VB0)

- VB0.a Choirs

Output: `KEEP`

Return only `REMOVE`, `KEEP` or `ESCALATE`:
- `REMOVE` (VB1)
- `KEEP` (VB0)
- `ESCALATE` (VB2)
"""
VILLAGE_POSTS: Final = (
    ("two puppies looking for a home, ten euros each", "VB1.a"),
    ("who has firewood for the winter", "VB1.b"),
    ("my mother needs medicine tonight", "VB2.a"),
    ("has anybody seen the hikers", "VB2.b"),
    ("the choir meets at seven", ""),
    ("I lost my keys at the station", ""),
)
ANSWERED: Final = (
    ("Please read the rules before you write here", "Selling puppies, call me", ""),
    ("thank you for telling us", "has anybody seen the hikers", ""),
    ("I sell firewood too", "the choir meets at seven", "VB1.b"),
)
"""Replies, the posts that they answer, and the rules that the replies break."""
HAND_WRITTEN: Final = (
    ("allotment", ALLOTMENT, ALLOTMENT_POSTS),
    ("harbour", HARBOUR, HARBOUR_POSTS),
    ("school", SCHOOL, SCHOOL_POSTS),
)
RIGHT_AT_LEAST: Final = 0.8


def case(policy: Policy, number: int, text: str, rule_id: str, parent: str | None = None) -> Case:
    """Return a post under a policy; ``rule_id`` is "" where it breaks no rule."""
    data = text.encode()
    context = () if parent is None else (ThreadEntry("parent", parent, "someone-else"),)
    name = f"{policy.id}-{number}"
    post = Post(name, text, hashlib.sha256(data).hexdigest(), len(data), "me", context=context)
    broken: Kind = "escalated" if rule_id.startswith("VB2") else "forbidden"
    return Case(
        policy,
        post,
        broken if rule_id else "none",
        category=rule_id.partition(".")[0] or None,
        rule_id=rule_id or None,
    )


async def judged(cases: list[Case]) -> list[Outcome]:
    settings = EngineSettings(
        model=str(MODEL), max_model_len=2_048, max_num_seqs=16, reasoning_tokens_max=96
    )
    return await judge_cases(settings, cases, lambda _, __: None)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def outcomes(engine_server: None) -> list[Outcome]:  # noqa: ARG001 - kept for the engine
    cases = []
    for name, text, posts in HAND_WRITTEN:
        policy = make_policy(name, text.encode(), effort="low")
        cases += [case(policy, number, *post) for number, post in enumerate(posts)]
    # The same posts under a policy whose only edit takes a rule's thing away, and names another.
    edited = HARBOUR.replace("sharks", "dolphins")
    policy = make_policy("harbour-edited", edited.encode(), effort="low")
    cases += [
        case(policy, 0, HARBOUR_POSTS[0][0], ""),
        case(policy, 7, HARBOUR_POSTS[7][0], "HB1.1"),
    ]
    for mode in ("structured", "native"):
        policy = make_policy(
            f"village-{mode}",
            VILLAGE.encode(),
            effort="low",
            metadata=f"answer: {mode}\n".encode(),
        )
        cases += [case(policy, number, *post) for number, post in enumerate(VILLAGE_POSTS)]
        policy = replace(policy, id=f"answered-{mode}")
        cases += [
            case(policy, number, text, rule_id, parent)
            for number, (text, parent, rule_id) in enumerate(ANSWERED)
        ]
    return await judged(cases)


def of(outcomes: list[Outcome], *policies: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.case.policy.id in policies]


def told(outcomes: list[Outcome]) -> str:
    return "\n".join(
        f"{o.case.post.text!r}: {o.decision} {o.rule_ids} ({o.rationale}), right: {o.case.rule_id or 'safe'}"
        for o in outcomes
    )


@pytest.mark.parametrize("policy", [name for name, _, _ in HAND_WRITTEN])
async def test_policies_that_were_written_by_hand_are_followed(
    outcomes: list[Outcome], policy: str
) -> None:
    own = of(outcomes, policy)
    right = sum(outcome.right for outcome in own)
    assert right >= RIGHT_AT_LEAST * len(own), told(own)


async def test_the_rule_that_is_named_is_the_one_that_is_broken(outcomes: list[Outcome]) -> None:
    own = [o for o in of(outcomes, "allotment", "harbour", "school") if o.case.violates]
    named = [outcome for outcome in own if outcome.rule_ids == (outcome.case.rule_id,)]
    assert len(named) >= RIGHT_AT_LEAST * len(own), told(own)


async def test_an_edit_turns_the_verdict_round(outcomes: list[Outcome]) -> None:
    own = of(outcomes, "harbour-edited")
    assert [o.decision for o in own] == ["safe", "violates"], told(own)


@pytest.mark.parametrize("mode", ["structured", "native"])
async def test_a_category_sends_its_posts_to_people(outcomes: list[Outcome], mode: str) -> None:
    own = of(outcomes, f"village-{mode}")
    right = sum(outcome.right for outcome in own)
    assert right >= RIGHT_AT_LEAST * len(own), told(own)
    assert "undetermined" in {outcome.decision for outcome in own}, told(own)


@pytest.mark.parametrize("mode", ["structured", "native"])
async def test_a_reply_is_judged_by_its_own_words(outcomes: list[Outcome], mode: str) -> None:
    own = of(outcomes, f"answered-{mode}")
    assert [o.decision for o in own] == ["safe", "safe", "violates"], told(own)


async def test_every_answer_can_be_read(outcomes: list[Outcome]) -> None:
    assert {outcome.parse_status for outcome in outcomes} <= {"ok"}, told(outcomes)
