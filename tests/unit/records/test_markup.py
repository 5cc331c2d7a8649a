"""HTML and Markdown become text: nothing that people read is lost, hidden text is kept apart, and time is bounded."""

from __future__ import annotations

import html
import subprocess
import sys
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_guard.core.errors import EmptyTextError
from stream_guard.records.markup import Resolved, is_blank, resolve
from stream_guard.records.post import Post, PostParser
from stream_guard.settings import PostSettings

MENTION = '<a href="https://m.example/@bob" class="u-url mention">@<span>bob</span></a>'
LINK = (
    '<a href="https://example.com/a/long/path"><span class="invisible">https://</span>'
    '<span class="ellipsis">example.com/a/lo</span><span class="invisible">ng/path</span></a>'
)


def resolved(source: str, markup: Any = "html") -> Resolved:  # noqa: ANN401
    found = resolve(source, markup)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("one<br>two<br/><br />three", "one\ntwo\n\nthree"),
        ("pi<b></b>lls", "pills"),
        ("pi<!-- x -->lls", "pills"),
        ("&lt;b&gt; &amp;amp; &#x70;ills", "<b> &amp; pills"),
        ("I <3 you & 2 < 3", "I <3 you & 2 < 3"),
        ("<ul><li>a</li>\n<li>b</li></ul>", "a\nb"),
        ("<table><tr><td>a<td>b<tr><td>c</table>", "a b\nc"),
        ("<pre>a\n  b</pre>\nc\nd", "a\nb\n\nc d"),
        (f"<p>hi {MENTION}</p>", "hi @bob"),
        (f"<p>{LINK}</p>", "https://example.com/a/long/path"),
        ('go<img class="custom-emoji" alt=":party:" src="/e.png">', "go:party:"),
        ('a<img alt="a cat">b', "a a cat b"),
        ("<div>a<div>b</div></div>c", "a\nb\nc"),
        ("</p></div>buy pills", "buy pills"),
        ("buy</b> pills</>", "buy pills"),
        ("<p>&amp;amp;lt;b&amp;gt;", "&amp;lt;b&gt;"),
        ("<b\n>buy</B\n> pills", "buy pills"),
        ("<b>nul\0l", "nul\ufffdl"),
        ('<meta charset="latin1">é', "é"),
    ],
)
def test_html_becomes_text_with_line_breaks(source: str, text: str) -> None:
    found = resolve(source, "html")
    assert (source if found is None else found.text) == text


@pytest.mark.parametrize(
    ("source", "hidden"),
    [
        ("a<!-- buy pills -->b", ("buy pills",)),
        ("a<script>buy</script><style>pills</style>b", ("buy", "pills")),
        ('a<i style="color: red; DISPLAY : none !important">buy</i>b', ("buy",)),
        ("a<i style='visibility:hidden'>buy</i>b", ("buy",)),
        ("a<i style='font-size: 0px'>buy</i><i style='opacity:.0'>pills</i>b", ("buy", "pills")),
        ("a<i hidden>buy <b>pills</b></i>b", ("buy pills",)),
        ("a<i title='buy pills'>b</i>", ("buy pills",)),
        ("a<buy pills>b", ("buy pills",)),
        ("ab<template>buy</template>", ("buy",)),
        ("ab<!-- buy pills", ("buy pills",)),
        ("ab<!buy pills>", ("buy pills",)),
        ("a<![CDATA[buy pills]]>b", ("[CDATA[buy pills]]",)),
        ('<!DOCTYPE html PUBLIC "buy">a<!doctype pills>b', ('html PUBLIC "buy"', "pills")),
        ('a<iframe srcdoc="buy <b>pills</b>"></iframe>b', ("buy <b>pills</b>",)),
        ("a<?php buy pills ?>b", ("?php buy pills ?",)),
        ("ab<script>buy pills", ("buy pills",)),
        ("ab<a title='buy pills", ("ab<a title='buy pills",)),
        ("a<i hidden><img alt='buy pills'></i>b", ("buy pills",)),
    ],
)
def test_what_no_reader_sees_is_kept_apart(source: str, hidden: tuple[str, ...]) -> None:
    found = resolved(source)
    assert (found.text, found.hidden) == ("ab", hidden)
    assert "hidden" in found.changes


@pytest.mark.parametrize(
    "style", ["font-size:0.5em", "opacity:0.9", "opacity:10%", "display:block"]
)
def test_small_or_pale_text_is_seen(style: str) -> None:
    assert resolved(f"<i style='{style}'>a</i>").hidden == ()


def test_targets_that_the_text_does_not_show_are_links() -> None:
    found = resolved(
        f'{MENTION} {LINK} <a href="https://bad.example">click</a> <img src="/a.png" alt="b">'
    )
    assert found.links == ("https://m.example/@bob", "https://bad.example", "/a.png")
    assert found.changes == ("tags", "links", "images")
    under = "Link: https://m.example/@bob\nLink: https://bad.example\nLink: /a.png"
    assert found.whole.endswith(f" click b\n\n{under}")


@pytest.mark.parametrize(
    ("source", "text", "aside"),
    [
        ("pi**ll**s", "pills", ""),
        ("_a_ ~~b~~ `c`", "a b c", ""),
        ("[click](https://bad.example 'now')", "click", "https://bad.example\nnow"),
        ("[a]\n\n[a]: https://bad.example", "a", "https://bad.example\n[a]: https://bad.example"),
        ("a\n\n[unused]: https://x 'buy pills'", "a", "[unused]: https://x 'buy pills'"),
        ("![a cat](/c.png)", "a cat", "/c.png"),
        ("> quoted\n\nanswer", "quoted\n\nanswer", ""),
        ("```py buy pills\nx\n```", "x", "py\nbuy pills"),
        ("a<!-- buy -->b &amp; c", "ab & c", "buy"),
        (">" * 999 + " buy\n" + "> " * 99 + "pills", "buy\npills", ""),
        ("1. a\n2. b", "a\nb", ""),
    ],
)
def test_markdown_becomes_text(source: str, text: str, aside: str) -> None:
    found = resolved(source, "markdown")
    assert (found.text, found.aside) == (text, aside)


@pytest.mark.parametrize("source", ["", " ", "no markup\nat all", "\U0001f600"])
@pytest.mark.parametrize("markup", ["html", "markdown", "plain"])
def test_text_without_markup_stays(source: str, markup: Any) -> None:  # noqa: ANN401
    assert resolve(source, markup) is None


@given(st.text())
def test_escaped_text_comes_back(text: str) -> None:
    text = text.replace("\0", "").replace("\r", "\n").encode("utf-8", "replace").decode()
    found = resolve(f"<p>{html.escape(text)}</p>", "html")
    shown = " ".join(text.split())
    assert found is None or " ".join(found.text.split()) == shown


@given(st.lists(st.sampled_from(
    ["<b>", "</b>", "<p>", "<!--", "-->", "<i hidden>", "</i>", "<script>", "</script>", "<td>", "&amp;", "<a href=x>",
     "<br>", "<", ">", '"', "'", "<a title='", "</a>", "<pre>", "<svg>", "**", "[a](b)", "\n\n", "> ", "`", "word "]
)))  # fmt: skip
@pytest.mark.parametrize("markup", ["html", "markdown"])
def test_no_word_is_lost_whatever_the_marks(markup: Any, parts: list[str]) -> None:  # noqa: ANN401
    source = "".join((*parts, " word"))
    found = resolve(source, markup)
    assert found is None or "word" in f"{found.text}\n{found.aside}"


@pytest.mark.parametrize(
    ("source", "markup"),
    [
        ("> <script><a title='' pills", "markdown"),
        ("- <div><i buy pills", "markdown"),
        ("<div><a href='x' pills</div>", "html"),
        ("<p pills", "html"),
    ],
)
def test_a_word_in_a_tag_that_the_author_did_not_close_is_kept(
    source: str,
    markup: Any,  # noqa: ANN401
) -> None:
    found = resolve(source, markup)
    assert found is not None
    assert "pills" in f"{found.text}\n{found.aside}"


@pytest.mark.parametrize(
    "source",
    [
        "<input disabled required data-x aria-busy><video controls muted></video>",
        "<iframe sandbox allow='' srcdoc='' loading=''></iframe>",
        "<img src='' srcset='' sizes='' alt='' onerror=''><meta content='' property=''>",
        "<form novalidate><input list='' min='' max='' pattern='' placeholder='' value=''></form>",
    ],
)
def test_attributes_of_html_without_a_value_are_no_text(source: str) -> None:
    found = resolve(source, "html")
    assert found is not None
    assert found.hidden == ()


def test_the_word_behind_a_fence_is_kept() -> None:
    found = resolve("```pills\n```", "markdown")
    assert found is not None
    assert found.hidden == ("pills",)


HOSTILE: Final = """
import resource
from stream_guard.records.markup import resolve

resource.setrlimit(resource.RLIMIT_CPU, (180, 180))
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
UNITS = [
    "<b>", "<div>", "<", "<!--", '<a b="', "<a ", "<a/", "</a", "<?", "a<b", "&", "<p>", "<a href=x>y", "<pre>", "> ",
    ">", "<![CDATA[", "</b>", "<script>", "<!DOCTYPE ", "&amp;", "<textarea>", "~~a", "[^1]",
    "[", "![", "**a", "*a_", "[a](", "a|b\\n-|-\\n", "- ", "`a", "[a]: b\\n", "<i style='a:b;c:d'>", "<x y>",
]
for unit in UNITS:
    source = (unit * (65_536 // len(unit) + 1))[:65_536] + " buy pills"
    for markup in ("html", "markdown"):
        found = resolve(source, markup)
        assert "buy pills" in (source if found is None else f"{found.text} {found.aside}"), unit
for unit in ("<", "<b>", "&lt;", "<![CDATA["):
    source = (unit * (1_048_576 // len(unit)))[:1_048_576] + " buy pills"
    found = resolve(source, "html")
    assert "buy pills" in (source if found is None else f"{found.text} {found.aside}"), unit
print("done")
"""


def test_64_kib_and_1_mib_of_hostile_marks_take_bounded_time_and_memory_and_lose_nothing() -> None:
    # The processor time of all of them together. Work that grows with the square of the size needs minutes for one.
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_one_definition_used_often_does_not_multiply() -> None:
    source = "[a]: /" + "x" * 30_000 + "\n\n" + "[a] " * 10_000
    found = resolved(source, "markdown")
    assert len(found.whole) < 2 * len(source)


# Posts


def post_of(text: str, title: str | None = None, parent: str | None = None, **changes: Any) -> Post:  # noqa: ANN401
    document = {"id": "1", "text": text, "title": title, "parent": parent}
    return PostParser(PostSettings(**changes)).parse(orjson.dumps(document), ())


def test_the_model_reads_the_original_unless_it_is_set() -> None:
    source = '<p>Buy <a href="https://x">pills</a></p>'
    original = post_of(source, markup="html")
    assert original.text == source
    assert original.markup is not None
    assert original.markup.text == "Buy pills"
    read = post_of(source, "a <b> title", f"{source}!", markup="html", markup_for_model=True)
    shown = "Buy pills\n\nLink: https://x"
    (parent,) = read.context
    assert (read.text, parent.text) == (shown, "Buy pills\n\n!\n\nLink: https://x")
    assert read.title == "a <b> title"
    assert read.sha256 == original.sha256
    assert read.text_bytes == len(f"{read.text}{read.title}{parent.text}")


@pytest.mark.parametrize(
    ("text", "changes", "empty"),
    [
        ("", {}, True),
        (" \n\u200b\u2060", {}, True),
        ("<p><br></p>&nbsp;", {"markup": "html"}, True),
        ("<p><br></p>", {}, False),
        ("<!-- a -->", {"markup": "html"}, False),
        ("<img alt=cat>", {"markup": "html"}, False),
        ("***", {"markup": "markdown"}, True),
        ("\U0001f600", {}, False),
        ("", {"empty_text": "judge"}, False),
    ],
)
def test_a_post_without_text_is_empty(text: str, changes: dict[str, Any], empty: bool) -> None:  # noqa: FBT001
    assert post_of(text, **changes).empty == empty
    assert not post_of(text, title="a title", **changes).empty
    assert post_of(text, title=" ", parent="x", **changes).empty == empty
    if empty:
        with pytest.raises(EmptyTextError):
            post_of(text, **{**changes, "empty_text": "dead_letter"})


@given(st.text())
def test_blank_means_nothing_to_see(text: str) -> None:
    assert is_blank(text) == (not "".join(c for c in text if c.isprintable()).strip())
