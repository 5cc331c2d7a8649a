"""What pages are made of: the catalogue of texts, escaping, files that a page loads, and live parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from jinja2 import UndefinedError

from stream_guard.console.layout.filters import FILTERS
from stream_guard.console.layout.rendering import Layout
from stream_guard.console.layout.static_files import StaticFiles
from stream_guard.console.pages.registry import PAGES
from stream_guard.console.security.openid import Refusal
from stream_guard.console.security.roles import Role
from stream_guard.console.sources.faults import RULES
from stream_guard.console.sources.state import Health
from stream_guard.console.texts.catalogue import Texts, load_texts
from stream_guard.policies.metadata import Gates
from tests.console import Metrics, served

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_guard.console.page import Page

HOUSE = Path(__file__).parents[3] / "stream_guard" / "console"
KEY = re.compile(r"""(?:\bt|\btext|_refused)\([^)"']*["']([a-z_]+\.[a-z0-9_]+)["']\s*[,)]""")
"""A text that a template (``t("now.title")``) or a module (``ask.text("now.title")``) names."""
FACTS = (
    *("id", "action", "category", "rules", "severity", "review", "content", "author", "tenant"),
    *("language", "record", "tier", "model", "effort", "parse_status", "degraded", "tokens"),
)
"""Of a verdict, as its page names them."""
MADE = {
    *(f"{page.slug}.title" for page in PAGES),
    *(f"layout.role_{role.name.lower()}" for role in Role),
    *(f"layout.theme_{theme}" for theme in ("auto", "light", "dark")),
    *(f"layout.source_{health}" for health in (Health.STALE, Health.AWAY)),
    *(f"now.{what}_{rule.name}" for rule in RULES for what in ("fault", "remedy")),
    *(f"now.replica_{state}" for state in ("ready", "starting", "away")),
    *(f"now.pressure_{level}" for level in range(4)),
    *(f"sign_in.{why}" for why in Refusal),
    *(f"policies.kind_{kind}" for kind in ("try", "golden", "gates", "promote")),
    *(f"audit.how_{how}" for how in ("promote", "rollback", "edit", "first")),
    *(f"policies.kind_{kind}" for kind in ("try", "golden", "gates", "promote", "again")),
    *(f"verdicts.by_{field}" for field in ("id", "content", "author", "policy", "rule")),
    *(f"verdicts.event_{event}" for event in ("retraction", "expiry")),
    *(f"verdicts.time_{name}" for name in ("event", "consumed", "judged", "published")),
    *(f"verdicts.topic_{topic}" for topic in ("live", "shadow")),
    *(f"verdicts.{name}" for name in FACTS),
    *(f"policies.gate_{gate}" for gate in Gates.model_fields),
}
"""Keys that templates put together. Those of sources are added by their names."""
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; javascript:alert(1) "
    "\u202egnp.exe\u2066 \x1b[31m \u200b"
)


def used_keys() -> set[str]:
    """Return every key of a text that templates and modules name."""
    files = [*HOUSE.rglob("*.py"), *HOUSE.rglob("*.j2")]
    return {key for file in files for key in KEY.findall(file.read_text("utf-8"))}


def layout() -> Layout:
    return Layout(load_texts(), StaticFiles())


async def test_every_text_is_used_and_every_used_text_exists() -> None:
    async with served() as console:
        sources = {f"sources.{state.name}" for state in console.sources.states()}
    used = used_keys() | MADE | sources
    texts = load_texts()
    assert sorted(used - texts.keys) == []
    assert sorted(texts.keys - used) == []


def test_a_text_that_brings_markup_or_values_with_it_is_escaped() -> None:
    one = Layout(Texts({"a.b": "<b>{who}</b>"}), StaticFiles())
    assert one._text("a.b", who="<i>") == "&lt;b&gt;&lt;i&gt;&lt;/b&gt;"
    with pytest.raises(KeyError):
        one._text("a.c")


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        layout().render("layout/part_failed.html.j2")


def test_text_of_other_people_is_escaped_and_its_controls_are_visible() -> None:
    html = layout().render("layout/part_failed.html.j2", because=HOSTILE)
    assert "<script" not in html
    assert "<img" not in html
    assert "\u202e" not in html
    assert "\\u202e" in html
    assert "\\x1b" in html


def test_a_long_text_is_cut_with_a_way_to_see_all() -> None:
    template = layout()._environment.from_string(
        "{% from 'layout/macros.html.j2' import untrusted %}{{ untrusted(text) }}"
    )
    html = template.render(text="a" * 600 + "<" * 1_000_000)
    shown, _, rest = html.partition("<details")
    assert shown.count("a") == 600 + shown.count("class")
    assert "show all (1000600 characters)" in rest
    assert rest.count("&lt;") == 1_000_000
    assert "<details" not in template.render(text="a" * 600)


async def test_files_are_kept_by_browsers_for_ever_and_named_by_their_content() -> None:
    async with served() as console, console.visitor(None) as visitor:
        page = (await visitor.get("/sign-in")).tree
        for address in page.xpath("//script/@src | //link/@href"):
            answer = await visitor.get(address)
            assert answer.status == 200, address
            assert "immutable" in answer.headers["Cache-Control"]
        gone = await visitor.get("/static/0000000000000000/console.css")
        assert gone.status == 404


def test_scripts_load_only_what_is_there() -> None:
    static = HOUSE / "layout" / "static"
    for script in static.glob("*.js"):
        for name in re.findall(r'from "(.+?)"', script.read_text("utf-8")):
            assert (static / name).is_file(), f"{script.name} loads {name}"


async def test_the_appearance_is_kept_in_a_cookie() -> None:
    async with served() as console, console.visitor() as visitor:
        assert (await visitor.get("/now")).tree.get("data-theme") == "auto"
        assert (await visitor.post("/appearance", {"theme": "dark"})).status == 303
        assert (await visitor.get("/now")).tree.get("data-theme") == "dark"
        assert (await visitor.post("/appearance", {"theme": "<b>"})).status == 400


async def test_a_source_that_goes_away_is_named_with_its_time_and_comes_back() -> None:
    async with (
        Metrics() as replica,
        served(metrics_urls=[replica.url]) as console,
        console.visitor(Role.READ_ONLY) as visitor,
    ):
        await visitor.event("now.figures")
        await replica.go()
        away = (await visitor.event("sources", enough="Metrics of the service"))["sources"]
        assert "cannot be read since" in away
        assert replica.url in away
        assert "<time" in away
        assert "cannot be read since" in (await visitor.get("/now")).words
        await replica.come()
        async with visitor.session.get(f"{console.url}/live?part=sources") as answer:
            async for line in answer.content:
                if line == b'data: {"part":"sources","html":""}\n':
                    break


async def test_parts_move_while_the_session_lasts() -> None:
    async with (
        Metrics('stream_guard_verdicts_total{decision="safe"} 3\n') as replica,
        served(metrics_urls=[replica.url]) as console,
        console.visitor(Role.READ_ONLY) as visitor,
    ):
        moved = await visitor.event("now.figures", "sources", enough=">3<")
        assert "safe" in moved["now.figures"]
        replica.text = 'stream_guard_verdicts_total{decision="safe"} 12345\n'
        await visitor.event("now.figures", enough="12,345")
        assert (await visitor.get("/live?part=nothing")).status == 404
        async with visitor.session.get(f"{console.url}/live?part=now.figures") as answer:
            await answer.content.readline()
            assert (await visitor.post("/sign-out", {})).status == 303
            replica.text = 'stream_guard_verdicts_total{decision="safe"} 12346\n'
            await answer.content.read()  # ends, because the session did


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.slug)
async def test_an_id_stands_for_a_single_element_of_a_page(page: Page) -> None:
    async with served() as console, console.visitor(Role.LEAD) as lead:
        answer = await lead.get(f"/{page.slug}")
        ids = [str(each) for each in answer.tree.xpath("//@id")]
        assert sorted(ids) == sorted(set(ids))
        # A label that names the id of another element than a field would leave the field without a name.
        fields = {str(each) for each in answer.tree.xpath("(//input|//select|//textarea)/@id")}
        assert {str(each) for each in answer.tree.xpath("//label/@for")} <= fields


def test_numbers_of_strangers_are_shown_whatever_they_are() -> None:
    number = cast("Callable[..., str]", FILTERS["number"])
    assert (number(1_234), number(0.25, 1), number(10**400)) == ("1,234", "0.2", str(10**400))
