"""Renders templates. Everything that a template prints is escaped, and an undefined name is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from stream_guard.console.layout.filters import FILTERS

if TYPE_CHECKING:
    from stream_guard.console.layout.static_files import StaticFiles
    from stream_guard.console.texts.catalogue import Texts

__all__ = ["Layout"]


class Layout:
    """The templates.

    Args:
        texts: the catalogue; templates take a text by ``t("now.title", count=3)``.
        static: scripts and style sheets; templates name one by ``static("console.css")``.
    """

    def __init__(self, texts: Texts, static: StaticFiles) -> None:
        self.texts = texts
        self._environment = Environment(
            loader=PackageLoader("stream_guard.console.layout"),
            # Not by the file's name: every template makes a page or a part of one.
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(FILTERS)
        self._environment.globals.update({"t": self._text, "static": static.address})

    def render(self, template: str, **values: Any) -> Markup:  # noqa: ANN401 - whatever a template shows
        """Return a template with its values, as HTML. Raises jinja2.UndefinedError for a missing one."""
        # Markup, so that one template can show what another one made.
        return Markup(self._environment.get_template(template).render(**values))  # noqa: S704 - it is escaped

    def _text(self, key: str, **values: object) -> Markup:
        # The catalogue's own text holds no markup either, so that a translation cannot bring any.
        return escape(self.texts.pattern(key)).format(**values)
