"""The feed of verdicts on Now: a sample that keeps up, and a broker that goes away and comes back."""

from __future__ import annotations

from stream_guard.console.security.roles import Role
from stream_guard.console.sources.state import Health
from tests.verdict_topic import VERDICTS, Topics, found_ids, reading, verdict_on, verdicts_are


async def test_the_feed_shows_a_sample_of_the_latest_and_counts_the_others() -> None:
    topics = Topics()
    topics.write(verdict_on(0))
    async with (
        reading(topics, feed_verdicts_max=5) as console,
        console.visitor(Role.READ_ONLY) as visitor,
    ):
        await visitor.event("now.feed", enough=">p0<")
        topics.asked = 0
        for number in range(1, 10_001):
            topics.write(verdict_on(number))
        shown = (await visitor.event("now.feed", enough=">p10000<"))["now.feed"]
        assert shown.count("/verdicts/live/0/") == 5
        feed = console.sources.verdicts.feed
        assert feed.latest[0].verdict.content.id == "p10000"
        # It must not read what it does not show: that is how it keeps up.
        assert topics.asked <= 10


async def test_a_verdict_of_a_fast_clock_does_not_stay_on_top() -> None:
    topics = Topics()
    topics.write(verdict_on(1_000_000))
    async with reading(topics, feed_verdicts_max=2) as console, console.visitor() as visitor:
        await visitor.event("now.feed", enough=">p1000000<")
        for number in range(3):
            topics.write(verdict_on(number))
            await visitor.event("now.feed", enough=f">p{number}<")
        assert [each.verdict.content.id for each in console.sources.verdicts.feed.latest] == [
            "p2",
            "p1",
        ]


async def test_the_feed_says_of_how_many_it_is_a_sample() -> None:
    topics = Topics()
    async with reading(topics, feed_verdicts_max=5) as console, console.visitor() as visitor:
        await verdicts_are(console, Health.FRESH)
        for number in range(1_000):
            topics.write(verdict_on(number))
        shown = (await visitor.event("now.feed", enough="of 1,000 records"))["now.feed"]
        assert "in the last ten seconds, 5 were read" in shown


async def test_a_broker_that_goes_away_is_named_and_comes_back_by_itself() -> None:
    topics = Topics()
    topics.write(verdict_on(0))
    async with reading(topics) as console, console.visitor(Role.READ_ONLY) as visitor:
        await visitor.event("now.feed", enough=">p0<")
        topics.away = True
        await visitor.event("sources", enough="Topic of verdicts: cannot be read since")
        page = await visitor.post("/verdicts", {"content": "p1"})
        assert page.status == 503
        assert "no broker answers" in page.words
        assert page.tree.xpath("//input[@name='content']/@value") == ["p1"]
        assert (await visitor.get("/verdicts/live/0/0")).status == 503
        assert (await visitor.get("/now")).status == 200
        topics.away = False
        topics.write(verdict_on(1))
        await visitor.event("now.feed", enough=">p1<")
        assert found_ids(await visitor.post("/verdicts", {"content": "p1"})) == ["p1"]
        assert "Topic of verdicts" not in (await visitor.get("/now")).words


async def test_a_topic_that_was_made_again_is_read_from_its_beginning() -> None:
    topics = Topics()
    for number in range(10):
        topics.write(verdict_on(number))
    async with reading(topics) as console, console.visitor() as visitor:
        await visitor.event("now.feed", enough=">p9<")
        topics.records[VERDICTS, 0].clear()
        topics.write(verdict_on(77))
        await visitor.event("now.feed", enough=">p77<")
        assert console.sources.verdicts.state.health is Health.FRESH


async def test_without_a_feed_the_topic_is_read_for_searches_alone() -> None:
    topics = Topics()
    topics.write(verdict_on(0))
    async with reading(topics, feed_verdicts_max=0) as console, console.visitor() as visitor:
        assert "console.feed_verdicts_max is 0" in (await visitor.get("/now")).words
        assert topics.asked == 0
        assert found_ids(await visitor.post("/verdicts", {})) == ["p0"]
