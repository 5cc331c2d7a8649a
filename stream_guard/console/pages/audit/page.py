"""The page Audit: everybody looks, leads export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.console.page import Page, get, post
from stream_guard.console.pages.audit.export import export, show_export
from stream_guard.console.security.roles import Role

if TYPE_CHECKING:
    from aiohttp import web

    from stream_guard.console.ask import Ask

__all__ = ["AUDIT"]

_SHOWN_MAX: Final = 200
"""Rows of a table, the latest."""


async def _show_people(ask: Ask) -> web.Response:
    await ask.sources.audit.people.look_anew()
    return _page(ask, "people", await _people(ask))


async def _show_breakers(ask: Ask) -> web.Response:
    await ask.sources.audit.breakers.look_anew()
    return _page(ask, "breakers", await _breakers(ask))


async def _show_versions(ask: Ask) -> web.Response:
    if _has_archive(ask):
        await ask.sources.audit.versions.look_anew()
    return _page(ask, "versions", await _versions(ask))


def _page(ask: Ask, view: str, part: str) -> web.Response:
    return ask.render("audit/page.html.j2", view=view, part=part)


async def _people(ask: Ask) -> str:
    source = ask.sources.audit.people
    return ask.part(
        "audit/people.html.j2", found=source.look(), health=source.state.health, rows_max=_SHOWN_MAX
    )


async def _breakers(ask: Ask) -> str:
    source = ask.sources.audit.breakers
    return ask.part(
        "audit/breakers.html.j2",
        found=source.look(),
        health=source.state.health,
        rows_max=_SHOWN_MAX,
    )


async def _versions(ask: Ask) -> str:
    source = ask.sources.audit.versions
    there = _has_archive(ask)
    return ask.part(
        "audit/versions.html.j2",
        there=there,
        found=source.look() if there else None,
        health=source.state.health,
        rows_max=_SHOWN_MAX,
    )


def _has_archive(ask: Ask) -> bool:
    return ask.parts.settings.policies.archive != "off"


AUDIT: Final = Page(
    "audit",
    (
        get("/audit", _show_people, Role.READ_ONLY),
        get("/audit/breakers", _show_breakers, Role.READ_ONLY),
        get("/audit/versions", _show_versions, Role.READ_ONLY),
        get("/audit/export", show_export, Role.LEAD),
        post("/audit/export", export, Role.LEAD),
    ),
    {"people": _people, "breakers": _breakers, "versions": _versions},
)
