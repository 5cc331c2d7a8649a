"""Who is let in: sign-in, roles, origins, tokens and headers, on every route of the console."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from stream_guard.console.page import Route, get, post
from stream_guard.console.pages.registry import PAGES
from stream_guard.console.security.roles import Role
from stream_guard.console.security.sessions import SESSIONS_MAX, Sessions
from stream_guard.console.security.tokens import local_token, tokens_of
from stream_guard.core.errors import SettingsError
from stream_guard.settings import ConsoleSettings
from stream_guard.testing import ManualClock
from tests.console import TOKENS, served

if TYPE_CHECKING:
    from pathlib import Path

ROUTES = [route for page in PAGES for route in page.routes]
OTHERS = [get("/", None, Role.READ_ONLY), get("/live", None, Role.READ_ONLY)]  # type: ignore[arg-type]


def path_of(route: Route) -> str:
    return re.sub(r"\{\w+(:[^}]*)?\}", "1", route.path)


@pytest.mark.parametrize("route", ROUTES + OTHERS, ids=lambda route: f"{route.method} {route.path}")
async def test_nobody_sees_a_page_without_signing_in(route: Route) -> None:
    async with served() as console, console.visitor(None) as visitor:
        if route.method == "GET":
            answer = await visitor.get(path_of(route))
            assert (answer.status, answer.headers["Location"]) == (303, "/sign-in")
        else:
            answer = await visitor.post(path_of(route), {}, csrf="x")
            assert answer.status == 401


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_role_does_only_what_it_may(route: Route) -> None:
    async with served() as console:
        for role in Role:
            if role.includes(route.role):
                continue
            async with console.visitor(role) as visitor:
                if route.method == "GET":
                    answer = await visitor.get(path_of(route))
                else:
                    answer = await visitor.post(path_of(route), {})
                assert answer.status == 403
                assert f"needs the role {route.role}" in answer.words


def test_a_lead_has_every_role_and_read_only_is_a_part_of_all() -> None:
    may = {(one, other) for one in Role for other in Role if one.includes(other)}
    reviewer, author = Role.REVIEWER, Role.AUTHOR
    assert may == {(Role.LEAD, role) for role in Role} | {
        (role, Role.READ_ONLY) for role in Role
    } | {(reviewer, reviewer), (author, author)}


def test_a_route_that_changes_something_cannot_be_open_to_read_only_people() -> None:
    with pytest.raises(ValueError, match="may change nothing"):
        post("/policies/promote", None, Role.READ_ONLY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("csrf", "origin"),
    [
        ("", ""),
        ("of-another-session", ""),
        (None, "http://evil.example"),
        (None, "null"),
        (None, None),
    ],
)
async def test_a_form_of_another_site_or_session_is_refused(
    csrf: str | None, origin: str | None
) -> None:
    async with served() as console, console.visitor() as visitor:
        answer = await visitor.post("/sign-out", {}, csrf=csrf, origin=origin)
        assert answer.status == 403
        assert (await visitor.get("/now")).status == 200
        assert (await visitor.post("/sign-out", {})).status == 303
        assert (await visitor.get("/now")).status == 303


async def test_a_request_that_the_browser_calls_cross_site_is_refused_whatever_its_origin() -> None:
    async with served() as console, console.visitor() as visitor:
        csrf = await visitor.csrf()
        headers = {"Origin": console.url, "Sec-Fetch-Site": "cross-site"}
        async with visitor.session.post(
            f"{console.url}/sign-out", data={"csrf": csrf}, headers=headers
        ) as answer:
            assert answer.status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8095", "[::2]:1", "a b"])
async def test_a_host_of_another_name_is_refused_on_loopback(host: str) -> None:
    async with served() as console, console.visitor() as visitor:
        assert (await visitor.get("/now", Host=host)).status == 421
        assert (await visitor.get("/livez", Host=host)).status == 200


async def test_a_public_address_is_the_only_other_host_and_origin() -> None:
    async with (
        served(public_url="https://console.example/") as console,
        console.visitor(None) as visitor,
    ):
        names = {"Host": "console.example", "Origin": "https://console.example"}
        for origin, status in ((names["Origin"], 303), ("https://evil.example", 403)):
            async with visitor.session.post(
                f"{console.url}/sign-in",
                data={"token": TOKENS[Role.LEAD]},
                headers={**names, "Origin": origin},
                allow_redirects=False,
            ) as answer:
                assert answer.status == status
                if status == 303:
                    cookie = answer.headers["Set-Cookie"]
                    assert cookie.startswith("__Host-stream-guard=")
                    assert "Secure" in cookie


async def test_the_cookie_is_for_the_server_alone() -> None:
    async with served() as console, console.visitor(None) as visitor:
        answer = await visitor.post("/sign-in", {"token": TOKENS[Role.REVIEWER]})
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        refused = await visitor.post("/sign-in", {"token": "r" * 41})
        assert refused.status == 403
        assert "Set-Cookie" not in refused.headers
        assert "unknown" in refused.words


async def test_a_new_sign_in_ends_the_session_that_the_browser_had() -> None:
    async with (
        served() as console,
        console.visitor(Role.LEAD) as visitor,
        console.visitor(None) as other,
    ):
        [cookie] = [each for each in visitor.session.cookie_jar if each.key == "stream-guard"]
        old = {"Cookie": f"{cookie.key}={cookie.value}"}
        assert (await other.get("/now", **old)).status == 200
        assert (await visitor.post("/sign-in", {"token": "x" * 40})).status == 403
        assert (await other.get("/now", **old)).status == 200
        assert (await visitor.post("/sign-in", {"token": TOKENS[Role.READ_ONLY]})).status == 303
        assert "read-only-1" in (await visitor.get("/now")).words
        assert (await other.get("/now", **old)).status == 303


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"no boundary"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff",
        ),
        ("application/x-www-form-urlencoded; charset=nobody-knows", b"theme=dark"),
        ("application/x-www-form-urlencoded", b"theme=\xff"),
    ],
)
async def test_a_form_that_cannot_be_read_is_no_bug_of_the_console(
    content_type: str, body: bytes
) -> None:
    async with served() as console, console.visitor() as visitor:
        headers = {
            "Origin": console.url,
            "Content-Type": content_type,
            "X-CSRF-Token": await visitor.csrf(),
        }
        for path in ("/appearance", "/sign-in"):
            async with visitor.session.post(
                console.url + path, data=body, headers=headers
            ) as answer:
                assert answer.status == 400, await answer.text()


async def test_every_answer_has_the_headers() -> None:
    async with served() as console, console.visitor() as visitor:
        for path in ("/now", "/nothing", "/livez", "/static/x/console.css"):
            answer = await visitor.get(path)
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"


async def test_a_page_has_no_inline_script_style_or_foreign_address() -> None:
    async with served() as console, console.visitor() as visitor:
        for page in PAGES:
            tree = (await visitor.get(f"/{page.slug}")).tree
            assert tree.xpath("//script[not(@src)] | //style | //@style") == []
            assert tree.xpath("//@*[starts-with(name(), 'on')]") == []
            addresses = tree.xpath("//@src | //link/@href | //form/@action")
            assert addresses
            assert [each for each in addresses if not each.startswith("/")] == []


async def test_a_link_on_another_site_opens_the_page_although_the_cookie_came_late() -> None:
    async with served() as console, console.visitor(None) as visitor:
        answer = await visitor.get("/now", **{"Sec-Fetch-Site": "cross-site"})
        assert answer.status == 200
        assert answer.tree.xpath("//meta[@http-equiv='refresh']/@content") == ["0;url=/now"]
        assert (await visitor.get("/now", **{"Sec-Fetch-Site": "same-origin"})).status == 303


def test_a_session_ends_after_its_time_and_when_there_are_too_many() -> None:
    clock = ManualClock()
    sessions = Sessions(clock, lifetime_s=60)
    first = sessions.begin("a", Role.REVIEWER)
    found = sessions.find(first)
    assert found is not None
    assert (found.who, found.role) == ("a", Role.REVIEWER)
    assert sessions.find("another") is sessions.find(None) is None
    clock.advance(60)
    assert sessions.find(first) is None
    assert len(sessions) == 0
    kept = [sessions.begin("b", Role.LEAD) for _ in range(SESSIONS_MAX + 1)]
    assert len(sessions) == SESSIONS_MAX
    assert sessions.find(kept[0]) is None
    assert sessions.find(kept[1]) is not None


def test_only_this_machine_needs_no_file_of_tokens(tmp_path: Path) -> None:
    assert tokens_of(ConsoleSettings()) is None
    with pytest.raises(SettingsError, match=r"console\.tokens_file"):
        tokens_of(ConsoleSettings(host="0.0.0.0"))  # noqa: S104 - that is what is refused
    file = tmp_path / "tokens"
    file.write_text(f"author a-1 {'t' * 32}\n")
    owner_of = tokens_of(ConsoleSettings(host="0.0.0.0", tokens_file=file))  # noqa: S104 - the same
    assert owner_of is not None
    assert owner_of("t" * 32) == ("a-1", "author")
    assert owner_of("t" * 33) is None
    file.write_text(f"boss a-1 {'t' * 32}\n")
    with pytest.raises(SettingsError, match="roles: read-only, reviewer, author, lead"):
        tokens_of(ConsoleSettings(tokens_file=file))


def test_the_token_of_this_machine_is_a_leads() -> None:
    token, owner_of = local_token()
    assert owner_of(token) == ("local", "lead")
    assert owner_of(token + "x") is owner_of("") is None


@pytest.mark.parametrize("shared", [False, True])
async def test_an_address_signs_in_only_where_the_command_prints_one(
    tmp_path: Path, *, shared: bool
) -> None:
    file = tmp_path / "tokens" if shared else None
    async with served(tokens_file=file) as console, console.visitor(None) as visitor:
        page = await visitor.get("/sign-in")
        scripts = [str(each) for each in page.tree.xpath("//script/@src")]
        assert any("sign_in.js" in each for each in scripts) is not shared
