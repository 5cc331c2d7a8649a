"""Tries and measures drafts, and makes one live if its gates hold. What needs an engine is work of the bench."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from stream_guard.console.pages.policies.viewing import desk_of, show_desk
from stream_guard.console.workshop.jobs import golden_job, measure_job, promote_job, try_job
from stream_guard.policies.commits import check_checkout

if TYPE_CHECKING:
    from aiohttp import web

    from stream_guard.console.ask import Ask
    from stream_guard.console.sources.bench import Job
    from stream_guard.console.workshop.folder import Desk

__all__ = [
    "REASON_CHARACTERS_MAX",
    "WORK",
    "gates",
    "golden",
    "promote",
    "show_work",
    "stop_work",
    "try_draft",
    "work_part",
]

REASON_CHARACTERS_MAX = 1_000
WORK = "/policies-work"


async def try_draft(ask: Ask) -> web.Response:
    """Judge pasted posts, or the latest of a topic, by the live version and by the draft."""
    desk = await desk_of(ask)
    settings = ask.parts.settings
    pasted, topic = await ask.field("posts"), await ask.field("topic")
    if not pasted.strip() and topic not in settings.kafka.topics:
        return show_desk(ask, desk, status=422, because=ask.text("policies.no_posts_given"))
    limit = settings.console.try_posts_max
    count = await ask.whole_number("count", limit, limit)
    job = try_job(settings, desk, pasted, topic, count)
    return _begin(ask, desk, "try", job)


async def golden(ask: Ask) -> web.Response:
    """Measure the draft, or the live version if there is none, on the golden set."""
    desk = await desk_of(ask)
    return _begin(ask, desk, "golden", golden_job(ask.parts.settings, desk))


async def gates(ask: Ask) -> web.Response:
    """Measure the draft, and hold it against the gates. Nothing changes."""
    desk = await desk_of(ask)
    if await ask.field("digest") != desk.texts.digest:
        return show_desk(ask, desk, status=409, because=ask.text("policies.changed"))
    return _begin(ask, desk, "gates", measure_job(ask.parts.settings, desk))


async def promote(ask: Ask) -> web.Response:
    """Measure the draft again, and make it live if all gates hold."""
    desk = await desk_of(ask)
    reason = (await ask.field("reason")).strip()[:REASON_CHARACTERS_MAX]
    if not reason:
        return show_desk(ask, desk, status=422, because=ask.text("policies.no_reason"))
    if await ask.field("digest") != desk.texts.digest:
        return show_desk(ask, desk, status=409, because=ask.text("policies.changed"))
    if ask.parts.settings.console.commit:
        await asyncio.to_thread(check_checkout, desk.path)
    now_ms = ask.parts.clock.wall_ns() // 1_000_000
    job = promote_job(ask.parts.settings, desk, ask.who, reason, now_ms)
    return _begin(ask, desk, "promote", job)


def _begin(ask: Ask, desk: Desk, kind: str, job: Job) -> web.Response:
    bench = ask.sources.bench
    if bench.begin(ask.who, desk.live.id, kind, job) is None:
        other = bench.running
        because = ask.text("policies.busy", who=other.who if other else "")
        return show_desk(ask, desk, status=409, because=because)
    return ask.go(WORK)


async def show_work(ask: Ask) -> web.Response:
    """Show the person's latest work, and its result once it is done."""
    return ask.render("policies/work_page.html.j2", part=await work_part(ask))


async def work_part(ask: Ask) -> str:
    """Return the person's latest work as a part of a page that moves."""
    work = ask.sources.bench.of(ask.who)
    if work is not None and work.shown:
        return work.shown
    values: dict[str, Any] = {"work": work}
    if work is not None and work.result is not None and work.kind not in ("try", "again"):
        # The plots are rendered with every text escaped.
        values["plots"] = [Markup(plot) for plot in work.result.plots]  # noqa: S704
    part = ask.part("policies/work.html.j2", **values)
    if work is not None and work.state != "running":
        work.shown = part
    return part


async def stop_work(ask: Ask) -> web.Response:
    """Stop the person's work."""
    await ask.sources.bench.stop(ask.who)
    return ask.go(WORK)
