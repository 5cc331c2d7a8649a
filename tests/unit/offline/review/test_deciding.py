"""A decision says what the item says; the figures and the golden set come from the decisions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_guard.core.errors import NotLeasedError, SettingsError
from stream_guard.offline.decide import section_of
from stream_guard.offline.evaluation.golden import Columns, read_golden
from stream_guard.offline.review.deciding import Choice, decide, make_decision
from stream_guard.offline.review.projection import Projection
from stream_guard.offline.review.queue import Lease, Person, ReviewQueue
from stream_guard.offline.review.report import golden_rows, report
from stream_guard.offline.review.store import Store
from stream_guard.policies.policy import make_policy
from stream_guard.policies.section import section_sha256
from stream_guard.policies.store import load_policies
from stream_guard.records.decision import encode_decision, parse_decision
from stream_guard.records.review_item import build_review_item
from stream_guard.settings import PoliciesSettings, Settings
from tests.unit.offline.review.topics import KAFKA, NOW_MS, Topics, apply, decision_about
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_guard.records.decision import Decision

PERSON = Person("r-1")
LEASE = Lease("i", "ab" * 16, NOW_MS + 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "review.sqlite"))
    yield made
    made.close()


def item(decision: str = "violates", action: str = "remove") -> dict[str, Any]:
    category, severity = ("S1", "high") if decision == "violates" else (None, None)
    verdict = make_verdict(decision=decision, category=category, severity=severity)  # type: ignore[arg-type]
    return build_review_item(verdict | {"action": action}, ["action"], sample_share=None, reviews=1)


def outcome(choice: Choice, about: dict[str, Any]) -> dict[str, Any]:
    made = make_decision(about, choice, PERSON, LEASE, NOW_MS)
    assert made.outcome is not None
    return made.outcome.model_dump()


def test_a_decision_rests_on_the_section_of_the_verdicts_category(tmp_path: Path) -> None:
    (folder := tmp_path / "spam").mkdir()
    (folder / "policy.md").write_text(
        "# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n\n- S1.a bulk\n"
    )
    policy = load_policies(tmp_path).policies["spam"]
    settings = Settings(policies=PoliciesSettings(path=tmp_path))
    about = item()
    about["policy"]["sha256"] = policy.sha256

    def section() -> tuple[str | None, str | None]:
        find = partial(section_of, settings)
        made = make_decision(about, Choice("safe"), PERSON, LEASE, NOW_MS, find)
        assert made.about is not None
        return made.about.policy.section, made.about.policy.section_sha256

    assert section() == ("S1", section_sha256(policy, "S1"))
    about["verdict"]["category"] = "S9"
    assert section() == (None, None)
    about["verdict"]["category"] = None
    assert section() == (None, section_sha256(policy, None))
    about["policy"]["sha256"] = "0" * 64  # the folder has another version by now
    assert section() == (None, None)


def test_a_decision_is_one_that_the_service_reads_and_names_the_verdict() -> None:
    about = item()
    made = make_decision(about, Choice("safe", reason="satire"), PERSON, LEASE, NOW_MS)
    assert parse_decision(*encode_decision(made)) == made
    assert made.about is not None
    assert made.about.verdict_id == about["verdict_id"]
    assert (made.decided_by.id, made.decided_by.role) == ("r-1", "reviewer")
    again = make_decision(about, Choice("safe"), PERSON, LEASE, NOW_MS + 5)
    assert again.id == made.id  # the same lease


def test_what_is_left_out_comes_from_the_verdict_where_it_fits() -> None:
    assert outcome(Choice("safe"), item())["action"] == "none"
    same = outcome(Choice("violates"), item())
    assert (same["action"], same["category"], same["severity"]) == ("remove", "S1", "high")
    other = outcome(Choice("violates", category="S2", action="label"), item())
    assert (other["action"], other["category"], other["severity"]) == ("label", "S2", None)


@pytest.mark.parametrize(
    ("choice", "about"),
    [
        (Choice("violates"), item("safe", "none")),
        (Choice("violates"), item("violates", "review")),
        (Choice("violates", category="S2"), item()),
        (Choice(None), item()),
        (Choice("safe", kind="retraction"), item()),
        (Choice("safe", reason="x" * 2_001), item()),
        (Choice(None, kind="retraction", valid_until=1), item()),
    ],
)
def test_a_choice_that_is_incomplete_or_invalid_is_refused(
    choice: Choice, about: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError):
        make_decision(about, choice, PERSON, LEASE, NOW_MS)


async def test_nothing_is_written_without_a_lease(store: Store) -> None:
    topics = Topics()
    name = topics.item(0, decision="violates")
    projection, queue = Projection(store, KAFKA), ReviewQueue(store, lease_ms=1_000)
    apply(projection, topics.records)
    written: list[Decision] = []

    async def write(decision: Decision) -> None:
        written.append(decision)

    async def attempt(now_ms: int) -> None:
        choice = Choice("safe")
        await decide(
            queue,
            projection,
            write,
            item_id=name,
            choice=choice,
            person=PERSON,
            now_ms=now_ms,
        )

    with pytest.raises(NotLeasedError):
        await attempt(NOW_MS)
    queue.claim(PERSON, NOW_MS)
    with pytest.raises(NotLeasedError):
        await attempt(NOW_MS + 1_000)
    assert written == []
    queue.claim(PERSON, NOW_MS + 2_000)
    await attempt(NOW_MS + 2_001)
    assert len(written) == 1
    assert queue.counts() == {"open": 0, "decided": 1, "withdrawn": 0}
    # Reading the record later changes nothing but its place.
    before = projection.dump().count(b"\n")
    apply(projection, [topics.decide(written[0])])
    assert queue.counts()["decided"] == 1
    assert projection.dump().count(b"\n") == before + 1  # the position


async def test_decisions_become_a_golden_set_that_eval_reads(store: Store, tmp_path: Path) -> None:
    topics = Topics()
    for offset in range(4):
        topics.item(offset, decision="violates", category="S1")
    violates = {
        "decision": "violates",
        "category": "S1",
        "severity": None,
        "labels": (),
        "rule_ids": (),
        "action": "remove",
    }
    topics.decide(decision_about(0))
    topics.decide(decision_about(1, outcome=violates))
    topics.decide(decision_about(2))
    topics.decide(decision_about(2, id="later", outcome=violates, decided_at=NOW_MS))
    topics.delete("p1", 100)
    apply(Projection(store, KAFKA), topics.records)
    queue = ReviewQueue(store)

    async def text_of(_: dict[str, Any]) -> None:
        return None

    rows, missing = await golden_rows(queue, "spam", text_of)
    assert missing == 1  # the deleted post
    assert await golden_rows(queue, "other", text_of) == ([], 0)
    file = tmp_path / "golden.jsonl"
    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    policy = make_policy("spam", b"# Spam\nAnswer `1` or `0`.\n\n## S1: Advertising\nViolates.\n")
    read = read_golden(file, policy, Columns(), labels={}, text_bytes_max=1_000)
    assert [(row.post.text, row.violates) for row in read] == [("t", False), ("t", True)]

    figures = report(queue)
    whole = figures["quality"][0]
    assert (whole["policy"], whole["drawn"], whole["decided"]) == ("spam", 4, 3)
    assert whole["precision"]["value"] == pytest.approx(2 / 3)
    assert figures["items"] == {"open": 1, "decided": 3, "withdrawn": 0}
