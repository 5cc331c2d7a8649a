"""Resolves a post's markup: HTML or Markdown becomes text with line breaks. Pure.

libxml2 reports tags and text one by one, and no tree is built. So nesting costs nothing, and the time is linear in the
source. Markdown is first rendered as HTML by GitHub's parser, which is linear as well.

What no reader sees is kept apart, so that rules can match it. Not kept are names of tags and attributes that HTML
defines, and attributes without text for people.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from cmarkgfm import github_flavored_markdown_to_html
from cmarkgfm.cmark import Options
from lxml import etree
from lxml.html import defs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Change", "Markup", "Resolved", "is_blank", "resolve"]

Markup: TypeAlias = Literal["html", "markdown", "plain"]
Change: TypeAlias = Literal["tags", "marks", "entities", "links", "images", "hidden"]

_FULL_INFO: Final = 1 << 16  # CMARK_OPT_FULL_INFO_STRING, which the Python package does not name
_MARKDOWN: Final = Options.CMARK_OPT_UNSAFE | Options.CMARK_OPT_HARDBREAKS | _FULL_INFO
_END: Final = "\ue000"
"""Fed after the source: if it does not come back, the source ends inside a tag."""

_PARAGRAPHS: Final = frozenset(
    ("blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul")
)
_LINES: Final = frozenset(
    ("address", "article", "aside", "caption", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption",
     "figure", "footer", "form", "header", "legend", "li", "main", "nav", "option", "section", "summary", "tr")
)  # fmt: skip
_CELLS: Final = frozenset(("td", "th"))
_UNSEEN: Final = frozenset(
    ("audio", "canvas", "datalist", "iframe", "noembed", "noframes", "noscript", "object", "script", "style",
     "template", "title", "video")
)  # fmt: skip
_KNOWN: Final = defs.tags | frozenset(
    ("bdi", "data", "dialog", "main", "math", "picture", "search", "slot", "svg", "template")
)
_WRITTEN: Final = (
    "aria-description", "aria-label", "content", "data-meta", "label", "placeholder", "srcdoc", "summary", "title",
    "value",
)  # fmt: skip
"""Attributes with text for people; ``data-meta`` is the rest of a Markdown code block's first line."""
_NAMES: Final = defs.safe_attrs | defs.link_attrs | defs.event_attrs | frozenset(
    ("allow", "allowfullscreen", "as", "async", "autocapitalize", "autocomplete", "autofocus", "autoplay", "blocking",
     "content", "contenteditable", "controls", "crossorigin", "data", "decoding", "default", "defer", "dirname",
     "download", "draggable", "enterkeyhint", "fetchpriority", "form", "formaction", "formenctype", "formmethod",
     "formnovalidate", "formtarget", "hidden", "high", "http-equiv", "imagesizes", "imagesrcset", "inert", "inputmode",
     "integrity", "is", "itemid", "itemprop", "itemref", "itemscope", "itemtype", "kind", "list", "loading", "loop",
     "low", "max", "min", "minlength", "muted", "nomodule", "nonce", "novalidate", "open", "optimum", "pattern", "ping",
     "placeholder", "playsinline", "popover", "popovertarget", "popovertargetaction", "poster", "preload", "property",
     "referrerpolicy", "required", "reversed", "sandbox", "sizes", "slot", "spellcheck", "srcdoc", "srclang", "srcset",
     "step", "style", "translate", "wrap")
)  # fmt: skip
"""Names of attributes that HTML defines; lxml lacks the newer ones."""
_TARGETS: Final = ("action", "background", "cite", "data", "formaction", "href", "poster", "src")
_DOCTYPE: Final = re.compile(r"<!doctype\s+(?!html\s*>)([^>]+)", re.IGNORECASE)
_QUOTES_MAX: Final = 16
_WHITE: Final = str.maketrans("\t\n\r\f", "    ")
_ZERO: Final = re.compile(r"0+(?:\.0*)?(?![\d.])|\.0+(?!\d)")
_BLANK_LINES: Final = re.compile(r"\n{3,}")


@dataclass(slots=True, frozen=True)
class Resolved:
    """A text without its markup.

    Attributes:
        format: of the source, ``html`` or ``markdown``.
        text: what a reader sees, with line breaks; images as their alternative text.
        links: targets that the text does not show, each once.
        hidden: texts that no reader sees, such as comments, scripts and undisplayed elements.
        changes: what the source had.
        for_model: whether the model reads :attr:`whole` in place of the source.
    """

    format: Markup
    text: str
    links: tuple[str, ...]
    hidden: tuple[str, ...]
    changes: tuple[Change, ...]
    for_model: bool = False

    @property
    def aside(self) -> str:
        """The links and the hidden texts, one a line; empty if there are none."""
        return "\n".join((*self.links, *self.hidden))

    @property
    def whole(self) -> str:
        """The text, with links and hidden texts named under it."""
        under = [f"Link: {link}" for link in self.links]
        under += [f"Hidden text: {text}" for text in self.hidden]
        return "\n".join((self.text, "", *under)).lstrip("\n") if under else self.text


def resolve(source: str, markup: Markup, *, for_model: bool = False) -> Resolved | None:
    """Return a text without its markup; None if the text has none.

    Args:
        source: the text as the platform wrote it.
        markup: its format.
        for_model: becomes :attr:`Resolved.for_model`.
    """
    if markup == "plain" or not source.strip():
        return None
    if markup == "markdown":
        return _resolve_markdown(source, for_model=for_model)
    if "<" not in source and "&" not in source:
        return None
    reader = _read(source)
    changes: list[Change] = ["tags"] if reader.has_tags else []
    if "&" in source and html.unescape(source) != source:
        changes.append("entities")
    if not (changes or reader.hidden) and reader.text.split() != source.split():
        changes.append("tags")  # end tags alone, which the parser does not report
    return _resolved("html", reader, changes, reader.hidden, for_model=for_model)


def is_blank(text: str) -> bool:
    """Return whether a text has nothing that a reader sees: white space and invisible characters alone."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def _resolve_markdown(source: str, *, for_model: bool) -> Resolved | None:
    shallow = "\n".join(map(_unquoted, source.splitlines()))
    reader = _read(github_flavored_markdown_to_html(shallow.replace("\0", "\ufffd"), _MARKDOWN))
    hidden = dict.fromkeys(reader.hidden)
    # Definitions of links are rendered only where a link uses them.
    for line in source.splitlines():
        bare = line.lstrip(" >\t")
        if bare[:1] == "[" and "]:" in bare:
            hidden[bare] = None
    changes: list[Change] = [] if reader.text == source.strip() else ["marks"]
    return _resolved("markdown", reader, changes, hidden, for_model=for_model)


def _unquoted(line: str) -> str:
    """Return a line of Markdown without levels of quotes beyond the 16th: each would become 27 characters of HTML."""
    rest = line.lstrip("> ")
    if len(line) - len(rest) <= _QUOTES_MAX:
        return line
    head = line[: len(line) - len(rest)]
    return f"{'>' * _QUOTES_MAX} {rest}" if head.count(">") > _QUOTES_MAX else line


def _resolved(
    markup: Markup,
    reader: _Reader,
    changes: list[Change],
    hidden: Iterable[str],
    *,
    for_model: bool,
) -> Resolved | None:
    text = reader.text
    if reader.targets:
        changes.append("links")
    if reader.has_images:
        changes.append("images")
    unseen = tuple(hidden)
    if unseen:
        changes.append("hidden")
    if not changes:
        return None
    links = tuple(target for target in reader.targets if target not in text)
    return Resolved(markup, text, links, unseen, tuple(changes), for_model)


def _read(source: str) -> _Reader:
    # NUL becomes U+FFFD in browsers. Bytes with a named encoding: a <meta charset> must not change it.
    source = source.replace("\0", "\ufffd")
    reader = _Reader()
    parser = etree.HTMLParser(target=reader, encoding="utf-8")
    parser.feed((source + _END).encode("utf-8", "replace"))
    parser.close()
    reader.finish(source)
    return reader


class _Reader:
    """Receives the parser's events; an lxml parser target.

    Attributes:
        text: what a reader sees, once :meth:`finish` was called.
        hidden: what no reader sees, once :meth:`finish` was called.
        targets: of links and images, in their order.
        has_tags, has_images: whether there were any.
    """

    def __init__(self) -> None:
        self.text = ""
        self.hidden: dict[str, None] = {}
        self.targets: dict[str, None] = {}
        self.has_tags = self.has_images = False
        self._seen: list[str] = []
        self._unseen: list[str] = []
        self._open: list[bool] = []  # of each open element: whether it is hidden
        self._verbatim = 0  # open <pre>
        self._last: tuple[list[str], int] = (self._seen, -1)  # the text that came last

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Take a start tag; the parser calls :meth:`end` for each."""
        if tag not in ("html", "head", "body"):
            self.has_tags = True
        unseen = (
            tag in _UNSEEN
            or "hidden" in attributes
            or _is_undisplayed(attributes.get("style", ""))
            or bool(self._open and self._open[-1])
        )
        self._open.append(unseen)
        if tag == "pre":
            self._verbatim += 1
        if tag in ("br", "hr"):
            self._seen.append("\n")
        self._break(tag)
        if tag not in _KNOWN:
            # Text in angle brackets, such as "<buy pills>".
            self._hide(" ".join((tag, *(part for pair in attributes.items() for part in pair))))
        if attributes:
            self._read_attributes(tag, attributes)

    def end(self, tag: str) -> None:
        """Take an end tag, written or implied."""
        if self._open and self._open.pop() and not (self._open and self._open[-1]):
            self._unseen.append("\n")
        if tag == "pre":
            self._verbatim -= 1
        self._break(tag)

    def data(self, text: str) -> None:
        """Take text; entities are resolved."""
        unseen = bool(self._open and self._open[-1])
        parts = self._unseen if unseen else self._seen
        if not (self._verbatim or unseen):
            text = text.translate(_WHITE)
            if text == " " and parts and parts[-1].endswith("\n"):
                return
        self._last = (parts, len(parts))
        parts.append(text)

    def comment(self, text: str) -> None:
        """Take a comment, or what browsers treat as one."""
        self._last = (self._unseen, len(self._unseen) + 1)
        self._hide(text)

    def close(self) -> None:
        """Do nothing; the parser demands this method."""

    def finish(self, source: str) -> None:
        """Make the texts, after the last event."""
        for declared in _DOCTYPE.findall(source):
            # The parser reports at most three words of one of these.
            self._hide(declared)
        parts, at = self._last
        if at >= 0 and parts[at].endswith(_END):
            parts[at] = parts[at][:-1]
        else:
            self._hide(source)
        lines = (" ".join(line.split()) for line in "".join(self._seen).split("\n"))
        self.text = _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")
        lines = (" ".join(line.split()) for line in "".join(self._unseen).split("\n"))
        self.hidden = dict.fromkeys(line for line in lines if line)

    def _read_attributes(self, tag: str, attributes: Mapping[str, str]) -> None:
        emoji = tag == "img" and "emoji" in attributes.get("class", "")
        for name in () if emoji else _TARGETS:
            target = attributes.get(name, "").strip()
            if target:
                self.targets[target] = None
        if tag == "pre" and attributes.get("lang", "").strip():
            # The first word behind a Markdown code block's fence is any word of the author's.
            self._hide(attributes["lang"])
        for name, value in attributes.items():
            if value.strip():
                if name in _WRITTEN:
                    self._hide(value)
            elif tag in _KNOWN and name not in _NAMES and not name.startswith(("aria-", "data-")):
                self._hide(name)  # a word behind a tag that the author did not close
        alternative = attributes.get("alt", "").strip()
        if not alternative:
            return
        if self._open[-1]:
            self._hide(alternative)
            return
        self.has_images = True
        # A custom emoji may stand inside a word.
        self._seen.append(alternative if emoji else f" {alternative} ")

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._seen.append("\n\n")
        elif tag in _LINES:
            if self._seen and not self._seen[-1].endswith("\n"):
                self._seen.append("\n")
        elif tag in _CELLS:
            self._seen.append(" ")

    def _hide(self, text: str) -> None:
        self._unseen += ("\n", text, "\n")


def _is_undisplayed(style: str) -> bool:
    """Return whether an element's own style hides it: by ``display``, ``visibility``, or a size or opacity of 0."""
    for declaration in style.lower().split(";") if style else ():
        name, _, value = declaration.partition(":")
        name, value = name.strip(), value.partition("!")[0].strip()
        if (name, value) in _HIDING or (name in _SIZES and _ZERO.match(value)):
            return True
    return False


_HIDING: Final = frozenset(
    (("display", "none"), ("visibility", "hidden"), ("visibility", "collapse"), ("content-visibility", "hidden"))
)  # fmt: skip
_SIZES: Final = frozenset(("font-size", "opacity"))
