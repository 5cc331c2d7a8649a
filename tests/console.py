"""A console in this process, and people who use it: by HTTP (:class:`Visitor`), or in a real browser.

Theory of operation. :func:`served` starts the real server on a free port, with the sources of its settings. A replica
is a :class:`Metrics`: a server of a page of metrics that a test writes and can take away. One token for each role is
known.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web
from lxml import html

from stream_guard.console.security.roles import Role
from stream_guard.console.server import ConsoleServer
from stream_guard.console.sources.sources import make_sources
from stream_guard.core.clock import SystemClock
from stream_guard.offline.review.tokens import Person
from stream_guard.settings import Settings
from tests.browser import fetch_browser, fonts_file
from tests.hang import HANG_S
from tests.http_place import HttpPlace
from tests.npm import fetch_package

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from stream_guard.console.sources.sources import Sources
    from stream_guard.core.clock import Clock

AXE: Final = "axe-core@4.10.3"
AXE_SHA512: Final = (
    "5e6edba515e70d25f6604d9815f064d859c5d1ea7ab661bbc4f87c88779ef0c2"
    "1cae0abbeb636471ef39e9d62d2582e4b88a1866f19f4ecfcf6d986275e4dc12"
)
_CACHE: Final = Path(__file__).parents[1] / ".cache"
PHONE: Final = {"width": 390, "height": 844}
TOKENS: Final = {role: f"{role.value:x<40}" for role in Role}
"""A token for each role."""


def owner_of(token: str) -> Person | None:
    """Return whose of :data:`TOKENS` this is: a person named after the role."""
    for role, known in TOKENS.items():
        if token == known:
            return Person(f"{role.value}-1", role)
    return None


class Served:
    """A running console.

    Attributes:
        server: the server.
        sources: where its data comes from.
        url: its address, without a slash at the end.
    """

    def __init__(self, server: ConsoleServer, sources: Sources) -> None:
        self.server = server
        self.sources = sources
        self.url = f"http://127.0.0.1:{server.port}"

    @contextlib.asynccontextmanager
    async def visitor(self, role: Role | None = Role.LEAD) -> AsyncIterator[Visitor]:
        """Open a client, signed in by this role; None: not signed in."""
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            visitor = Visitor(self.url, session)
            if role is not None:
                answer = await visitor.post("/sign-in", {"token": TOKENS[role]})
                assert answer.status == 303, answer.text
            yield visitor


class Answer:
    """What the console answered."""

    def __init__(self, status: int, headers: Any, text: str) -> None:  # noqa: ANN401 - a multidict
        self.status = status
        self.headers = headers
        self.text = text

    @property
    def tree(self) -> html.HtmlElement:
        """The page, parsed."""
        return html.document_fromstring(self.text)

    @property
    def words(self) -> str:
        """What a person reads of it, with single spaces."""
        return " ".join(self.tree.text_content().split())


class Visitor:
    """A client with cookies that sends what a browser sends."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def get(self, path: str, **headers: str) -> Answer:
        """Ask for a page; redirections are not followed."""
        async with self.session.get(
            self.url + path, headers=headers, allow_redirects=False
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def post(
        self, path: str, fields: dict[str, str], *, csrf: str | None = None, origin: str | None = ""
    ) -> Answer:
        """Send a form, with the session's token and the console's own origin unless others are given.

        Args:
            path: where to.
            fields: of the form.
            csrf: the token; None for the session's own.
            origin: None sends none; empty for the console's own.
        """
        sent = dict(fields)
        if csrf is None and path != "/sign-in":
            csrf = await self.csrf()
        if csrf is not None:
            sent["csrf"] = csrf
        headers = {} if origin is None else {"Origin": origin or self.url}
        async with self.session.post(
            self.url + path, data=sent, headers=headers, allow_redirects=False
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def csrf(self) -> str:
        """Return the token that pages of this session carry; empty where nobody is signed in."""
        page = await self.get("/now")
        found = page.tree.xpath("//meta[@name='csrf']/@content") if page.text else []
        return str(found[0]) if found else ""

    async def event(self, *parts: str, enough: str = "") -> dict[str, str]:
        """Return the parts that the stream of events sent, once a text is in one of them."""
        query = "&".join(f"part={part}" for part in parts)
        found: dict[str, str] = {}
        async with (
            asyncio.timeout(HANG_S),
            self.session.get(f"{self.url}/live?{query}") as answer,
        ):
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.startswith(b"data: "):
                    sent = json.loads(line.removeprefix(b"data: "))
                    found[sent["part"]] = sent["html"]
                    if len(found) == len(parts) and any(enough in each for each in found.values()):
                        return found
        raise AssertionError(f"the stream ended without {enough!r}: {found}")


@contextlib.asynccontextmanager
async def served(
    settings: dict[str, Any] | None = None,
    sources: Sources | None = None,
    clock: Clock | None = None,
    **console: Any,  # noqa: ANN401 - values of settings
) -> AsyncIterator[Served]:
    """Serve a console on a free port.

    Args:
        settings: other sections than ``console``.
        sources: instead of those of the settings.
        clock: instead of the system's.
        console: settings of the section ``console``.
    """
    made = Settings(
        **(settings or {}),
        # Most tests have no broker.
        console={
            "port": 0,
            "metrics_urls": [],
            "metrics_interval_s": 0.05,
            "feed_verdicts_max": 0,
            **console,
        },
    )
    clock = clock or SystemClock()
    sources = sources or make_sources(made, clock)
    server = ConsoleServer(made, sources, owner_of, clock)
    await server.start()
    try:
        yield Served(server, sources)
    finally:
        await server.stop()


class Metrics(HttpPlace):
    """A replica's page of metrics.

    Attributes:
        text: the page.
    """

    path = "/metrics"

    def __init__(self, text: str = "stream_guard_in_flight_records 0\n") -> None:
        super().__init__()
        self.text = text

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get(self.path, self._page)

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(text=self.text)


@contextlib.asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start Chromium, driven by Playwright; end it after.

    Raises:
        RuntimeError: npm cannot fetch the browser; the message says why.
    """
    from playwright.async_api import async_playwright

    folder = await asyncio.to_thread(fetch_browser)
    home = Path(tempfile.mkdtemp(prefix="stream-guard-browser-"))
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=folder / "chromium",
                args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
                env={
                    "HOME": str(home),
                    "PATH": os.environ["PATH"],
                    "LD_LIBRARY_PATH": str(folder / "lib"),
                    "FONTCONFIG_FILE": str(fonts_file(folder, home)),
                },
                timeout=HANG_S * 1_000,
            )
            yield browser
            await browser.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def sign_in(page: Page, console: Served, role: Role = Role.LEAD) -> None:
    """Sign in as a person does with the address that the command prints."""
    page.set_default_timeout(HANG_S * 1_000)
    await page.goto(f"{console.url}/sign-in#{TOKENS[role]}")
    await page.wait_for_url(lambda url: "sign-in" not in url)


async def serious_findings(page: Page) -> list[str]:
    """Return what axe-core calls serious or critical in a page: rule, and the first element each."""
    await page.evaluate(await asyncio.to_thread(fetch_axe))
    found = await page.evaluate("axe.run()")
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


def fetch_axe() -> str:
    """Return axe-core's script, fetched once. Raises RuntimeError as ``fetch_package`` does."""
    file = _CACHE / "axe" / f"{AXE_SHA512[:16]}.js"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        content = fetch_package(AXE, AXE_SHA512, file.parent)
        with tarfile.open(fileobj=BytesIO(content)) as package:
            script = package.extractfile("package/axe.min.js")
            assert script is not None, f"{AXE} has it"
            scratch = file.with_suffix(f".{os.getpid()}")
            scratch.write_bytes(script.read())
        scratch.rename(file)
    return file.read_text("utf-8")
