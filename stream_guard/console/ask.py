"""One request of a signed-in person: who asks, the fields of the form, and how to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web
from markupsafe import Markup

from stream_guard.console.security.roles import Role
from stream_guard.console.security.tokens import takes_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.console.layout.rendering import Layout
    from stream_guard.console.security.sessions import Session
    from stream_guard.console.sources.sources import Sources
    from stream_guard.core.clock import Clock
    from stream_guard.settings import Settings

__all__ = ["THEMES", "THEME_COOKIE", "Ask", "Parts"]

THEMES: Final = ("auto", "light", "dark")
THEME_COOKIE: Final = "theme"


class Linked(Protocol):
    """A page, for the navigation."""

    @property
    def slug(self) -> str:
        """Names it."""

    @property
    def role(self) -> Role:
        """The role that a person needs to see it."""


@dataclass(slots=True, frozen=True)
class Parts:
    """What every page can use.

    Attributes:
        settings: all sections.
        layout: renders templates.
        sources: where data comes from.
        clock: the time.
        pages: all pages, in the order of the navigation.
    """

    settings: Settings
    layout: Layout
    sources: Sources
    clock: Clock
    pages: Sequence[Linked]


@dataclass(slots=True, frozen=True)
class Ask:
    """A request.

    Attributes:
        request: as aiohttp has it.
        session: who asks; None on the page to sign in.
        parts: what pages use.
        secure: whether cookies are sent over TLS alone.
    """

    request: web.Request
    session: Session | None
    parts: Parts
    secure: bool = False

    @property
    def who(self) -> str:
        """The person's pseudonym. Raises RuntimeError on the page to sign in."""
        return self._signed_in().who

    @property
    def role(self) -> Role:
        """The person's role. Raises RuntimeError on the page to sign in."""
        return self._signed_in().role

    @property
    def takes_tokens(self) -> bool:
        """Whether anybody can sign in by a token."""
        return takes_tokens(self.parts.settings.console)

    def may(self, role: Role | str) -> bool:
        """Return whether the person has this role."""
        return self.session is not None and self.session.role.includes(Role(role))

    @property
    def may_read_texts(self) -> bool:
        """Whether the person may see what strangers wrote: who reviews it, or writes policies for it."""
        return self.may(Role.REVIEWER) or self.may(Role.AUTHOR)

    @property
    def sources(self) -> Sources:
        """Where data comes from."""
        return self.parts.sources

    def text(self, key: str, **values: object) -> str:
        """Return a text of the catalogue."""
        return self.parts.layout.texts(key, **values)

    async def field(self, name: str, default: str = "") -> str:
        """Return a field of the form that was sent. Raises web.HTTPBadRequest for a form that cannot be read."""
        try:
            value = (await self.request.post()).get(name, default)
        except (ValueError, LookupError, AssertionError) as error:
            # Whatever aiohttp's parsers raise for a form without its boundary, or in a charset that nobody knows.
            raise web.HTTPBadRequest(reason="the form is malformed") from error
        return value if isinstance(value, str) else default

    async def whole_number(self, name: str, default: int, highest: int) -> int:
        """Return a field of the form that is a number from 1 up.

        Args:
            name: of the field.
            default: where the field is missing or empty.
            highest: what a larger number counts as.

        Raises:
            web.HTTPBadRequest: it is no whole number from 1 up.
        """
        text = (await self.field(name)).strip()
        if not text:
            return default
        digits = text.lstrip("0")
        if not (text.isascii() and text.isdigit() and digits):
            raise web.HTTPBadRequest(reason=f"{name} is no whole number from 1 up")
        # Python converts no number with too many digits.
        return highest if len(digits) > len(str(highest)) else min(int(digits), highest)

    def csrf_field(self) -> Markup:
        """Return the hidden field that each form with the method POST needs."""
        return Markup('<input type="hidden" name="csrf" value="{}">').format(self._signed_in().csrf)

    def part(self, template: str, **values: Any) -> Markup:  # noqa: ANN401 - whatever a template shows
        """Return HTML of a part of a page."""
        return self.parts.layout.render(template, ask=self, **values)

    def render(self, template: str, *, status: int = 200, **values: Any) -> web.Response:  # noqa: ANN401 - the same
        """Answer with a whole page."""
        theme = self.request.cookies.get(THEME_COOKIE, "")
        theme = theme if theme in THEMES else "auto"
        html = self.part(template, theme=theme, themes=THEMES, **values)
        return web.Response(text=html, content_type="text/html", status=status)

    def go(self, path: str) -> web.Response:
        """Answer a form: the browser shows the page at this path of the console next."""
        return web.Response(status=303, headers={"Location": path})

    def navigation(self) -> list[Linked]:
        """Return the pages that the person may see."""
        return [page for page in self.parts.pages if self.may(page.role)]

    def _signed_in(self) -> Session:
        if self.session is None:
            raise RuntimeError("nobody is signed in")
        return self.session
