"""The page Dead letters: by reason, what was not read, content only when asked, replays, and what is away."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import structlog

from stream_guard.console.security.roles import Role
from stream_guard.console.sources.letter_table import LetterTable
from stream_guard.console.sources.state import Health
from stream_guard.core.errors import MissingFieldError, dead_letter_reasons
from tests.hang import HANG_S
from tests.letters_desk import NOT_JSON, FakeLetters, lettering, until

if TYPE_CHECKING:
    from tests.console import Answer, Visitor

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; javascript:alert(1) "
    "\u202egnp.exe\u2066 \x1b[31m \u200b"
)
LONG = "<b>" + "x" * (1 << 20)


def rows(page: Answer, caption: str) -> list[list[str]]:
    """Return the cells of a table by the id of its caption."""
    found = page.tree.xpath(f"//table[caption[@id='{caption}']]/tbody/tr")
    return [[" ".join(cell.text_content().split()) for cell in row] for row in found]


async def ended(desk: FakeLetters, visitor: Visitor) -> Answer:
    """Return the page once the replay has ended."""
    replay = desk.console.sources.dead_letters.last
    assert replay is not None
    assert replay.task is not None
    async with asyncio.timeout(HANG_S):
        await asyncio.wait([replay.task])
    return await visitor.get("/letters")


async def test_dead_letters_are_counted_by_reason_with_the_field_and_the_place() -> None:
    async with lettering() as desk, desk.console.visitor(Role.READ_ONLY) as visitor:
        desk.add()
        desk.replayed.add(desk.add().id)
        desk.add(NOT_JSON, value=b"{")
        await desk.is_read(3)
        page = await visitor.get("/letters")
        found = {row[0]: row[1:3] for row in rows(page, "reasons-caption")}
        assert found == {"missing_field": ["2", "1"], "json": ["1", "0"]}
        letters = rows(page, "letters-caption")
        assert [row[1] for row in letters] == ["json", "missing_field", "missing_field"]
        assert letters[1][2:] == ["no field at '/body' (post.text)", "posts/3/41", "replayed"]
        assert letters[2][3:] == ["posts/3/40", "not replayed"]
        assert "That is the whole topic." in page.words
        assert page.tree.xpath("//form[starts-with(@action, '/letters')]") == []
        one = await visitor.get("/letters?reason=json")
        assert [row[1] for row in rows(one, "letters-caption")] == ["json"]
        assert (await visitor.get("/letters?reason=<b>")).status == 404


async def test_the_page_says_what_it_did_not_read_and_goes_on_from_where_it_was() -> None:
    async with lettering(topics_read_max=2) as desk, desk.console.visitor() as visitor:
        for _ in range(5):
            desk.add()
        await desk.is_read(5)
        page = await visitor.get("/letters")
        assert "3 earlier offsets of the topic were not read here" in page.words
        assert len(rows(page, "letters-caption")) == 2
        desk.add(NOT_JSON)
        await desk.is_read(6)
        page = await visitor.get("/letters")
        assert "4 earlier offsets" in page.words
        assert [row[1] for row in rows(page, "letters-caption")] == ["json", "missing_field"]


def test_a_table_forgets_a_topic_that_was_made_again_and_passes_over_what_is_too_much() -> None:
    desk = FakeLetters()
    table = LetterTable(4)
    assert table.spans({0: (0, 1)}) == {0: (0, 1)}
    table.add(desk.add())
    table.positions[0] = 1
    assert table.spans({0: (0, 9)}) == {0: (5, 9)}
    assert table.left_out == 5
    table.positions[0] = 9
    assert table.spans({0: (7, 9)}) == {0: (9, 9)}
    assert table.left_out == 0
    assert table.spans({0: (0, 3)}) == {0: (0, 3)}
    assert table.newest(9) == []


def test_a_table_forgets_what_retention_has_deleted() -> None:
    desk = FakeLetters()
    table = LetterTable(9)
    table.spans({0: (0, 2)})
    first, second = desk.add(), desk.add()
    table.add(first)
    table.add(second)
    table.positions[0] = 2
    assert table.spans({0: (1, 2)}) == {0: (2, 2)}
    assert [each.offset for each in table.newest(9)] == [second.offset]
    assert [each.count for each in table.reasons()] == [1]
    assert table.find(0, first.offset) is None


async def test_content_is_shown_only_when_asked_and_that_is_logged() -> None:
    async with lettering() as desk, desk.console.visitor(Role.REVIEWER) as visitor:
        desk.add(key=b"the key", value=b"the text", headers=(("name", b"the header"),))
        desk.add(value=b"\xff\x00")
        for path in ("/letters", "/letters/0/0"):
            page = await visitor.get(path)
            assert page.status == 200
            for secret in ("the key", "the text", "the header"):
                assert secret not in page.text
        with structlog.testing.capture_logs() as lines:
            page = await visitor.post("/letters/0/0/content", {})
        for shown in ("the key", "the text", "the header"):
            assert shown in page.words
            assert shown not in str(lines)
        [line] = [each for each in lines if each["event"] == "console_dead_letter_read"]
        assert (line["who"], line["partition"], line["offset"]) == ("reviewer-1", 0, 0)
        assert "ff 00" in (await visitor.post("/letters/0/1/content", {})).words
        assert (await visitor.post("/letters/0/0/content", {}, csrf="x")).status == 403


async def test_read_only_people_see_no_content() -> None:
    async with lettering() as desk:
        desk.add(value=b"the text")
        async with desk.console.visitor(Role.READ_ONLY) as visitor:
            page = await visitor.get("/letters/0/0")
            assert "Your role does not show the content" in page.words
            assert page.tree.xpath("//form[contains(@action, '/content')]") == []
            refused = await visitor.post("/letters/0/0/content", {})
            assert (refused.status, "the text" in refused.text) == (403, False)
        for role in (Role.AUTHOR, Role.LEAD):
            async with desk.console.visitor(role) as visitor:
                assert "the text" in (await visitor.post("/letters/0/0/content", {})).words


@pytest.mark.parametrize("place", ["0/7", "1/0", "0/" + "9" * 30, "x/0", "\u0661/0", "0/-1"])
async def test_a_dead_letter_that_is_not_there(place: str) -> None:
    async with lettering() as desk, desk.console.visitor() as visitor:
        desk.add()
        assert (await visitor.get(f"/letters/{place}")).status == 404
        assert (await visitor.post(f"/letters/{place}/replay", {})).status == 404
        assert desk.asked == []


@pytest.mark.parametrize("text", [HOSTILE, LONG])
async def test_text_of_strangers_is_escaped_and_cut(text: str) -> None:
    async with lettering() as desk, desk.console.visitor() as visitor:
        bytes_ = text.encode()
        desk.add(
            MissingFieldError(text),
            topic=text,
            key=bytes_[: 30 << 10],
            value=bytes_,
            headers=((text[:20_000], bytes_[:10_000]),),
            failed_ms=(1 << 63) - 1,
        )
        # A dead letter of somebody else, whose headers say what they like.
        strange = desk.letters[0]
        strange.about["sg_reason"] = text  # type: ignore[index]
        for name in ("error", "stage", "policy", "attempts", "group"):
            strange.about[f"sg_{name}"] = text  # type: ignore[index]
        desk.letters.append(strange)
        await desk.is_read(2)
        for page in (
            await visitor.get("/letters"),
            await visitor.get("/letters/0/0"),
            await visitor.post("/letters/0/0/content", {}),
        ):
            assert page.status == 200, page.words[:500]
            tree = page.tree
            assert tree.xpath("//main//script | //main//img | //main//b[starts-with(., 'x')]") == []
            assert tree.xpath("//@*[starts-with(name(), 'on')]") == []
            assert [each for each in tree.xpath("//@href | //@action") if ":" in each] == []
            for hidden in ("\u202e", "\u2066", "\x1b", "\u200b"):
                assert hidden not in page.text
        overview = await visitor.get("/letters")
        assert len(overview.text) < 60_000
        assert overview.tree.xpath("//form[@action='/letters/replay']") == []


async def test_a_lead_counts_first_and_then_replays_all_of_a_reason() -> None:
    async with lettering() as desk, desk.console.visitor() as visitor:
        desk.add()
        desk.add()
        desk.add(NOT_JSON)
        count = {"reason": "missing_field", "what": "count"}
        assert (await visitor.post("/letters/replay", count)).status == 303
        page = await ended(desk, visitor)
        assert "A replay would send 2 records to posts" in page.words
        desk.refused = {"cut": 3, "already": 4, "repeats": 5}
        assert (
            await visitor.post("/letters/replay", {"reason": "missing_field", "what": "replay"})
        ).status == 303
        page = await ended(desk, visitor)
        for said in (
            "of all with the reason missing_field by lead-1,",
            "2 records were sent back to posts",
            "2 dead letters were found",
            "3 dead letters were not sent, because a part of the record is missing",
            "4 dead letters were replayed before",
            "5 dead letters are of a record that has another one",
        ):
            assert said in page.words
        assert [(sorted(wanted.reasons), dry) for wanted, dry in desk.asked] == [
            (["missing_field"], True),
            (["missing_field"], False),
        ]
        await until(lambda: desk.console.sources.dead_letters.look().reasons()[0].replayed == 2)  # type: ignore[union-attr]


async def test_one_record_is_replayed_and_topics_that_may_not_be_written_are_named() -> None:
    async with lettering() as desk, desk.console.visitor() as visitor:
        wanted = desk.add()
        desk.add()
        desk.refused = {"not_input": Counter({HOSTILE: 2})}
        assert (await visitor.post("/letters/0/0/replay", {})).status == 303
        page = await ended(desk, visitor)
        assert "of the dead letter 0/0" in page.words
        assert "1 records were sent back" in page.words
        assert "2 dead letters were not sent, because kafka.topics does not read" in page.words
        assert "<img" not in page.text
        [(asked, dry)] = desk.asked
        assert (asked.ids, dry) == (frozenset([wanted.id]), False)


async def test_a_long_replay_shows_how_far_it_is_and_can_be_stopped() -> None:
    async with lettering() as desk, desk.console.visitor() as visitor:
        for _ in range(4):
            desk.add()
        desk.goes_on.clear()
        assert (
            await visitor.post("/letters/replay", {"reason": "json", "what": "replay"})
        ).status == 303
        part = await visitor.event("letters.replay", enough="1 / 4")
        assert 'max="4" value="1"' in part["letters.replay"]
        busy = await visitor.post("/letters/0/0/replay", {})
        assert busy.status == 409
        assert "A replay is running" in busy.words
        assert len(desk.asked) == 1
        assert (await visitor.post("/letters/stop", {})).status == 303
        page = await visitor.get("/letters")
        assert "Not done: stopped" in page.words
        assert "Replay again for the rest; nothing is sent twice" in page.words
        desk.goes_on.set()
        assert (
            await visitor.post("/letters/replay", {"reason": "json", "what": "replay"})
        ).status == 303
        assert "0 records were sent back" in (await ended(desk, visitor)).words


async def test_only_a_lead_replays_and_only_known_reasons() -> None:
    async with lettering() as desk:
        desk.add()
        for role in (Role.READ_ONLY, Role.REVIEWER, Role.AUTHOR):
            async with desk.console.visitor(role) as visitor:
                for path in ("/letters/replay", "/letters/0/0/replay", "/letters/stop"):
                    assert (
                        await visitor.post(path, {"reason": "json", "what": "replay"})
                    ).status == 403
        async with desk.console.visitor() as lead:
            assert (
                await lead.post("/letters/replay", {"reason": "json", "what": "replay"}, csrf="")
            ).status == 403
            for reason in ("", "js", HOSTILE):
                form = {"reason": reason, "what": "replay"}
                assert (await lead.post("/letters/replay", form)).status == 400
            unnamed = {"reason": "json"}
            for form in (unnamed, unnamed | {"what": ""}, unnamed | {"what": "counts"}):
                assert (await lead.post("/letters/replay", form)).status == 400
        assert desk.asked == []
        assert "json" in dead_letter_reasons()


async def test_a_topic_that_is_away_is_named_and_comes_back_by_itself() -> None:
    async with lettering() as desk, desk.console.visitor() as visitor:
        desk.add()
        desk.away = True
        source = desk.console.sources.dead_letters
        source.look()
        await until(lambda: source.state.health is Health.AWAY)
        page = await visitor.get("/letters")
        assert page.status == 200
        assert "Dead letters: cannot be read since" in page.words
        assert "no broker answers at kafka.example:9092" in page.words
        assert (await visitor.get("/letters/0/0")).status == 503
        assert (
            await visitor.post("/letters/replay", {"reason": "json", "what": "replay"})
        ).status == 503
        desk.away = False
        await until(lambda: source.state.health is Health.FRESH)
        assert "Dead letters: cannot be read since" not in (await visitor.get("/letters")).words
        desk.away = True
        assert (
            await visitor.post("/letters/replay", {"reason": "json", "what": "replay"})
        ).status in (303, 503)


async def test_nothing_is_read_while_nobody_looks() -> None:
    async with lettering() as desk:
        desk.add()
        await asyncio.sleep(0.1)
        assert desk.console.sources.dead_letters.state.health is Health.WAITING
