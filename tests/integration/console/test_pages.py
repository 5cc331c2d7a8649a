"""The console in a real browser: signing in, what moves, light and dark, a phone, the keyboard, and axe-core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.console.pages.registry import PAGES
from stream_guard.console.security.roles import Role
from tests.console import PHONE, TOKENS, Metrics, serious_findings, served, sign_in

if TYPE_CHECKING:
    from playwright.async_api import Browser

VERDICTS = (
    'stream_guard_verdicts_total{decision="violates",policy="p",tier="rules",mode="live"} %d\n'
)


async def test_figures_move_a_replica_goes_and_comes_back_and_so_does_the_console(
    browser: Browser,
) -> None:
    async with Metrics(VERDICTS % 7) as replica:
        async with served(metrics_urls=[replica.url]) as console:
            page = await browser.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda line: errors.append(line.text) if line.type == "error" else 0)
            await sign_in(page, console, Role.READ_ONLY)
            assert TOKENS[Role.READ_ONLY] not in page.url
            cell = page.get_by_role("row", name="violates").get_by_role("cell").last
            await cell.get_by_text("7", exact=True).wait_for()
            replica.text = VERDICTS % 1234
            await cell.get_by_text("1,234", exact=True).wait_for()
            assert errors == []
            await replica.go()
            notice = page.get_by_text("Metrics of the service: cannot be read since")
            await notice.wait_for()
            await replica.come()
            await notice.wait_for(state="detached")
        lost = page.locator("#connection", has_text="The console does not answer since")
        await lost.wait_for()


async def test_every_page_is_fit_for_a_screen_reader_in_both_colours_and_on_a_phone(
    browser: Browser,
) -> None:
    async with Metrics(VERDICTS % 7) as replica, served(metrics_urls=[replica.url]) as console:
        page = await browser.new_page()
        await page.goto(f"{console.url}/sign-in")
        assert await serious_findings(page) == []
        await sign_in(page, console)
        for theme in ("light", "dark"):
            await page.get_by_role("button", name=theme, exact=True).click()
            await page.locator(f"html[data-theme={theme}]").wait_for()
            for each in PAGES:
                await page.goto(f"{console.url}/{each.slug}")
                assert await serious_findings(page) == [], (each.slug, theme)
        await page.set_viewport_size(PHONE)
        for each in PAGES:
            await page.goto(f"{console.url}/{each.slug}")
            overflow = "document.documentElement.scrollWidth - innerWidth"
            assert await page.evaluate(overflow) <= 0, f"{each.slug} is wider than a phone"
            assert await serious_findings(page) == [], each.slug


async def test_the_keyboard_reaches_the_content_first_and_axe_sees_a_fault(
    browser: Browser,
) -> None:
    async with served() as console:
        page = await browser.new_page()
        await sign_in(page, console)
        await page.goto(f"{console.url}/now")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "content"
        await page.evaluate("document.querySelector('html').removeAttribute('lang')")
        assert [each.split(":")[0] for each in await serious_findings(page)] == ["html-has-lang"]
