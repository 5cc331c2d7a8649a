"""The thread around a post: what is read, what is dropped, and what the verdict says."""

from __future__ import annotations

import json

import pytest

from stream_guard.core.errors import SettingsError
from stream_guard.records.post import Post, PostParser
from stream_guard.records.thread import ThreadEntry, ThreadReader, speakers
from stream_guard.settings import PostSettings, ThreadSettings


def parse(thread: object, *, parent: object = None, **settings: object) -> Post:
    document = {"id": "1", "text": "hello", "parent": parent, "thread": thread}
    parser = PostParser(PostSettings.model_validate({"thread": settings}))
    return parser.parse(json.dumps(document).encode(), [])


def texts(post: Post) -> list[str]:
    return [entry.text for entry in post.context]


def test_the_texts_are_in_the_order_of_the_thread() -> None:
    earlier = [{"text": "one", "author": 1}, {"text": "two", "author": None}, "three"]
    post = parse(
        {"title": "t", "title_author": "1", "earlier": earlier, "parent_author": 2, "quoted": "q"},
        parent="p",
    )
    assert post.context == (
        ThreadEntry("title", "t", "1"),
        ThreadEntry("earlier", "one", "1"),
        ThreadEntry("earlier", "two"),
        ThreadEntry("earlier", "three"),
        ThreadEntry("parent", "p", "2"),
        ThreadEntry("quoted", "q"),
    )
    assert (post.nulled, post.context_dropped) == ((), 0)
    assert post.text_bytes == len("hello" + "t" + "one" + "two" + "three" + "p" + "q")


def test_pointers_lead_to_other_places() -> None:
    document = {
        "id": "1",
        "text": "hello",
        "reply": {"to": "p", "by": 3},
        "posts": [{"m": {"b": "one", "u": 4}}],
        "topic": "t",
    }
    settings = PostSettings(
        parent="/reply/to",
        thread=ThreadSettings(
            title="/topic",
            parent_author="/reply/by",
            earlier="/posts",
            earlier_text="/m/b",
            earlier_author="/m/u",
        ),
    )
    post = PostParser(settings).parse(json.dumps(document).encode(), [])
    assert post.context == (
        ThreadEntry("title", "t"),
        ThreadEntry("earlier", "one", "4"),
        ThreadEntry("parent", "p", "3"),
    )


@pytest.mark.parametrize(
    ("thread", "named"),
    [
        ({"title": ["a", "b"]}, ("thread.title",)),
        ({"quoted": {}}, ("thread.quoted",)),
        ({"earlier": "x"}, ("thread.earlier",)),
        ({"earlier": [1, None, {"text": []}, {}]}, ("thread.earlier",)),
        ({"title": "t", "title_author": []}, ("thread.title_author",)),
        ({"title": "t", "title_author": "x" * 5_000}, ("thread.title_author",)),
    ],
)
def test_odd_values_are_dropped_and_named(thread: object, named: tuple[str, ...]) -> None:
    post = parse(thread)
    assert post.nulled == named
    assert all(entry == ThreadEntry("title", "t") for entry in post.context)


@pytest.mark.parametrize("thread", [None, "id-7", 7, [], {}, {"title": None}, {"title": ""}])
def test_no_thread_is_not_named(thread: object) -> None:
    assert parse(thread) == parse(None)


def test_an_odd_earlier_post_leaves_the_others() -> None:
    post = parse({"earlier": [{"text": "one"}, {"text": {}}, {"text": "two", "author": {}}]})
    assert (texts(post), post.nulled) == (["one", "two"], ("thread.earlier",))


def test_the_newest_earlier_posts_are_kept_and_the_rest_is_counted() -> None:
    earlier = [{"text": f"post {number}"} for number in range(30)]
    post = parse({"earlier": earlier}, earlier_posts_max=2)
    assert (texts(post), post.context_dropped) == (["post 28", "post 29"], 28)
    assert parse({"earlier": earlier}, earlier_posts_max=0).context_dropped == 30


def test_bytes_are_given_to_the_parent_first_and_then_to_the_newest() -> None:
    earlier = ["a" * 5, "b" * 5, "c" * 5]
    post = parse({"earlier": earlier, "title": "t" * 4}, parent="p" * 6, max_bytes=20)
    assert (texts(post), post.context_dropped) == (["tttt", "bbbbb", "ccccc", "pppppp"], 1)
    assert post.text_bytes == 25
    post = parse({"earlier": earlier, "title": "t" * 4}, parent="p" * 21, max_bytes=20)
    assert (texts(post), post.nulled) == (["tttt", "aaaaa", "bbbbb", "ccccc"], ("parent",))


def test_an_empty_pointer_reads_nothing() -> None:
    post = parse({"title": "t", "earlier": ["one"]}, title="", earlier="")
    assert (post.context, post.nulled) == ((), ())


def test_an_empty_id_names_nobody() -> None:
    entries = parse({"title": "t", "title_author": "", "quoted": "q", "quoted_author": ""}).context
    assert [entry.author for entry in entries] == [None, None]
    assert speakers(entries, "") == [0, 0]


def test_a_wrong_pointer_is_an_error_of_the_settings() -> None:
    settings = ThreadSettings().model_copy(update={"quoted": "/a~2"})
    with pytest.raises(SettingsError, match=r"post\.thread\.quoted"):
        ThreadReader(settings, 10)


def test_a_topic_keeps_the_thread_settings_that_it_does_not_set() -> None:
    settings = PostSettings.model_validate(
        {
            "thread": {"title": "/subject", "quoted": "/quote"},
            "topics": {"mail": {"thread": {"quoted": "/cited"}}},
        }
    )
    document = {"id": 1, "text": "hello", "subject": "s", "quote": "q", "cited": "c"}
    value = json.dumps(document).encode()
    parser = PostParser(settings)
    assert texts(parser.parse(value, [])) == ["s", "q"]
    assert texts(parser.of_topic("mail").parse(value, [])) == ["s", "c"]
