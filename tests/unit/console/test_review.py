"""The page Review: who may, what each key decides and writes, limits of work, taking back, and what is away."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from typing import TYPE_CHECKING

import pytest
from lxml.html import tostring

from stream_guard.console.security.roles import Role
from stream_guard.console.sources.state import Health
from tests.review_desk import item_of, reviewing
from tests.unit.offline.review.topics import decision_about

if TYPE_CHECKING:
    from pathlib import Path

    from tests.review_desk import ReviewDesk

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; javascript:alert(1) "
    "\u202egnp.exe\u2066 \x1b[31m \u200b"
)
CHANGES = ("next", "take", "decide", "skip", "escalate", "undo")


async def test_an_author_and_a_read_only_person_see_and_change_nothing(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        [name] = desk.add(0)
        for role in (Role.AUTHOR, Role.READ_ONLY):
            async with desk.console.visitor(role) as visitor:
                for view in ("", "/queue", "/quality"):
                    assert (await visitor.get(f"/review{view}")).status == 403
                for step in CHANGES:
                    fields = {"item": name, "decision": "safe"}
                    assert (await visitor.post(f"/review/{step}", fields)).status == 403
        assert desk.kafka.written == []
        assert desk.kafka.entries == []
        assert desk.queue.trail() == []


@pytest.mark.parametrize("step", CHANGES)
async def test_a_form_without_the_token_of_the_session_changes_nothing(
    step: str, tmp_path: Path
) -> None:
    async with reviewing(tmp_path) as desk:
        desk.add(0)
        async with desk.reviewer(Role.LEAD) as visitor:
            before = len(desk.queue.trail())
            fields = {"item": item_of(await visitor.get("/review")), "decision": "safe"}
            assert (await visitor.post(f"/review/{step}", fields, csrf="x")).status == 403
            assert desk.kafka.written == []
            assert len(desk.queue.trail()) == before + 1  # the page that was shown


async def test_each_key_has_a_button_and_is_named_for_screen_readers(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        desk.add(0, decision="violates", category="S1")
        async with desk.reviewer() as visitor:
            await _decide(visitor, decision="safe")
            desk.add(1, decision="violates", category="S1")
            await visitor.post("/review/next", {})
            tree = (await visitor.get("/review")).tree
        keys = {each.get("data-key"): each for each in tree.xpath("//*[@data-key]")}
        assert set(keys) == set("vseunr12aw")
        for key, element in keys.items():
            assert element.get("aria-keyshortcuts") == key
            assert element.tag in ("button", "input", "textarea")
        shown = {each.text for each in tree.xpath("//dl[@class='keys']//kbd")}
        assert shown >= set("vseunraw19")


async def _decide(visitor, **fields: str):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - a Visitor
    page = await visitor.get("/review")
    return await visitor.post("/review/decide", {"item": item_of(page), **fields})


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"decision": "safe"}, ("safe", None, "none")),
        ({"decision": "violates", "category": "S1"}, ("violates", "S1", "remove")),
        ({"decision": "violates", "category": "S2"}, ("violates", "S2", "remove")),
        (
            {"decision": "violates", "category": "S2", "action": "ban"},
            ("violates", "S2", "ban"),
        ),
        ({"decision": "violates"}, ("violates", "S1", "remove")),
    ],
)
async def test_a_decision_is_written_after_its_audit_record(
    fields: dict[str, str], outcome: tuple[str, str | None, str], tmp_path: Path
) -> None:
    async with reviewing(tmp_path) as desk:
        (tmp_path / "policies/spam/policy.yaml").write_text("action: remove\n")
        [name] = desk.add(0, decision="violates", category="S1")
        async with desk.reviewer() as visitor:
            answer = await _decide(visitor, **fields, reason="a quotation")
            assert answer.status == 303, answer.words
        [decision] = desk.kafka.written
        made = decision.outcome
        assert made is not None
        assert (made.decision, made.category, made.action) == outcome
        assert (decision.reason, decision.decided_by.id) == ("a quotation", "reviewer-1")
        assert decision.about is not None
        entries = [(each["what"], each["item_id"], each["decided"]) for each in desk.kafka.entries]
        assert ("decide", name, 0) in entries
        assert entries[0][:2] == ("lease", name)
        assert desk.queue.listed(state="decided", limit=9)[0]["id"] == name


async def test_the_action_is_the_categorys_own_and_a_missing_one_is_asked_for(
    tmp_path: Path,
) -> None:
    async with reviewing(tmp_path) as desk:
        desk.add(0, decision="safe")
        async with desk.reviewer() as visitor:
            answer = await _decide(visitor, decision="violates", reason="kept")
            assert answer.status == 422
            assert "an action is missing" in answer.words
            assert answer.tree.xpath("//textarea")[0].text.strip() == "kept"
            answer = await _decide(visitor, decision="violates", category="S9")
            assert answer.status == 422
            assert "no such category" in answer.words
            assert desk.kafka.written == []
            assert (await _decide(visitor, decision="violates", category="S1")).status == 303
        [decision] = desk.kafka.written
        assert decision.outcome is not None
        assert decision.outcome.action == "limit"


async def test_two_tabs_of_one_reviewer_have_one_item(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        desk.add(0, 4)
        async with desk.console.visitor(Role.REVIEWER) as one, desk.reviewer() as other:
            item = item_of(await other.get("/review"))
            await other.post("/review/skip", {"item": item})
            for _ in range(5):
                await asyncio.gather(*[tab.post("/review/next", {}) for tab in (one, other) * 2])
                page = await one.get("/review")
                assert item_of(page) == item_of(await other.get("/review")) != ""
                assert leased(desk) == 1
                await one.post("/review/skip", {"item": item_of(page)})


def leased(desk: ReviewDesk) -> int:
    """Return how many items are leased to anybody."""
    with sqlite3.connect(desk.file) as connection:
        found = connection.execute(
            "SELECT count(*) FROM review_items WHERE lease_reviewer IS NOT NULL"
        )
        return int(found.fetchone()[0])


async def test_two_people_never_have_the_same_item(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        [name] = desk.add(0)
        async with desk.reviewer() as one, desk.console.visitor(Role.LEAD) as other:
            assert item_of(await one.get("/review")) == name
            answer = await other.post("/review/next", {})
            assert "There is nothing for you now" in answer.words
            fields = {"item": name, "decision": "safe"}
            assert (await other.post("/review/decide", fields)).status == 409
            assert (await other.post("/review/skip", fields)).status == 409
            desk.clock.advance(600)
            await other.post("/review/next", {})
            assert item_of(await other.get("/review")) == name
            answer = await one.post("/review/decide", fields)
            assert answer.status == 409
            assert "it has expired; lease it again" in answer.words
        assert desk.kafka.written == []


async def test_skipping_gives_the_other_items_first(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        names = desk.add(0, 3)
        async with desk.reviewer() as visitor:
            seen = [item_of(await visitor.get("/review"))]
            for _ in range(3):
                assert (await visitor.post("/review/skip", {"item": seen[-1]})).status == 303
                if not item_of(await visitor.get("/review")):
                    # Only when asked for, the skipped ones come again.
                    await visitor.post("/review/next", {})
                seen.append(item_of(await visitor.get("/review")))
        assert sorted(seen[:3]) == sorted(names)
        assert seen[3] in names
        assert len(desk.queue.listed(limit=9)) == 3


async def test_what_a_reviewer_leaves_goes_to_a_lead_with_the_reason(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        desk.add(0, 2)
        async with desk.reviewer() as one, desk.console.visitor(Role.LEAD) as lead:
            left = item_of(await one.get("/review"))
            fields = {"item": left, "reason": "a threat?"}
            assert (await one.post("/review/escalate", fields)).status == 303
            other = item_of(await one.get("/review"))
            assert other not in ("", left)
            await _decide(one, decision="safe")
            assert item_of(await one.get("/review")) == ""
            await lead.post("/review/next", {})
            page = await lead.get("/review")
            assert item_of(page) == left
            assert "Left to a lead by reviewer-1" in page.words
            assert "a threat?" in page.words
            assert (await lead.post("/review/escalate", fields)).status == 409
            assert (await _decide(lead, decision="safe")).status == 303


async def test_a_decision_is_taken_back_for_a_time_and_its_item_is_there_again(
    tmp_path: Path,
) -> None:
    async with reviewing(tmp_path, review_undo_s=60) as desk:
        desk.add(0, 2)
        async with desk.reviewer() as visitor:
            first = item_of(await visitor.get("/review"))
            await _decide(visitor, decision="safe")
            page = await visitor.get("/review")
            assert item_of(page) != first
            assert "You decided: safe" in page.words
            assert (await visitor.post("/review/undo", {})).status == 303
            assert item_of(await visitor.get("/review")) == first
            made, back = desk.kafka.written
            assert (back.kind, back.id) == ("retraction", f"undo-{made.id}")
            assert [e["decided"] for e in desk.kafka.entries if e["what"] == "decide"] == [0, 1]
            await _decide(visitor, decision="safe")
            desk.clock.advance(61)
            assert "You decided" not in (await visitor.get("/review")).words
            assert (await visitor.post("/review/undo", {})).status == 409
        assert len(desk.kafka.written) == 3


async def test_a_break_is_due_after_so_many_items_and_ends(tmp_path: Path) -> None:
    async with reviewing(tmp_path, review_break_items=2, review_break_s=300) as desk:
        desk.add(0, 4)
        async with desk.reviewer() as visitor:
            for _ in range(2):
                assert (await _decide(visitor, decision="safe")).status == 303
            page = await visitor.get("/review")
            assert "Take a break" in page.words
            assert item_of(page) == ""
            answer = await visitor.post("/review/next", {})
            assert "Take a break" in answer.words
            # A new sign-in does not help, and neither does an item by its name.
            async with desk.reviewer() as again:
                assert item_of(await again.get("/review")) == ""
            desk.clock.advance(299)
            await visitor.post("/review/next", {})
            assert item_of(await visitor.get("/review")) == ""
            desk.clock.advance(1)
            await visitor.post("/review/next", {})
            assert item_of(await visitor.get("/review")) != ""


async def test_a_break_is_due_after_so_much_time_and_a_pause_is_one(tmp_path: Path) -> None:
    async with reviewing(tmp_path, review_break_after_s=1_000, review_break_s=300) as desk:
        desk.add(0, 9)
        async with desk.reviewer() as visitor:
            for _ in range(3):
                desk.clock.advance(250)
                await _decide(visitor, decision="safe")
            desk.clock.advance(250)
            assert (await _decide(visitor, decision="safe")).status == 303
            assert "Take a break" in (await visitor.get("/review")).words
            desk.clock.advance(300)
            await visitor.post("/review/next", {})
            assert item_of(await visitor.get("/review")) != ""


async def test_a_category_of_which_a_person_has_seen_enough_is_for_others(tmp_path: Path) -> None:
    limits = {"spam": {"S1": 2}, "*": {"*": 50}}
    async with reviewing(tmp_path, review_exposure_max=limits) as desk:
        desk.add(0, 4, decision="violates", category="S1", severity="critical")
        [mild] = desk.add(9, decision="violates", category="S2", severity="low")
        async with desk.reviewer() as visitor, desk.console.visitor(Role.LEAD) as other:
            for _ in range(2):
                await _decide(visitor, decision="safe")
            assert item_of(await visitor.get("/review")) == mild
            await _decide(visitor, decision="safe")
            answer = await visitor.post("/review/next", {})
            assert "seen enough of this category for now (limit: 2): spam / S1" in answer.words
            await other.post("/review/next", {})
            assert item_of(await other.get("/review")) != ""
            desk.clock.advance(86_400)  # the sign-in has ended, too
        async with desk.reviewer() as visitor:
            assert item_of(await visitor.get("/review")) != ""


@pytest.mark.parametrize(
    ("blur", "decision", "is_blurred"),
    [
        ("harmful", "violates", True),
        ("harmful", "undetermined", True),
        ("harmful", "safe", False),
        ("always", "safe", True),
        ("never", "violates", False),
    ],
)
async def test_harmful_text_is_blurred_and_hidden_from_screen_readers_until_asked_for(
    blur: str, decision: str, *, is_blurred: bool, tmp_path: Path
) -> None:
    async with reviewing(tmp_path, review_blur=blur) as desk:
        desk.add(0, decision=decision)
        async with desk.reviewer() as visitor:
            [post] = (await visitor.get("/review")).tree.xpath("//div[@id='post']")
            assert ("blurred" in post.get("class")) is is_blurred
            assert (post.get("inert") is not None) is is_blurred
            [post] = (await visitor.get("/review?reveal=1")).tree.xpath("//div[@id='post']")
            assert "blurred" not in post.get("class")
            assert post.get("inert") is None


async def test_a_second_opinion_is_blind_also_for_a_lead(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        desk.add(0, reviews=2)
        desk.projection.note_decision(
            desk.topics.decide(decision_about(0, "somebody", reason="it is satire"))
        )
        for role in (Role.REVIEWER, Role.LEAD):
            async with desk.reviewer(role) as visitor:
                page = await visitor.get("/review")
                assert "Two people review this post" in page.words
                assert "satire" not in page.words
                await visitor.post("/review/skip", {"item": item_of(page)})


@pytest.mark.parametrize("text", [HOSTILE, HOSTILE + "x" * 1_000_000])
async def test_hostile_text_in_each_field_is_shown_as_text(text: str, tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        desk.hostile(text)
        async with desk.reviewer() as visitor:
            page = await visitor.get("/review")
            assert item_of(page) != ""
            refused = await visitor.post(
                "/review/decide",
                {
                    "item": item_of(page),
                    "decision": "violates",
                    "category": text[:100_000],
                    "action": text[:100_000],
                    "reason": text[:100_000],
                },
            )
            assert refused.status == 422
            await visitor.post("/review/escalate", {"item": item_of(page), "reason": text[:2_000]})
            async with desk.reviewer(Role.LEAD) as lead:
                pages = [page, refused, await visitor.get("/review"), await lead.get("/review")]
                pages += [await lead.get(f"/review/{view}") for view in ("queue", "quality")]
                for each in pages:
                    assert not re.search("<script>|<img", each.text)
                    tree = each.tree
                    for field in tree.xpath(
                        "//input | //textarea"
                    ):  # what a field sends is sent as it was
                        field.set("value", "")
                        field.text = ""
                    shown = tostring(tree, encoding="unicode")
                    assert not re.search("\x1b|\u202e|\u2066|&#27;", shown)
                    assert tree.xpath("//@*[starts-with(name(), 'on')]") == []
                    assert [a for a in tree.xpath("//@href") if "script:" in a] == []


async def test_a_policy_of_a_record_names_no_other_folder(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "policy.md").write_text("# Secret\n\n- S1: unseen (violates)\n")
        desk.hostile("../secret")
        async with desk.reviewer() as visitor:
            assert "unseen" not in (await visitor.get("/review")).text


async def test_topics_that_go_away_are_named_decide_nothing_and_come_back(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        [name] = desk.add(0)
        async with desk.reviewer() as visitor:
            desk.kafka.away = True
            await desk.topics_are(Health.AWAY)
            page = await visitor.get("/review")
            assert "Topics of the review: cannot be read since" in page.words
            assert "no broker answers at kafka.example:9092" in page.words
            assert item_of(page) == ""
            fields = {"item": name, "decision": "safe", "reason": "kept"}
            answer = await visitor.post("/review/decide", fields)
            assert answer.status == 503
            assert "kept" in answer.words
            assert item_of(answer) == name
            assert desk.kafka.written == []
            desk.kafka.away = False
            await desk.topics_are(Health.FRESH)
            assert (await _decide(visitor, decision="safe")).status == 303
        assert len(desk.kafka.written) == 1


async def test_a_database_that_goes_away_is_named_and_comes_back(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        desk.add(0)
        async with desk.reviewer() as visitor:
            kept = desk.file.with_suffix(".kept")
            desk.close()
            desk.file.rename(kept)
            desk.file.mkdir()
            await desk.console.sources.review_database.close()  # open connections would go on
            await desk.database_is(Health.AWAY)
            page = await visitor.get("/review")
            assert "Review database: cannot be read since" in page.words
            assert (await visitor.post("/review/next", {})).status == 503
            assert (await visitor.get("/review/queue")).status == 503
            desk.file.rmdir()
            kept.rename(desk.file)
            await desk.database_is(Health.FRESH)
            assert item_of(await visitor.get("/review")) != ""


async def test_the_queue_and_the_figures_are_shown(tmp_path: Path) -> None:
    async with reviewing(tmp_path) as desk:
        desk.add(0, 3, reviews=2)
        for number, (first, second) in enumerate([("r-1", "r-2"), ("r-1", "reviewer-1")]):
            for reviewer in (first, second):
                desk.projection.note_decision(desk.topics.decide(decision_about(number, reviewer)))
        async with desk.console.visitor(Role.REVIEWER) as one:
            queue = (await one.get("/review/queue")).tree
            assert len(queue.xpath("//tbody/tr")) == 1
            assert queue.xpath("//form[@action='/review/take']") == []
            page = await one.get("/review/quality")
            assert "spam" in page.words
            assert "100.0%" in page.words
            names = page.tree.xpath("//table[last()]//th[@scope='row']//text()")
            assert "reviewer-1" in names
            assert "r-2" not in names
        async with desk.console.visitor(Role.LEAD) as lead:
            assert "r-2" in (await lead.get("/review/quality")).words
            queue = (await lead.get("/review/queue")).tree
            [name] = queue.xpath("//form[@action='/review/take']/button/@value")
            assert (await lead.post("/review/take", {"item": name})).status == 303
            assert item_of(await lead.get("/review")) == name


async def test_without_a_review_topic_the_page_says_which_setting_is_missing() -> None:
    from tests.console import served

    async with served() as console, console.visitor(Role.REVIEWER) as visitor:
        page = await visitor.get("/review")
        assert "kafka.review_topic is not set" in page.words
        assert "cannot be read" not in page.words
