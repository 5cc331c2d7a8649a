"""What a page is made of: routes, each with the role that it needs, and parts that move live.

A new page is a module in ``pages`` with a constant of type :class:`Page`, named in ``pages/registry.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_guard.console.security.roles import Role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aiohttp import web

    from stream_guard.console.ask import Ask

    Handler = Callable[[Ask], Awaitable[web.StreamResponse]]
    LivePart = Callable[[Ask], Awaitable[str]]

__all__ = ["Page", "Route", "get", "post"]


@dataclass(slots=True, frozen=True)
class Route:
    """An address of a page.

    Attributes:
        method: ``GET``, which changes nothing, or ``POST``.
        path: as aiohttp writes it, such as ``/verdicts/{id}``. It never holds text of a post.
        handler: answers.
        role: that a person needs.

    Raises:
        ValueError: a route that may change something is open to read-only people.
    """

    method: str
    path: str
    handler: Handler
    role: Role
    changes: bool = False

    def __post_init__(self) -> None:
        if self.changes and self.role is Role.READ_ONLY:
            message = f"{self.method} {self.path}: a read-only person may change nothing"
            raise ValueError(message)


def get(path: str, handler: Handler, role: Role) -> Route:
    """Return the route of a page that is shown."""
    return Route("GET", path, handler, role)


def post(path: str, handler: Handler, role: Role, *, changes: bool = True) -> Route:
    """Return the route of a request with a body, with the checks of its origin and of the session's token.

    Args:
        path: without text of a post.
        handler: answers.
        role: that a person needs.
        changes: False for a search, whose words belong in a body and not in an address.
    """
    return Route("POST", path, handler, role, changes)


@dataclass(slots=True, frozen=True)
class Page:
    """A page.

    Attributes:
        slug: names it; the page is at ``/SLUG``, its title is the text ``SLUG.title``, its templates are in a folder
            of this name.
        routes: its addresses, the first being ``/SLUG``.
        live: parts of it that move: HTML by the name of the element's attribute ``data-live``.
    """

    slug: str
    routes: Sequence[Route]
    live: Mapping[str, LivePart] = field(default_factory=dict)

    @property
    def role(self) -> Role:
        """The role that a person needs to see it."""
        return self.routes[0].role
