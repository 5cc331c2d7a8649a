"""The page Now: its address, and its parts that move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_guard.console.page import Page, get
from stream_guard.console.pages.now.cascade import draw
from stream_guard.console.security.roles import Role

if TYPE_CHECKING:
    from aiohttp import web

    from stream_guard.console.ask import Ask

__all__ = ["NOW"]


async def _show(ask: Ask) -> web.Response:
    return ask.render(
        "now/page.html.j2",
        figures=await _figures(ask),
        faults=await _faults(ask),
        feed=await _feed(ask),
    )


async def _figures(ask: Ask) -> str:
    figures = ask.sources.board.figures()
    return ask.part("now/figures.html.j2", now=figures, picture=draw(figures.tiers))


async def _faults(ask: Ask) -> str:
    base = ask.parts.settings.console.guide_url
    return ask.part(
        "now/faults.html.j2",
        faults=ask.sources.faults.lasting,
        base=None if base is None else base.rstrip("/"),
        unread=not any(replica.figures for replica in ask.sources.replicas.all.values()),
    )


async def _feed(ask: Ask) -> str:
    verdicts = ask.sources.verdicts
    return ask.part("now/feed.html.j2", feed=verdicts.feed, follows=verdicts.follows)


NOW = Page(
    "now",
    (get("/now", _show, Role.READ_ONLY),),
    {"faults": _faults, "figures": _figures, "feed": _feed},
)
