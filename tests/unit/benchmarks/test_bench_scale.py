"""What the benchmark of scale sends, and what it makes of its looks."""

from __future__ import annotations

import orjson
import pytest

from benchmarks.scale import posts_of, steady_rate


def test_posts_have_ids_of_their_own() -> None:
    posts = list(posts_of("run", 6_000))
    assert len({post.id for post in posts}) == 6_000
    assert all(orjson.loads(post.value)["id"] == post.id for post in posts)
    assert len({orjson.loads(post.value)["text"] for post in posts}) == 5_000


def test_duplicates_have_one_text() -> None:
    posts = list(posts_of("run", 50, alike=True))
    assert len({orjson.loads(post.value)["text"] for post in posts}) == 1
    assert len({post.id for post in posts}) == 50


def test_joining_and_the_end_do_not_count() -> None:
    looks = [(0.0, 0), (5.0, 0), (6.0, 300), (7.0, 500), (8.0, 800), (20.0, 1_000)]
    assert steady_rate(looks, 1_000) == pytest.approx(250)


def test_too_few_looks_give_no_rate() -> None:
    assert steady_rate([(0.0, 0), (1.0, 500), (2.0, 1_000)], 1_000) is None
    assert steady_rate([], 1_000) is None
