"""A reviewer overrules the demo model by keyboard, against a real broker; and the page in a real browser."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import orjson

from stream_guard.cli.demo import POLICIES
from stream_guard.console.security.roles import Role
from tests.console import PHONE, serious_findings, served, sign_in
from tests.hang import HANG_S
from tests.integration.harness import deploy_demo_engine, post, produce, read, running
from tests.review_desk import reviewing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.async_api import Browser, Page

    from stream_guard.testing import Broker
    from tests.console import Served
    from tests.integration.harness import Deployment, Running

ITEM = ".decide input[name=item]"
POSTS = (
    "Selling fireworks, write to me.",
    "who wants lottery tickets",
    "not again, gossip everywhere",
)
"""What the demo model calls violations of the house rules."""
STEP_S = 120
"""The deadline of each step. A step takes a second or two; what it waits for does not come after so long."""


async def item_is(page: Page, state: str) -> None:
    """Return once the page is in this state, and its script has run: it puts the focus on the heading last."""
    await page.locator(f"#review[data-state='{state}'] #item:focus").wait_for()


class Story:
    """A reviewer in a browser, beside a real broker and consumer.

    Args:
        page: signed in as a reviewer.
        place: the broker, and the consumer's topics.
        run: the consumer.
    """

    def __init__(self, page: Page, place: Deployment, run: Running) -> None:
        self.page = page
        self.place = place
        self.run = run

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def type_into(self, key: str, text: str) -> None:
        """Go to a field by its key, write, and leave it."""
        await self.press(key)
        await self.page.keyboard.type(text)
        await self.press("Escape")

    async def item(self) -> str:
        """Return the id of the item on the page."""
        await item_is(self.page, "item")
        value = await self.page.locator(ITEM).get_attribute("value")
        assert value, "the page shows an item"
        return value

    async def verdict(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first record of the verdict topic that fits, once it is there."""

        def found(records: list[Any]) -> list[dict[str, Any]]:
            return [each for each in map(_document, records) if fits(each)]

        topic, servers = self.place.verdicts, self.place.bootstrap
        read_ = await read(
            servers, [topic], lambda got: bool(found(got)), run=self.run, hang_s=STEP_S
        )
        return found(read_)[0]


def _document(record: Any) -> dict[str, Any]:  # noqa: ANN401 - aiokafka's
    found: dict[str, Any] = orjson.loads(record.value)
    return found


async def test_a_reviewer_overrules_a_verdict_by_keyboard_and_takes_it_back(
    browser: Browser, broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topics = {
        "review_topic": new_topic("review"),
        # The service refuses a topic that would lose decisions.
        "decision_topic": new_topic("decisions", configs={"cleanup.policy": "compact"}),
        "audit_topic": new_topic("audit"),
    }
    policies = tmp_path / "policies"
    shutil.copytree(POLICIES / "house-rules", policies / "house-rules")
    (policies / "routes.yaml").write_text("default: [house-rules]\n", "utf-8")
    place = deploy_demo_engine(
        broker.bootstrap_servers,
        new_topic,
        policies,
        STREAM_GUARD_REVIEW__SAMPLE='{"*": {"violates": 1}}',
        STREAM_GUARD_REVIEW__SECOND_SHARE="0",
        STREAM_GUARD_DECISIONS__ENABLED="true",
        **{f"STREAM_GUARD_KAFKA__{name.upper()}": topic for name, topic in topics.items()},
    )
    posts = [post(number, text) for number, text in enumerate(POSTS)]
    await produce(place.bootstrap, place.posts, posts)
    sections = {
        "kafka": {
            "bootstrap_servers": place.bootstrap,
            "topics": [place.posts],
            "verdict_topic": place.verdicts,
            **topics,
        },
        "decisions": {"enabled": True},
        "policies": {"path": policies},
        "review": {"database": str(tmp_path / "review.sqlite"), "follow_interval_s": 0.2},
    }
    items = len(POSTS)
    with running(place, tmp_path / "log") as run:
        await read(
            place.bootstrap,
            [topics["review_topic"]],
            lambda got: len(got) >= items,
            run=run,
            hang_s=HANG_S,
        )
        async with served(sections) as console:
            page = await browser.new_page()
            await sign_in(page, console, Role.REVIEWER)
            page.set_default_timeout(STEP_S * 1_000)
            await page.goto(f"{console.url}/review")
            await page.locator(f"#queue[data-open='{items}']").wait_for()
            await item_is(page, "idle")
            story = Story(page, place, run)
            await _overrule(story)
            await _take_back_and_confirm(story)
            await _leave_to_a_lead(story)
            await _read_only_people_can_do_none_of_that(browser, console, await story.item())
        entries = await read(
            place.bootstrap, [topics["audit_topic"]], lambda got: len(got) >= 6, hang_s=STEP_S
        )
        said = [_document(each) for each in entries]
        assert {each["what"] for each in said} >= {"lease", "show", "decide", "release"}
        assert {each["who"] for each in said} == {"reviewer-1"}
        made = await read(
            place.bootstrap, [topics["decision_topic"]], lambda got: len(got) >= 3, hang_s=STEP_S
        )
        assert {_document(each)["decided_by"]["id"] for each in made} == {"reviewer-1"}
        assert run.end() == 0, run.tail()


async def _overrule(story: Story) -> None:
    """Take an item, read its text, and decide that it is safe."""
    page = story.page
    await story.press("n")
    await item_is(page, "item")
    text = page.locator("#post")
    assert await text.evaluate("each => each.inert")
    await story.press("r")
    assert not await text.evaluate("each => each.inert")
    shown = await text.inner_text()
    assert any(each in shown for each in POSTS)
    await story.type_into("w", "a quotation, says v")
    await story.press("s")
    await page.get_by_text("You decided: safe").wait_for()
    over = await story.verdict(lambda each: bool(each.get("supersedes")))
    assert (over["decision"], over["policy"]["rationale"]) == ("safe", "a quotation, says v")
    before = await story.verdict(lambda each: each.get("id") == over["supersedes"])
    assert before["decision"] == "violates"


async def _take_back_and_confirm(story: Story) -> None:
    """Take the decision back, get its item again, and decide by a category's number and an action."""
    await item_is(story.page, "item")
    await story.press("u")
    taken_back = await story.verdict(lambda each: bool(each.get("retracts")))
    await story.page.locator("#review[data-state='item'] #item:focus").wait_for()
    assert not await story.page.get_by_text("You decided:").count()
    await story.press("2")
    category = await story.page.locator("input[name=category]:checked").get_attribute("value")
    await story.type_into("a", "limit")
    await story.press("v")
    await story.page.get_by_text(f"You decided: violates {category}").wait_for()
    again = await story.verdict(
        lambda each: bool(each.get("supersedes")) and each["decision"] == "violates"
    )
    assert (again["policy"]["category"], again["action"]) == (category, "limit")
    assert again["provenance"]["tier"] == "human"
    assert taken_back["retracts"]


async def _leave_to_a_lead(story: Story) -> None:
    left = await story.item()
    await story.type_into("w", "hard to say")
    await story.press("e")
    await story.page.locator(f"{ITEM}:not([value='{left}'])").wait_for(state="attached")


async def _read_only_people_can_do_none_of_that(
    browser: Browser, console: Served, item: str
) -> None:
    context = await browser.new_context()  # another person: other cookies
    stranger = await context.new_page()
    await sign_in(stranger, console, Role.READ_ONLY)
    stranger.set_default_timeout(STEP_S * 1_000)
    assert await stranger.get_by_role("link", name="Review").count() == 0
    await stranger.goto(f"{console.url}/review")
    await stranger.get_by_text("it needs the role reviewer").wait_for()
    sent = """async ([step, item]) => {
      const csrf = document.querySelector("meta[name=csrf]").content;
      const body = new URLSearchParams({ csrf, item, decision: "safe" });
      return (await fetch(`/review/${step}`, { method: "POST", body })).status;
    }"""
    for step in ("next", "take", "decide", "skip", "escalate", "undo"):
        assert await stranger.evaluate(sent, [step, item]) == 403, step
    await context.close()


async def test_the_page_is_fit_for_a_screen_reader_and_a_phone(
    browser: Browser, tmp_path: Path
) -> None:
    async with reviewing(tmp_path) as desk:
        desk.add(0, 4, decision="violates", category="S1", severity="high")
        page = await browser.new_page()
        await sign_in(page, desk.console, Role.REVIEWER)
        await page.goto(f"{desk.console.url}/review")
        await item_is(page, "idle")
        await page.keyboard.press("n")
        await item_is(page, "item")
        assert await serious_findings(page) == []
        await page.set_viewport_size(PHONE)
        overflow = "document.documentElement.scrollWidth - innerWidth"
        assert await page.evaluate(overflow) <= 0
        await page.get_by_role("button", name="dark", exact=True).click()
        await page.locator("html[data-theme=dark]").wait_for()
        await page.goto(f"{desk.console.url}/review")
        assert await serious_findings(page) == []
        for view in ("queue", "quality"):
            await page.goto(f"{desk.console.url}/review/{view}")
            assert await serious_findings(page) == [], view
            assert await page.evaluate(overflow) <= 0, view


async def test_fields_take_letters_keys_can_be_turned_off_and_the_page_comes_back_by_itself(
    browser: Browser, tmp_path: Path
) -> None:
    async with reviewing(tmp_path, review_break_items=3, review_break_s=60) as desk:
        desk.add(0, 4, decision="violates", category="S1", severity="high")
        page = await browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await sign_in(page, desk.console, Role.REVIEWER)
        await page.goto(f"{desk.console.url}/review")
        await item_is(page, "idle")
        await page.keyboard.press("n")
        await item_is(page, "item")
        await page.keyboard.press("a")
        await page.keyboard.type("vse")
        assert await page.locator("#action").input_value() == "vse"
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Keys are on").click()
        await page.keyboard.press("2")
        assert not await page.get_by_role("radio", name="S2").is_checked()
        await page.get_by_role("button", name="Keys are on").click()
        await page.keyboard.press("2")
        assert await page.get_by_role("radio", name="S2").is_checked()
        await page.keyboard.press("v")
        await page.get_by_text("You decided: violates S2").wait_for()
        [decision] = desk.kafka.written
        assert decision.outcome is not None
        assert (decision.outcome.category, decision.outcome.action) == ("S2", "vse")

        await item_is(page, "item")
        left = await page.locator(ITEM).get_attribute("value")
        await page.keyboard.press("e")
        await page.locator(f"{ITEM}:not([value='{left}'])").wait_for(state="attached")
        await item_is(page, "item")
        await page.keyboard.press("s")
        await item_is(page, "break")
        assert await serious_findings(page) == []
        desk.clock.advance(60)
        desk.kafka.away = True
        await page.reload()
        await page.locator("#review[data-state='away']").wait_for()
        desk.kafka.away = False
        await page.locator("#review[data-state='idle']").wait_for()
        assert errors == []

        stranger = await (await browser.new_context()).new_page()
        await sign_in(stranger, desk.console, Role.READ_ONLY)
        assert await stranger.get_by_role("link", name="Review").count() == 0
        await stranger.goto(f"{desk.console.url}/review")
        await stranger.get_by_text("it needs the role reviewer").wait_for()
