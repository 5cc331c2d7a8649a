"""Of all histories of decisions, only what was decided last counts: in any order, repeated, late, expired, edited.

The model is a few lines of plain Python that keeps every decision ever made and looks at all of them for each post.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from stream_guard.judging.human.rule import holds
from stream_guard.judging.human.table import DecisionTable, Row, Unread
from stream_guard.policies.policy import Policy, make_policy
from stream_guard.policies.section import section_sha256
from stream_guard.records.decision import Decision, encode_decision
from stream_guard.records.post import Post
from stream_guard.settings import Settings
from stream_guard.stream.decision_lane import DecisionReader
from stream_guard.testing import MemoryRecord
from tests.decisions import make_decision

HISTORIES = 10_000
READER = DecisionReader(Settings())
TEXT = "# Spam\n\n## S1: Advertising\n{first}\n\n## S2: Fraud\n{second}\n"


def version(first: str, second: str) -> Policy:
    return make_policy("spam", TEXT.format(first=first, second=second).encode())


VERSIONS = [version("a", "b"), version("edited", "b"), version("a", "edited")]
CONTENTS = ("p0", "p1")
TEXTS = ("0" * 64, "1" * 64)
TENANTS = (None, "t")


def random_decision(chance: random.Random, number: int) -> Decision:
    policy = chance.choice(VERSIONS)
    section = chance.choice([None, "S1", "S2"])
    digest = chance.choice([None, section_sha256(policy, section)])
    kind = chance.choice(["review", "review", "appeal", "retraction", "expiry"])
    changes: dict[str, Any] = {}
    if kind in ("review", "appeal"):
        changes["valid_until"] = chance.choice([None, chance.randint(0, 30)])
    return make_decision(
        kind,
        id=f"{chance.choice('ab')}{number}",
        decided_at=chance.randint(0, 20),
        content={
            "id": chance.choice(CONTENTS),
            "sha256": chance.choice([None, *TEXTS]),
            "tenant": chance.choice(TENANTS),
        },
        policy={"sha256": policy.sha256, "section": section, "section_sha256": digest},
        **changes,
    )


def expected(made: list[Decision], post: Post, policy: Policy, now_ms: int) -> Decision | None:
    """What a reader of the rule would say, from all decisions that were made."""
    about = [
        one
        for one in made
        if one.about is not None
        and (one.about.content.id, one.about.content.tenant) == (post.id, post.tenant)
    ]
    if not about:
        return None
    last = max(about, key=lambda one: (one.decided_at, one.id))
    assert last.about is not None
    expired = last.valid_until is not None and now_ms >= last.valid_until
    edited = last.about.content.sha256 not in (None, post.sha256)
    if last.outcome is None or expired or edited:
        return None
    if last.about.policy.sha256 == policy.sha256:
        return last
    digest = last.about.policy.section_sha256
    if digest is None or section_sha256(policy, last.about.policy.section) != digest:
        return None
    return last


def unread(decision: Decision) -> Unread:
    key, value, headers = encode_decision(decision)
    seen = READER.unread(MemoryRecord(READER.topic, 0, 0, 1 << 41, key, value, headers))
    assert seen is not None
    return seen


@pytest.mark.parametrize("part", range(4))
def test_every_history_ends_with_the_last_decision(part: int) -> None:
    for seed in range(part, HISTORIES, 4):
        chance = random.Random(seed)  # noqa: S311 - a history, not a secret
        made = [random_decision(chance, number) for number in range(chance.randint(1, 6))]
        # Out of order, and some repeated: before, after or between the others.
        arriving = made + [chance.choice(made) for _ in range(chance.randint(0, 3))]
        chance.shuffle(arriving)
        one_by_one, at_once = DecisionTable(), DecisionTable(read=READER.read_later)
        for decision in arriving:
            one_by_one.apply(decision, encode_decision(decision)[1])
        # A start reads some of them, in parts, and the rest come later.
        cuts = sorted(chance.randint(0, len(arriving)) for _ in range(2))
        for part_of in (arriving[: cuts[0]], arriving[cuts[0] : cuts[1]]):
            at_once.stage([unread(each) for each in part_of])
        at_once.settle()
        written = [(each, *encode_decision(each)[:2]) for each in arriving[cuts[1] :]]
        at_once.load(Row(each, value, key) for each, key, value in written)
        for _ in range(6):
            post = Post(
                chance.choice(CONTENTS), "t", chance.choice(TEXTS), 1, tenant=chance.choice(TENANTS)
            )
            policy, now_ms = chance.choice(VERSIONS), chance.randint(0, 30)
            wanted = expected(made, post, policy, now_ms)
            assert one_by_one.find(post, policy, now_ms) == wanted, seed
            assert at_once.find(post, policy, now_ms) == wanted, seed
        one_by_one.close()
        at_once.close()


def test_a_decision_that_stopped_holding_brings_no_earlier_one_back() -> None:
    table = DecisionTable()
    for decision in (
        make_decision(id="a", decided_at=1),
        make_decision(id="b", decided_at=2, valid_until=5),
    ):
        table.apply(decision, encode_decision(decision)[1])
    policy = replace(VERSIONS[0], sha256="0" * 64)
    post = Post("p0", "t", "0" * 64, 1)
    assert table.find(post, policy, 4) is not None
    assert table.find(post, policy, 5) is None


def test_an_edit_of_another_section_keeps_a_decision_and_one_of_its_own_ends_it() -> None:
    before, own, other = VERSIONS
    digest = section_sha256(before, "S1")
    decision = make_decision(
        policy={"sha256": before.sha256, "section": "S1", "section_sha256": digest}
    )
    post = Post("p0", "t", "0" * 64, 1)
    assert holds(decision, post, before, 0)
    assert holds(decision, post, other, 0)
    assert not holds(decision, post, own, 0)


def test_a_section_is_its_category_with_its_stance_and_what_lies_below_it() -> None:
    policy = make_policy("p", b"# P\n\n## S1: Ads\nx\n### More\ny\n\n## S2: Fraud\nz\n")
    below = make_policy("p", b"# P\n\n## S1: Ads\nx\n### More\nchanged\n\n## S2: Fraud\nz\n")
    assert section_sha256(policy, "S1") != section_sha256(below, "S1")
    assert section_sha256(policy, "S2") == section_sha256(below, "S2")
    assert section_sha256(policy, None) != section_sha256(below, None)
    assert section_sha256(policy, "S9") is None
    safe = make_policy("p", policy.text.encode(), metadata=b"categories: {S2: {violates: false}}\n")
    assert section_sha256(safe, "S2") != section_sha256(policy, "S2")
