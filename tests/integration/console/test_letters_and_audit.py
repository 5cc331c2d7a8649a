"""Dead letters and the audit in a real browser, beside a real broker and consumer."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from aiokafka import AIOKafkaProducer

from stream_guard.console.security.roles import Role
from stream_guard.kafka.audit_writer import AuditWriter
from stream_guard.kafka.decision_writer import write_decision
from stream_guard.records.review_audit import build_audit_entry
from stream_guard.settings import Settings
from stream_guard.stream.breaker.entries import TripEntry
from stream_guard.stream.breaker.limits import Scope
from tests.console import PHONE, serious_findings, served, sign_in
from tests.decisions import make_decision
from tests.integration.harness import ROOT, deploy, produce, read, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.async_api import Browser, Page

    from stream_guard.testing import Broker

STEP_S = 120
HOSTILE = "<img src=x onerror=alert(1)> \u202egnp"
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


async def is_fit(page: Page, address: str) -> None:
    """Check a page by axe-core, and on a phone."""
    await page.goto(address)
    assert await serious_findings(page) == [], address
    size = page.viewport_size
    await page.set_viewport_size(PHONE)
    assert await page.evaluate(OVERFLOW) <= 0, f"{address} is wider than a phone"
    await page.set_viewport_size(size or {"width": 1280, "height": 720})


async def test_a_lead_replays_dead_letters_of_one_reason_in_a_browser(
    browser: Browser, broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    place = deploy(broker.bootstrap_servers, new_topic)
    bad = [b"{", orjson.dumps({"id": HOSTILE}), orjson.dumps({"id": "2"}), None]
    await produce(place.bootstrap, place.posts, bad)
    kafka = {
        "bootstrap_servers": place.bootstrap,
        "topics": [place.posts],
        "verdict_topic": place.verdicts,
        "dead_letter_topic": place.dead,
    }
    with running(place, tmp_path / "log") as run:
        await read(
            place.bootstrap, [place.dead], lambda got: len(got) >= len(bad), run=run, hang_s=STEP_S
        )
        assert run.end() == 0, run.tail()
    async with served({"kafka": kafka}, topics_interval_s=0.2) as console:
        page = await browser.new_page()
        alerts: list[str] = []
        page.on("dialog", lambda dialog: alerts.append(dialog.message))
        await sign_in(page, console)
        page.set_default_timeout(STEP_S * 1_000)
        await page.goto(f"{console.url}/letters")
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name="missing_field"))
        await row.get_by_role("cell", name="2", exact=True).wait_for()
        await page.get_by_text("no field at '/text' (post.text)").first.wait_for()
        await is_fit(page, f"{console.url}/letters")

        count = page.get_by_role("button", name="Count what a replay of missing_field would send")
        await count.focus()
        await page.keyboard.press("Enter")
        await page.get_by_text("A replay would send 2 records").wait_for()
        button = page.get_by_role("button", name="Replay all with the reason missing_field")
        await button.focus()
        await page.keyboard.press("Enter")
        await page.get_by_text("2 records were sent back").wait_for()
        assert place.posts in await page.locator("[data-live='letters.replay']").inner_text()
        await read(
            place.bootstrap, [place.posts], lambda got: len(got) >= len(bad) + 2, hang_s=STEP_S
        )
        # The list says so by itself, and a second replay sends nothing.
        await row.get_by_role("cell", name="2", exact=True).nth(1).wait_for()
        await button.click()
        await page.get_by_text("2 dead letters were replayed before").wait_for()
        await page.get_by_text("0 records were sent back").wait_for()
        assert await serious_findings(page) == []

        await page.goto(f"{console.url}/letters?reason=json")
        await page.locator("table a[href^='/letters/']:has(time)").first.click()
        await page.get_by_text("not JSON", exact=False).first.wait_for()
        await page.get_by_role("button", name="Show the content").click()
        await page.locator("pre").last.get_by_text("{", exact=True).wait_for()
        assert await serious_findings(page) == []
        assert alerts == []


async def test_the_audit_shows_what_the_topics_hold_and_exports_statements(
    browser: Browser,
    broker: Broker,
    new_topic: Callable[..., str],
    tmp_path: Path,
) -> None:
    kafka = {
        "bootstrap_servers": broker.bootstrap_servers,
        "verdict_topic": new_topic("verdicts"),
        "decision_topic": new_topic("decisions", configs={"cleanup.policy": "compact"}),
        "audit_topic": new_topic("audit"),
        "breaker_topic": new_topic("breaker", partitions=1),
    }
    sections = {
        "kafka": kafka,
        "policies": {
            "path": ROOT / "policies",
            "archive": "folder",
            "archive_path": tmp_path / "archive",
        },
    }
    settings = Settings(**sections)  # type: ignore[arg-type]
    await write_decision(settings.kafka, make_decision(reason=HOSTILE))
    trail = AuditWriter(settings.kafka)
    entry = build_audit_entry(
        "0" * 32, at_ms=1, who="r-1", role="reviewer", what="show", item_id="item-9", allowed=True
    )
    await trail.write(entry)
    await trail.close()
    trip = TripEntry(Scope("hour", "spam"), 0, 1, 1_700_000_000_000, "actions_max", 11, 10)
    key, value = trip.encode()
    await _send(broker, str(kafka["breaker_topic"]), key, value)

    mapping = ROOT / "examples" / "dsa-mapping.yaml"
    async with served(sections, topics_interval_s=0.2, dsa_mapping=mapping) as console:
        context = await browser.new_context(accept_downloads=True)
        page = await context.new_page()
        alerts: list[str] = []
        page.on("dialog", lambda dialog: alerts.append(dialog.message))
        await sign_in(page, console)
        page.set_default_timeout(STEP_S * 1_000)
        for view, says in (
            ("", "item-9"),
            ("/breakers", "actions_max"),
            ("/versions", "before the first record"),
            ("/export", "Download"),
        ):
            await page.goto(f"{console.url}/audit{view}")
            await page.get_by_text(says).first.wait_for()
            await is_fit(page, f"{console.url}/audit{view}")
        async with page.expect_download() as found:
            await page.get_by_role("button", name="Download").click()
        download = await found.value
        assert download.suggested_filename.startswith("dsa-")
        with zipfile.ZipFile(Path(await download.path())) as archive:
            assert orjson.loads(archive.read("summary.json"))["verdicts"] == 0

        stranger = await (await browser.new_context()).new_page()
        await sign_in(stranger, console, Role.READ_ONLY)
        await stranger.goto(f"{console.url}/audit")
        await stranger.get_by_text("item-9").wait_for()
        assert await stranger.get_by_role("link", name="DSA export").count() == 0
        await stranger.goto(f"{console.url}/audit/export")
        await stranger.get_by_text("it needs the role lead").wait_for()
        assert alerts == []


async def _send(broker: Broker, topic: str, key: bytes, value: bytes | None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, key=key)
    finally:
        await producer.stop()
