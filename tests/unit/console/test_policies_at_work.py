"""The page Policies: trying a draft, its figures, the gates that stop it, going live and going back."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from stream_guard.console.layout.rendering import Layout
from stream_guard.console.pages.policies import past
from stream_guard.console.security.roles import Role
from stream_guard.console.workshop import folder as workshop_folder
from stream_guard.console.workshop import jobs
from stream_guard.offline.improve.promoting import promote as true_promote
from stream_guard.offline.improve.promoting import rollback as true_rollback
from stream_guard.policies.draft_editing import read_texts
from stream_guard.policies.drafts import make_draft
from stream_guard.policies.drafts import read_draft as true_read_draft
from stream_guard.settings import Settings
from tests.console import served
from tests.hang import HANG_S
from tests.unit.console.policies_folder import RULES, PoliciesFolder, form_of

if TYPE_CHECKING:
    from pathlib import Path

    from markupsafe import Markup

    from stream_guard.judging.archive.promotion import Promotion
    from stream_guard.policies.drafts import Draft
    from tests.console import Answer, Served, Visitor

DESK = "/policies/touting"
OWN = {"engine": "own"}
HOSTILE = "[violates] <img src=x onerror=alert(1)> javascript:alert(1) \u202egnp.exe"


@pytest.fixture
def folder(tmp_path: Path) -> PoliciesFolder:
    found = PoliciesFolder(tmp_path)
    # No studio of this machine is found.
    found.settings["studio"] = {"socket": tmp_path / "studio.sock"}
    return found


async def write(visitor: Visitor, **texts: str) -> None:
    """Save a draft; texts by the file's name, with ``_`` for the dot."""
    fields = form_of(await visitor.get(DESK), f"{DESK}/save")
    fields |= {f"text-{name.replace('_', '.')}": text for name, text in texts.items()}
    assert (await visitor.post(f"{DESK}/save", fields)).status == 303


async def work(console: Served, visitor: Visitor, what: str, **fields: str) -> Answer:
    """Press a button, wait for the end of what it begins, and return the page with the result."""
    page = await visitor.get(DESK)
    hidden = {"digest": form_of(page, f"{DESK}/save")["digest"]}
    begun = await visitor.post(f"{DESK}/{what}", hidden | fields)
    assert (begun.status, begun.headers.get("Location")) == (303, "/policies-work"), begun.words
    running = console.sources.bench.of("author-1")
    assert running is not None
    assert running.task is not None
    async with asyncio.timeout(HANG_S):
        await asyncio.wait([running.task])
    return await visitor.get("/policies-work")


async def test_posts_are_judged_by_both_texts_and_flips_come_first(folder: PoliciesFolder) -> None:
    async with (
        served(folder.settings, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        posts = f'fine\n\n[violates] a quote\n{{"id": "7", "text": "{HOSTILE}"}}\n{{"no": 1}}\n'
        alone = await work(console, visitor, "try", posts=posts)
        assert "3 posts were judged by what is live" in alone.words
        await write(visitor, rules_yaml=RULES % "quote")
        page = await work(console, visitor, "try", posts=posts)
        assert "1 of 3 posts get another decision" in page.words
        assert "1 are no posts" in page.words
        rows = page.tree.xpath("//table[@class='tried']/tbody/tr")
        cells = [" ".join(cell.text_content().split()) for cell in rows[0]]
        assert cells[0] == "[violates] a quote"
        assert cells[1].startswith("violates TT1 (TT1.a) by scripted")
        assert cells[2].startswith("safe")
        assert "by rules" in cells[2]
        assert cells[3] == "flip"
        assert len(rows) == 3
        assert "<img" not in page.text
        assert "\u202e" not in page.text


async def test_a_result_is_rendered_once_however_many_look_and_how_long(
    folder: PoliciesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[str] = []
    true_one = Layout.render

    def counted(self: Layout, template: str, **values: Any) -> Markup:  # noqa: ANN401 - the same
        rendered.append(template)
        return true_one(self, template, **values)

    monkeypatch.setattr(Layout, "render", counted)
    async with (
        served(folder.settings, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        page = await work(console, visitor, "try", posts="fine")
        part = (await visitor.event("policies.work"))["policies.work"]
        assert "1 posts were judged by what is live" in part
        assert part in page.text
        assert rendered.count("policies/work.html.j2") == 1


async def test_too_many_posts_are_cut_and_none_is_refused(folder: PoliciesFolder) -> None:
    async with (
        served(folder.settings, try_posts_max=2, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        assert (await visitor.post(f"{DESK}/try", {"posts": " \n"})).status == 422
        page = await work(console, visitor, "try", posts="a\nb\nc\n")
        assert "2 posts were judged" in page.words
        assert "1 more posts were left out" in page.words
        assert (
            "there is no post to judge" in (await work(console, visitor, "try", posts="{}")).words
        )


@pytest.mark.parametrize("count", ["9" * 5_000, "0" * 5_000 + "1", "0", "-1", "1.5", "\u0661"])
async def test_a_number_of_posts_is_a_number_and_has_a_limit(
    folder: PoliciesFolder, count: str
) -> None:
    async with (
        served(folder.settings, try_posts_max=2, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        begun = await visitor.post(f"{DESK}/try", {"posts": "a", "count": count})
        assert begun.status == (303 if count.endswith(("9", "01")) else 400)


async def test_without_an_engine_the_page_says_what_to_do(folder: PoliciesFolder) -> None:
    async with served(folder.settings) as console, console.visitor(Role.AUTHOR) as visitor:
        page = await work(console, visitor, "try", posts="a")
        assert "start stream-guard studio beside it, or set console.engine to own" in page.words


async def test_a_gate_stops_a_draft_and_a_better_one_goes_live_and_returns(
    folder: PoliciesFolder,
) -> None:
    live = folder.live
    async with (
        served(folder.settings, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        await write(visitor, rules_yaml=RULES % "violates")  # and what does violate is safe, too
        checked = await work(console, visitor, "gates")
        stopped = await work(console, visitor, "promote", reason="r")
        for page in (checked, stopped):
            assert "A gate stops this draft" in page.words
            assert (
                "min_f1: does not hold F1 on the golden set must be at least 0.900." in page.words
            )
        assert folder.live == live
        await write(visitor, rules_yaml=RULES % "quote")
        held = await work(console, visitor, "gates")
        assert "Every gate holds" in held.words
        assert "0 become wrong" in held.words
        assert held.tree.xpath("//svg[@id='bars']")
        assert folder.live == live
        made = await work(console, visitor, "promote", reason="quotes <b>are</b> safe")
        assert "The draft is live as version" in made.words
        new = folder.live
        assert new.rules is not None
        past = await visitor.get(f"{DESK}/history")
        assert "quotes <b>are</b> safe" in past.words
        assert "author-1" in past.words
        back = form_of(past, f"{DESK}/rollback") | {"reason": "too kind"}
        assert (await visitor.post(f"{DESK}/rollback", back)).status == 303
        assert folder.live == live
        assert (await visitor.post(f"{DESK}/rollback", back | {"live": new.sha256})).status == 409
        assert folder.live == live
        assert "too kind" in (await visitor.get(f"{DESK}/history")).words


async def test_a_draft_that_changed_since_it_was_shown_is_not_promoted(
    folder: PoliciesFolder,
) -> None:
    live = folder.live
    async with (
        served(folder.settings, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        await write(visitor, rules_yaml=RULES % "quote")
        old = form_of(await visitor.get(DESK), f"{DESK}/promote") | {"reason": "r"}
        await write(visitor, rules_yaml=RULES % "quotes")
        for what in ("promote", "gates"):
            assert (await visitor.post(f"{DESK}/{what}", old)).status == 409
        assert (await visitor.post(f"{DESK}/promote", old | {"reason": " "})).status == 422
        assert console.sources.bench.of("author-1") is None
        assert folder.live == live


async def test_one_piece_of_work_at_a_time_and_it_can_be_stopped(folder: PoliciesFolder) -> None:
    async with served(folder.settings, **OWN) as console:
        waits = asyncio.Event()

        async def forever(_judge: object, _progress: object) -> None:
            waits.set()
            await asyncio.Event().wait()

        bench = console.sources.bench
        assert bench.begin("author-1", "touting", "try", forever) is not None
        await waits.wait()
        async with console.visitor(Role.LEAD) as lead:
            busy = await lead.post(f"{DESK}/golden", {})
            assert busy.status == 409
            assert "in use by author-1" in busy.words
        async with console.visitor(Role.AUTHOR) as visitor:
            assert "Running." in (await visitor.event("policies.work"))["policies.work"]
            assert (await visitor.post("/policies-work/stop", {})).status == 303
            assert "stopped" in (await visitor.get("/policies-work")).words
            page = await work(console, visitor, "golden")
            assert "3 labelled posts of" in page.words


async def test_a_stop_while_a_draft_goes_live_does_not_hide_that_it_is_live(
    folder: PoliciesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(*given: Any) -> Promotion:  # noqa: ANN401 - whatever a promotion needs
        begun.set()
        await goes_on.wait()
        return await true_promote(*given)

    monkeypatch.setattr(jobs, "make_live", slow)
    live = folder.live
    async with (
        served(folder.settings, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        await write(visitor, rules_yaml=RULES % "quote")
        promote = form_of(await visitor.get(DESK), f"{DESK}/promote") | {"reason": "r"}
        assert (await visitor.post(f"{DESK}/promote", promote)).status == 303
        bench = console.sources.bench
        async with asyncio.timeout(HANG_S):
            await begun.wait()
            stop = asyncio.create_task(bench.stop("author-1"))
            await asyncio.sleep(0)  # the stop has begun
            shutil.rmtree(folder.draft)
            goes_on.set()
            await stop
        assert folder.live != live
        assert "The draft is live as version" in (await visitor.get("/policies-work")).words


async def test_a_draft_that_is_started_again_while_one_goes_live_does_not_follow_it(
    folder: PoliciesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = folder.live

    async def meanwhile(*given: Any) -> Promotion:  # noqa: ANN401 - whatever a promotion needs
        make_draft(folder.path, live, fresh=True)
        return await true_promote(*given)

    monkeypatch.setattr(jobs, "make_live", meanwhile)
    async with (
        served(folder.settings, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        await write(visitor, rules_yaml=RULES % "quote")
        made = await work(console, visitor, "promote", reason="r")
        assert "The draft is live as version" in made.words
        assert "went live after this draft was made" in (await visitor.get(DESK)).words


async def test_a_version_goes_back_to_its_end_also_when_the_console_stops(
    folder: PoliciesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(*given: Any) -> Promotion:  # noqa: ANN401 - whatever a rollback needs
        begun.set()
        await goes_on.wait()
        return await true_rollback(*given)

    monkeypatch.setattr(past, "go_back", slow)
    live = folder.live
    async with (
        served(folder.settings, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        await write(visitor, rules_yaml=RULES % "quote")
        await work(console, visitor, "promote", reason="r")
        assert folder.live != live
        back = form_of(await visitor.get(f"{DESK}/history"), f"{DESK}/rollback") | {"reason": "r"}
        asked = asyncio.create_task(visitor.post(f"{DESK}/rollback", back))
        async with asyncio.timeout(HANG_S):
            await begun.wait()
            stop = asyncio.create_task(console.server.stop())
            await asyncio.wait([asked])  # the server has given up this request
            assert asked.exception() is not None
            goes_on.set()
            await stop
        assert folder.live == live


async def test_the_digest_of_a_desk_is_of_the_draft_that_would_be_measured(
    folder: PoliciesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_draft(folder.path, folder.live)
    text = folder.draft / "policy.md"

    def then_edited(*given: Any, **options: Any) -> Draft:  # noqa: ANN401 - whatever a draft needs
        found = true_read_draft(*given, **options)
        text.write_text(text.read_text() + "\n- TT0.b is a gift\n")
        return found

    monkeypatch.setattr(workshop_folder, "read_draft", then_edited)
    desk = await asyncio.to_thread(
        workshop_folder.open_desk, Settings(**folder.settings), "touting"
    )
    assert desk.draft is not None
    assert desk.texts.files["policy.md"].encode() == desk.draft.policy.files["policy.md"]
    assert desk.texts.digest != read_texts(folder.path, "touting").digest


async def test_what_goes_live_is_committed_in_a_git_checkout(folder: PoliciesFolder) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(folder.path), "-c", "user.name=t", "-c", "user.email=t@t"]
        return subprocess.run([*command, *words], check=True, capture_output=True, text=True).stdout

    async with (
        served(folder.settings, commit=True, **OWN) as console,
        console.visitor(Role.AUTHOR) as visitor,
    ):
        await write(visitor, rules_yaml=RULES % "quote")
        promote = form_of(await visitor.get(DESK), f"{DESK}/promote") | {"reason": "r"}
        refused = await visitor.post(f"{DESK}/promote", promote)
        assert refused.status == 422
        assert "not a git repository" in refused.words
        await asyncio.to_thread(git, "init", "--quiet")
        await asyncio.to_thread(git, "add", "touting")
        await asyncio.to_thread(git, "commit", "--quiet", "-m", "first")
        made = await work(console, visitor, "promote", reason="quotes are safe")
        assert "The draft is live" in made.words
        assert "not committed" not in made.words
        said = await asyncio.to_thread(git, "log", "-1", "--stat", "--format=%an%n%B")
        assert said.startswith("author-1\nPromote touting to ")
        assert "quotes are safe" in said
        assert "touting/rules.yaml" in said
        assert "_drafts" not in said
