"""The page Verdicts: searches within bounds, and one verdict as a story."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest
import structlog
from lxml.html import tostring

from stream_guard.console.security.roles import Role
from stream_guard.console.sources.verdict_search import SHOWN_MAX
from tests.unit.console.policies_folder import PoliciesFolder
from tests.verdict_topic import (
    SHADOWS,
    TRACE,
    Topics,
    found_ids,
    reading,
    until,
    verdict_on,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.console import Answer, Served, Visitor

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; javascript:alert(1) "
    "\u202egnp.exe\u2066 \x1b[31m \u200b"
)
TEXT = "[violates] pay <b>300</b> \u202efor it"
POST = {"id": "p0", "text": TEXT, "author": "a-1"}
OWN = {"engine": "own"}


def posted(topics: Topics, text: str = TEXT) -> dict[str, str]:
    """Write the post of the verdict at offset 0; return what the verdict has of it."""
    topics.write({**POST, "text": text}, topic="posts")
    return {"sha256": hashlib.sha256(text.encode()).hexdigest()}


async def search(visitor: Visitor, **fields: str) -> Answer:
    return await visitor.post("/verdicts", fields)


async def test_each_field_finds_its_verdicts_the_newest_first() -> None:
    topics = Topics()
    topics.write(verdict_on(0, author="a-1"))
    topics.write(verdict_on(1, decision="violates", category="S1", rule_ids=["S1.a"]))
    three = topics.write(verdict_on(2, decision="violates", category="S2"), partition=1)
    topics.write(verdict_on(3, supersedes=verdict_on(1)["id"], tier="human", decision_id="d"))
    async with reading(topics) as console, console.visitor(Role.READ_ONLY) as visitor:
        assert found_ids(await search(visitor)) == ["p3", "p2", "p1", "p0"]
        for fields, found in (
            ({"author": "a-1"}, ["p0"]),
            ({"content": "p2"}, ["p2"]),
            ({"content": "p"}, []),
            ({"decision": "violates"}, ["p2", "p1"]),
            ({"rule": "S1.a"}, ["p1"]),
            ({"rule": "S2"}, ["p2"]),
            ({"policy": "spam"}, ["p3", "p2", "p1", "p0"]),
            ({"policy": "other"}, []),
            ({"id": verdict_on(1)["id"]}, ["p3", "p1"]),
            ({"decision": "violates", "rule": "S2"}, ["p2"]),
        ):
            assert found_ids(await search(visitor, **fields)) == found, fields
        page = await search(visitor, content="p2")
        [link] = page.tree.xpath("//table//a/@href")
        assert link == f"/verdicts/live/1/{three.offset}"
        assert page.tree.xpath("//input[@name='content']/@value") == ["p2"]


async def test_a_search_reads_within_its_bounds_and_says_what_it_left_out() -> None:
    topics = Topics()
    for number in range(30):
        topics.write(verdict_on(number))
    topics.write(b"{}")
    async with (
        reading(topics, feed_verdicts_max=0, search_records_max=11) as console,
        console.visitor(Role.READ_ONLY) as visitor,
    ):
        topics.asked = 0
        page = await search(visitor)
        assert topics.asked == 11
        assert found_ids(page) == [f"p{number}" for number in range(29, 19, -1)]
        assert "11 records were read" in page.words
        assert "20 older records were not searched" in page.words
        assert "newer than 2023-11-14 22:13:40" in page.words
        assert "1 of them are no verdicts" in page.words
        assert "Only this topic was searched: verdicts" in page.words
        early = await search(visitor, first="2023-11-14T22:13:25", last="2023-11-14T22:13:28")
        assert found_ids(early) == ["p7", "p6", "p5"]
        assert "not searched" not in early.words.replace("which are not searched", "")


async def test_a_search_ends_in_time_with_what_it_found() -> None:
    topics = Topics()
    topics.write(verdict_on(0))
    topics.write(verdict_on(1))
    topics.slow = True
    async with (
        reading(topics, feed_verdicts_max=0, search_timeout_s=0.2) as console,
        console.visitor() as visitor,
    ):
        page = await search(visitor)
        assert found_ids(page) == ["p0"]
        assert "The time was over before all was read" in page.words


async def test_while_others_search_a_verdict_opens_and_nobody_waits_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream_guard.console.sources.verdicts._TURN_TIMEOUT_S", 0.1)
    topics = Topics()
    topics.write(verdict_on(0))
    topics.slow = True
    async with (
        reading(topics, feed_verdicts_max=0, search_timeout_s=600) as console,
        console.visitor() as visitor,
    ):
        searches = [asyncio.create_task(search(visitor)) for _ in range(2)]
        await until(lambda: topics.asked == 2)
        page = await search(visitor)
        assert page.status == 409
        assert "other people search now; try again" in page.words
        story = await visitor.get("/verdicts/live/0/0")
        assert story.status == 200
        assert "other people search now; try again" in story.words
        for each in searches:
            each.cancel()
        await asyncio.gather(*searches, return_exceptions=True)


async def test_only_the_newest_are_shown_and_the_page_says_so() -> None:
    topics = Topics()
    for number in range(SHOWN_MAX + 5):
        topics.write(verdict_on(number))
    async with reading(topics) as console, console.visitor() as visitor:
        page = await search(visitor)
        assert found_ids(page) == [f"p{number}" for number in range(SHOWN_MAX + 4, 4, -1)]
        assert f"{SHOWN_MAX + 5} verdicts fit. The newest {SHOWN_MAX} are shown" in page.words


async def test_what_was_typed_is_in_no_address_and_no_log() -> None:
    topics = Topics()
    topics.write(verdict_on(0, author="secret-author"))
    with structlog.testing.capture_logs() as logs:
        async with reading(topics) as console, console.visitor() as visitor:
            page = await search(visitor, author="secret-author")
            assert found_ids(page) == ["p0"]
            assert (await visitor.get("/verdicts")).tree.xpath(
                "//form[@role='search']/@method"
            ) == ["post"]
            for address in page.tree.xpath("//@href | //@action | //@src"):
                assert "secret" not in address
    assert "secret" not in str(logs)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"first": "<b>"}, "not a time"),
        ({"author": "x" * 1_001}, "more than 1000 characters"),
        ({"topic": "../etc"}, "there is no topic of ../etc verdicts"),
    ],
)
async def test_a_search_that_cannot_be_is_refused_in_words(
    fields: dict[str, str], said: str
) -> None:
    async with reading(Topics()) as console, console.visitor() as visitor:
        page = await search(visitor, **fields)
        assert page.status == 422
        assert said in page.words
        assert "<b>" not in page.text


async def test_shadows_are_searched_when_asked_for() -> None:
    topics = Topics()
    topics.write(verdict_on(0))
    topics.write(verdict_on(1, route_mode="shadow"), topic=SHADOWS)
    async with reading(topics) as console, console.visitor() as visitor:
        page = await search(visitor, topic="shadow")
        assert found_ids(page) == ["p1"]
        assert page.tree.xpath("//table//a/@href") == ["/verdicts/shadow/0/0"]
        assert (await visitor.get("/verdicts/shadow/0/0")).status == 200


async def test_one_verdict_tells_its_story(tmp_path: Path) -> None:
    folder, topics = PoliciesFolder(tmp_path), Topics()
    verdict = verdict_on(
        0,
        **posted(topics),
        decision="violates",
        category="TT1",
        rule_ids=["TT1.a"],
        rationale="It asks for 300.",
        author="a-1",
        trail=[
            {"tier": "rules", "outcome": "escalated", "reason": "none", "duration_us": 1_500},
            {"tier": "safeguard", "outcome": "settled", "reason": "sure", "effort": "low"},
        ],
    )
    verdict["policy"] |= {"id": "touting", "sha256": folder.live.sha256}
    verdict["confidence"] = {"value": 0.875, "method": "label", "raw": None}
    header = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())
    topics.write(verdict, headers=(header,))
    topics.write(verdict_on(5))
    human = verdict_on(0, decision="safe", supersedes=verdict["id"], decision_id="d", id="a" * 32)
    topics.write(human)
    retraction = {"verdict_id": None, "content_id": "p0", "key": "k", "cause": "deleted"}
    topics.write(verdict_on(9, id="b" * 32, retracts=retraction))
    async with (
        reading(topics, folder.settings, trace_url="https://t.example/{trace_id}/x") as console,
        console.visitor(Role.REVIEWER) as visitor,
    ):
        page = await visitor.get("/verdicts/live/0/0")
        for words in (
            "87.5%",
            "It asks for 300.",
            "Violates (TT1 - Price)",
            "TT1.a asks too much",
            "a-1",
            "posts/0/0",
            f"stream-guard replay {verdict['id']} --judge",
        ):
            assert words in page.words, words
        assert "TT0.a" not in page.words
        assert page.tree.xpath(f"//a[@href='https://t.example/{TRACE}/x']")
        trail = page.tree.xpath("//table[caption='The tiers, in order']//tr")
        assert [cell.text_content() for cell in trail[1]] == [
            "rules",
            "escalated",
            "none",
            "",
            "1.50",
        ]
        assert page.tree.xpath("//section | //h2/following::table[last()]//a/@href") == [
            "/verdicts/live/0/3",
            "/verdicts/live/0/2",
        ]
        assert "by a person" in page.words
        assert "retraction" in page.words
        assert "pay" not in page.words.replace("asks too much to pay", "")
        shown = await visitor.post("/verdicts/live/0/0/text", {})
        assert "[violates] pay <b>300</b> \\u202efor it" in shown.words
        assert "<b>300</b>" not in shown.text


async def test_texts_and_rationales_need_a_role_and_showing_one_is_noted() -> None:
    topics = Topics()
    topics.write(verdict_on(0, **posted(topics), rationale="quotes the post"))
    place = "/verdicts/live/0/0"
    async with reading(topics) as console:
        async with console.visitor(Role.READ_ONLY) as visitor:
            page = await visitor.get(place)
            assert "quotes the post" not in page.words
            assert page.tree.xpath(f"//form[@action='{place}/text']") == []
            assert page.tree.xpath(f"//form[@action='{place}/again']") == []
            assert (await visitor.post(f"{place}/text", {})).status == 403
            assert (await visitor.post(f"{place}/again", {})).status == 403
        for role in (Role.REVIEWER, Role.AUTHOR, Role.LEAD):
            async with console.visitor(role) as visitor:
                assert "quotes the post" in (await visitor.get(place)).words
                with structlog.testing.capture_logs() as logs:
                    shown = await visitor.post(f"{place}/text", {})
                assert "pay <b>300</b>" in shown.words
                [line] = [each for each in logs if each["event"] == "console_post_shown"]
                assert line["who"] == f"{role}-1"
                assert "pay" not in str(logs)
                assert (await visitor.post(f"{place}/text", {}, csrf="x")).status == 403


async def test_a_text_that_is_another_one_now_is_not_shown() -> None:
    topics = Topics()
    topics.write(verdict_on(0, **posted(topics)))
    topics.records["posts", 0].clear()
    posted(topics, "what is there now")
    async with reading(topics) as console, console.visitor() as visitor:
        shown = await visitor.post("/verdicts/live/0/0/text", {})
        assert "The post cannot be had" in shown.words
        assert "what is there now" not in shown.words


async def test_a_policy_that_changed_is_read_from_the_archive_or_named_as_missing(
    tmp_path: Path,
) -> None:
    folder, topics = PoliciesFolder(tmp_path), Topics()
    topics.write(verdict_on(0, category="TT1"))
    async with reading(topics, folder.settings) as console, console.visitor() as visitor:
        page = await visitor.get("/verdicts/live/0/0")
        assert "The text of that version of the policy cannot be shown" in page.words
        assert "archive" in page.words


async def test_places_that_are_none_are_refused() -> None:
    topics = Topics()
    topics.write(b"{}")
    async with reading(topics) as console, console.visitor() as visitor:
        for place in ("live/0/0", "live/0/7", "live/9/0", "live/x/0", "live/0/-1", "other/0/0"):
            assert (await visitor.get(f"/verdicts/{place}")).status == 404, place
        assert (await visitor.get(f"/verdicts/live/0/{'9' * 30}")).status == 404


async def test_why_these_policies_judge_is_said_without_the_text(tmp_path: Path) -> None:
    folder, topics = PoliciesFolder(tmp_path), Topics()
    (folder.path / "routes.yaml").write_text("default: [touting]\n")
    topics.write(verdict_on(0, **posted(topics)))
    async with (
        reading(topics, folder.settings) as console,
        console.visitor(Role.READ_ONLY) as visitor,
    ):
        page = await visitor.post("/verdicts/live/0/0/why", {})
        assert "touting judges such a post (live)" in page.words
        assert "the default names touting" in page.words
        assert "pay" not in page.words


async def finished(console: Served, visitor: Visitor) -> Answer:
    await until(lambda: console.sources.bench.running is None)
    return await visitor.get("/policies-work")


async def test_an_author_judges_it_again_and_by_another_policy(tmp_path: Path) -> None:
    folder, topics = PoliciesFolder(tmp_path), Topics()
    (folder.path / "other").mkdir()
    for file in (folder.path / "touting").iterdir():
        (folder.path / "other" / file.name).write_bytes(file.read_bytes())
    (folder.path / "other" / "rules.yaml").write_text(
        "rules:\n  - {id: quotes, outcome: safe, terms: [pay]}\n"
    )
    folder.settings["studio"] = {"socket": tmp_path / "studio.sock"}
    verdict = verdict_on(0, **posted(topics), decision="safe")
    verdict["policy"]["id"] = "touting"
    topics.write(verdict)
    async with (
        reading(topics, folder.settings, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        page = await visitor.get("/verdicts/live/0/0")
        assert page.tree.xpath("//select[@name='other']/option/@value") == ["", "other"]
        begun = await visitor.post("/verdicts/live/0/0/again", {"other": "other"})
        assert (begun.status, begun.headers.get("Location")) == (303, "/policies-work")
        done = await finished(console, visitor)
        assert "The same policy decides otherwise now" in done.words
        rows = [
            [" ".join(cell.text_content().split()) for cell in row]
            for row in done.tree.xpath("//tbody/tr")
        ]
        assert [row[2] for row in rows] == ["safe", "violates", "safe"]
        assert rows[2][4] == "rules"
        assert "pay" not in done.words
        assert done.tree.xpath("//main//a[@href='/verdicts/live/0/0']")
        alone = await visitor.post("/verdicts/live/0/0/again", {"other": "<b>"})
        assert alone.status == 303
        assert len((await finished(console, visitor)).tree.xpath("//tbody/tr")) == 2


async def test_hostile_verdicts_harm_no_page() -> None:
    topics = Topics()
    long = HOSTILE + "x" * 1_000_000
    for text in (HOSTILE, long):
        verdict = verdict_on(0, id="c" * 32, rationale=text, decision="violates")
        verdict["action"] = text
        verdict["content"] |= dict.fromkeys(("id", "author", "tenant", "language"), text)
        verdict["policy"] |= {"id": text, "version": text, "category": text, "rule_ids": [text]}
        verdict["confidence"] = {"value": 1e300, "method": text, "raw": None}
        verdict["source"] |= {"topic": text, "key": text, "partition": 2**62, "offset": -5}
        verdict["provenance"] |= {
            **dict.fromkeys(("tier", "model", "effort", "parse_status"), text),
            "degraded": [text],
            "trail": [
                dict.fromkeys(("tier", "outcome", "reason", "effort", "duration_us"), text),
                {"duration_us": 2**63 - 1, "tier": [text], "reason": None},
            ],
        }
        verdict["timing"] = dict.fromkeys(("event", "consumed", "judged", "published"), 10**18)
        topics.write(verdict)
        retraction = {"verdict_id": text, "content_id": text, "key": text, "cause": text}
        topics.write(verdict | {"id": "d" * 32, "retracts": retraction})
    header = ("traceparent", HOSTILE.encode())
    topics.write(verdict | {"id": "e" * 32, "supersedes": long, "expired": long}, headers=(header,))
    async with reading(topics) as console, console.visitor() as visitor:
        await until(lambda: len(console.sources.verdicts.feed.latest) == 5)
        pages = [
            await visitor.get("/now"),
            await search(visitor),
            await search(visitor, rule=HOSTILE),
        ]
        pages += [await visitor.get(f"/verdicts/live/0/{offset}") for offset in range(5)]
        pages += [await visitor.post("/verdicts/live/0/0/text", {})]
        pages += [await visitor.post("/verdicts/live/0/0/why", {})]
        for page in pages:
            assert page.status == 200, page.words[:500]
            assert page.tree.xpath("//img | //script[not(@src)] | //main//*[@onerror]") == []
            assert (
                page.tree.xpath("//a[contains(@href, 'javascript') or contains(@href, '<')]") == []
            )
            # A field keeps what its own person typed, to be sent again.
            tree = page.tree
            for field in tree.xpath("//input"):
                field.drop_tree()
            shown = tostring(tree, encoding="unicode")
            assert "\u202e" not in shown
            assert "\x1b" not in shown
        # Only what can be opened has the rest of a long text.
        assert all(len(page.text) < 300_000 for page in pages[:3])
