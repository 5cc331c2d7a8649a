"""An author in a real browser, beside a real broker and the demo model: a gate, a better draft, and the next post."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest

from stream_guard.cli.demo import MODEL, POLICIES
from stream_guard.console.security.roles import Role
from stream_guard.policies.store import load_policies
from tests.console import serious_findings, served, sign_in
from tests.integration.harness import deploy_demo_engine, post, produce, read, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.async_api import Browser, Page

    from stream_guard.testing import Broker
    from tests.console import Served
    from tests.integration.harness import Deployment

pytestmark = [
    # What vLLM's own imports warn about, here in the tests' process.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

DESK: Final = "/policies/house-rules"
TEXT: Final = (POLICIES / "house-rules" / "policy.md").read_text("utf-8")
RULE: Final = "HR2.a Posts about scooters"
SCOOTERS: Final = ("The best scooter ever.", "Does anybody have a scooter?")
UMBRELLAS: Final = ("I saw an umbrella on my way home.", "Umbrellas! I bought one yesterday.")
QUIET: Final = ("We talked about gardening all night.",)
GOLDEN: Final = "id,text,label\n" + "".join(
    f"{number},{text},{label}\n"
    for number, (text, label) in enumerate(
        [(text, "HR0") for text in (*SCOOTERS, *QUIET)] + [(text, "HR2") for text in UMBRELLAS]
    )
)
"""What the author wants: umbrellas are out, scooters are in."""
POSTS: Final = (*SCOOTERS, *UMBRELLAS, *QUIET)
ENGINE: Final[dict[str, Any]] = {
    "kind": "vllm",
    "model": str(MODEL),
    "max_num_seqs": 8,
    "reasoning_tokens_max": 96,
    "rationale_tokens_max": 48,
}


def write_folder(path: Path) -> Path:
    """Write the demo's house rules with a golden set of what they should become, and a gate."""
    live = path / "house-rules"
    live.mkdir(parents=True)
    (live / "policy.md").write_text(TEXT, "utf-8")
    (live / "policy.yaml").write_text("golden_set: golden.csv\ngates: {min_f1: 0.9}\n", "utf-8")
    (live / "golden.csv").write_text(GOLDEN, "utf-8")
    (path / "routes.yaml").write_text("default: [house-rules]\n", "utf-8")
    return path


async def verdict_of(place: Deployment, name: str) -> dict[str, Any]:
    """Wait for the verdict on a post."""

    def found(records: list[Any]) -> list[dict[str, Any]]:
        verdicts = [orjson.loads(record.value) for record in records]
        return [verdict for verdict in verdicts if verdict["content"]["id"] == name]

    return found(await read(place.bootstrap, [place.verdicts], lambda got: bool(found(got))))[0]


async def write_rule(page: Page, console: Served, rule: str) -> None:
    """Edit the rule, wait until the console has checked it, and save the draft."""
    await page.goto(console.url + DESK)
    await page.get_by_role("textbox", name="policy.md").fill(TEXT.replace(RULE, rule))
    await page.get_by_label("Differences in policy.md").get_by_text(rule).wait_for()
    # The page may say so already, of the draft before, and a click does not wait for the next page.
    async with page.expect_navigation():
        await page.get_by_role("button", name="Save the draft").click()
    await page.get_by_text("This is the draft.").wait_for()


async def work_ends(page: Page, words: str) -> None:
    """Wait until a trial or a measurement says this; fail at once where it was not done."""
    not_done = page.get_by_text("Not done:")
    await page.get_by_text(words).or_(not_done).first.wait_for()
    assert not await not_done.count(), await not_done.first.inner_text()


async def promote(page: Page, console: Served, why: str) -> None:
    await page.goto(console.url + DESK)
    await page.locator("form[action$='/promote']").get_by_label("Why").fill(why)
    await page.get_by_role("button", name="Measure and promote").click()


async def test_an_author_is_stopped_by_a_gate_mends_the_draft_and_the_next_post_shows_it(
    broker: Broker, new_topic: Callable[..., str], browser: Browser, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "policies")
    archive = tmp_path / "archive"
    place = deploy_demo_engine(
        broker.bootstrap_servers,
        new_topic,
        folder,
        STREAM_GUARD_POLICIES__ARCHIVE="folder",
        STREAM_GUARD_POLICIES__ARCHIVE_PATH=str(archive),
        STREAM_GUARD_CASCADE__TIERS='["safeguard"]',
        **{f"STREAM_GUARD_ENGINE__{name.upper()}": str(value) for name, value in ENGINE.items()},
    )
    settings = {
        "kafka": {
            "bootstrap_servers": place.bootstrap,
            "topics": [place.posts],
            "verdict_topic": place.verdicts,
        },
        "policies": {"path": folder, "archive": "folder", "archive_path": archive},
        "cascade": {"tiers": ["safeguard"], "ladder": []},
        "engine": ENGINE,
        "studio": {"socket": tmp_path / "studio.sock"},
    }
    await produce(place.bootstrap, place.posts, [post(n, text) for n, text in enumerate(POSTS)])
    with running(place, tmp_path / "log") as run:
        async with served(settings, engine="own") as console:
            assert (await verdict_of(place, "p0"))["decision"] == "violates"
            page = await browser.new_page()
            await sign_in(page, console, Role.AUTHOR)
            await write_rule(page, console, "HR2.a Posts about bread")
            assert await serious_findings(page) == []
            await page.get_by_role("button", name="Judge the posts").click()
            await work_ends(page, "2 of 5 posts get another decision")
            assert await serious_findings(page) == []
            await promote(page, console, "scooters are fine")
            await work_ends(page, "A gate stops this draft")
            await page.get_by_text("F1 on the golden set must be at least 0.900").wait_for()
            assert await serious_findings(page) == []
            await write_rule(page, console, "HR2.a Posts about umbrellas")
            await promote(page, console, "umbrellas are not")
            await work_ends(page, "The draft is live as version")
            await asyncio.to_thread(run.wait_for, "policies_switched")
            await produce(place.bootstrap, place.posts, [post(9, UMBRELLAS[0])])
            after = await verdict_of(place, "p9")
            live = load_policies(folder).policies["house-rules"]
            assert after["decision"] == "violates"
            assert after["policy"]["sha256"] == live.sha256
            assert "HR2.a" in after["policy"]["rule_ids"]
        assert run.end() == 0, run.tail()
