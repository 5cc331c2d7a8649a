"""A post arrives, is judged by the real service, and appears on Now and Verdicts in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.console.security.roles import Role
from tests.console import PHONE, serious_findings, served, sign_in
from tests.integration.harness import deploy, post, produce, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.async_api import Browser

    from stream_guard.testing import Broker

DEADLINE_S = 120  # of each wait for the page
TEXT = "[violates] <b>pay</b> 300 for it"


async def test_a_post_appears_on_now_and_its_verdict_tells_its_story(
    broker: Broker, new_topic: Callable[..., str], browser: Browser, tmp_path: Path
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic, STREAM_GUARD_POLICIES__ARCHIVE="off")
    kafka = {
        "bootstrap_servers": place.bootstrap,
        "topics": [place.posts],
        "verdict_topic": place.verdicts,
    }
    settings = {"kafka": kafka, "policies": {"archive": "off"}}
    with running(place, tmp_path / "log") as run:
        async with served(settings, feed_verdicts_max=20) as console:
            page = await browser.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda line: errors.append(line.text) if line.type == "error" else 0)
            await sign_in(page, console, Role.REVIEWER)
            page.set_default_timeout(DEADLINE_S * 1_000)
            await page.goto(f"{console.url}/now")
            await produce(place.bootstrap, place.posts, [post(0, TEXT)])
            link = page.locator("[data-live='now.feed']").get_by_role("link", name="p0").first
            await link.wait_for()
            assert await serious_findings(page) == []
            await page.goto(f"{console.url}/verdicts")
            await page.get_by_label("Content id").fill("p0")
            await page.keyboard.press("Enter")
            await page.get_by_text("records were read").wait_for()
            assert "p0" not in page.url
            assert await serious_findings(page) == []
            await page.get_by_role("table").get_by_role("link", name="p0").first.click()
            await page.get_by_role("heading", name="What decided").wait_for()
            assert await page.get_by_text(TEXT).count() == 0
            assert await serious_findings(page) == []
            await page.get_by_role("button", name="Show the text").press("Enter")
            await page.get_by_text(TEXT).wait_for()
            await page.set_viewport_size(PHONE)
            overflow = "document.documentElement.scrollWidth - innerWidth"
            assert await page.evaluate(overflow) <= 0
            assert await serious_findings(page) == []
            assert errors == []
        assert run.end() == 0, run.tail()
