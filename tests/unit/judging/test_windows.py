"""Long posts: every character is in some window, no grapheme is cut, and every prompt fits."""

from __future__ import annotations

import itertools
import random
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.errors import PromptError
from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance
from stream_guard.judging.families.registry import load_family
from stream_guard.judging.graphemes import may_cut
from stream_guard.judging.windows import Fitted, fit_post, merge_windows
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import Post, ThreadEntry
from stream_guard.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.core.vocabulary import Decision
    from stream_guard.judging.families.family import Family, Prefix

POLICY = make_policy("insults", b"No insults.")
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAG = "\U0001f1e9\U0001f1ea"
PIECES = (
    *("word", "Ein Satz. ", "Noch einer! ", "\n", "\n\n", "\r\n", " ", "\u4f60\u597d\u3002", "e\u0301", FAMILY, FLAG),
    *("\U0001f44d\U0001f3fd", "\u1112\u1161\u11ab", "\u0e01\u0e33", "\u0915\u094d\u0937", "LONG", "<|end|>", "\u2028"),
)  # fmt: skip
ATOMS = (
    "e\u0301",
    FAMILY,
    FLAG,
    "\U0001f44d\U0001f3fd",
    "\u1112\u1161\u11ab",
    "\u0915\u094d\u0937",
    "\r\n",
)


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family(EngineSettings(model="demo"))


@pytest.fixture(scope="module")
def prefix(family: Family) -> Prefix:
    return family.prefix(POLICY, "low")


def a_post(text: str, **more: object) -> Post:
    return replace(Post("1", text, "", len(text)), **more)  # type: ignore[arg-type]


def places(text: str, windows: Sequence[str]) -> list[tuple[int, int]]:
    """Return where each window is in a text; it fails where one occurs twice, or leaves a gap."""
    found: list[tuple[int, int]] = []
    end = 0
    for window in windows:
        at = text.find(window)
        assert text.find(window, at + 1) == -1, "two places"
        assert 0 <= at <= end < at + len(window), "a gap"
        end = at + len(window)
        found.append((at, end))
    assert end == len(text)
    return found


def test_random_posts_are_covered_whole_and_no_grapheme_is_cut(
    family: Family, prefix: Prefix
) -> None:
    chance = random.Random(6)  # noqa: S311 - repeatable, not secret
    empty = len(family.prompt(a_post(""), prefix))
    for _ in range(60):
        pieces = chance.choices(PIECES, k=chance.randrange(50, 400))
        # Numbers and long words make each window occur once.
        text = "".join(
            f"{(2 * at + 7) ** 30:x}"
            if piece == "LONG"
            else f"{piece}{at}"
            if at % 3 == 0
            else piece
            for at, piece in enumerate(pieces)
        )
        room = empty + chance.randrange(60, 200)
        overlap = chance.choice((0, 5, 30, 4_000))
        fitted = fit_post(a_post(text), prefix, family, room, overlap)
        assert all(len(ids) <= room for ids in fitted.prompts)
        windows = [post.text for post in fitted.posts]
        cuts = {at for place in places(text, windows) for at in place} - {0, len(text)}
        for atom in ATOMS:
            at = text.find(atom)
            while at != -1:
                assert cuts.isdisjoint(range(at + 1, at + len(atom))), repr(atom)
                at = text.find(atom, at + 1)
        for post, ids in zip(fitted.posts, fitted.prompts, strict=True):
            assert family.prompt(post, prefix) == ids
            assert tuple(ids[: len(prefix.ids)]) == prefix.ids


def test_windows_end_at_the_ends_of_paragraphs_and_overlap(family: Family, prefix: Prefix) -> None:
    sentence = "One sentence follows the other here."
    text = "\n\n".join(f"Number {number}: {sentence} {sentence}" for number in range(60))
    room = len(family.prompt(a_post(""), prefix)) + 400
    windows = [post.text for post in fit_post(a_post(text), prefix, family, room, 60).posts]
    assert len(windows) > 3
    assert all(window.endswith("\n\n") for window in windows[:-1])
    found = places(text, windows)
    shared = [end - start for (_, end), (start, _) in itertools.pairwise(found)]
    assert all(0 < length < 500 for length in shared)


def test_a_grapheme_longer_than_a_window_is_not_refused(family: Family, prefix: Prefix) -> None:
    text = "a" + "\u0301" * 500
    room = len(family.prompt(a_post(""), prefix)) + 60
    fitted = fit_post(a_post(text), prefix, family, room, 10)
    assert sum(len(post.text) for post in fitted.posts) >= len(text)
    assert fitted.posts[0].text.startswith("a")
    assert all(len(ids) <= room for ids in fitted.prompts)


def test_a_policy_that_leaves_no_room_at_all_is_told(family: Family, prefix: Prefix) -> None:
    empty = len(family.prompt(a_post(""), prefix))
    with pytest.raises(PromptError, match=r"leaves -5 tokens .* engine\.max_model_len"):
        fit_post(a_post("hello"), prefix, family, empty - 5, 10)


def test_the_oldest_of_the_thread_is_dropped_before_the_post_is_split(
    family: Family, prefix: Prefix
) -> None:
    entries = (
        ThreadEntry("title", "the title"),
        *(ThreadEntry("earlier", f"post {number} " * 20) for number in range(8)),
        ThreadEntry("parent", "the parent"),
    )
    post = a_post("hello", context=entries)
    whole = len(family.prompt(post, prefix))
    assert fit_post(post, prefix, family, whole, 10) == Fitted(
        (post,), (family.prompt(post, prefix),), 0
    )
    fitted = fit_post(post, prefix, family, whole - 1, 10)
    assert (fitted.context_dropped, fitted.posts[0].context) == (1, (entries[0], *entries[2:]))
    bare = len(family.prompt(a_post("hello", context=entries[-1:]), prefix))
    fitted = fit_post(post, prefix, family, bare, 10)
    assert (fitted.context_dropped, fitted.posts[0].context) == (9, entries[-1:])
    fitted = fit_post(post, prefix, family, bare - 1, 10)
    assert (fitted.context_dropped, fitted.posts[0].context) == (10, ())
    long = a_post("hello there. " * 300, context=entries)
    fitted = fit_post(long, prefix, family, whole, 10)
    assert fitted.context_dropped == 10
    assert len(fitted.posts) > 1


def test_a_title_is_in_every_window_unless_it_fills_one(family: Family, prefix: Prefix) -> None:
    room = len(family.prompt(a_post(""), prefix)) + 150
    short = fit_post(a_post("Go on. " * 300, title="News"), prefix, family, room, 10)
    assert {post.title for post in short.posts} == {"News"}
    title, text = (" ".join(f"{word}{number}." for number in range(150)) for word in ("a", "b"))
    long = fit_post(a_post(text, title=title), prefix, family, room, 10)
    assert {post.title for post in long.posts} == {None}
    places(f"{title}\n\n{text}", [post.text for post in long.posts])


@pytest.mark.parametrize("atom", ATOMS)
def test_no_cut_is_allowed_within_a_grapheme(atom: str) -> None:
    text = f"a{atom}{atom}b"
    wanted = {0, 1, 1 + len(atom), 1 + 2 * len(atom), len(text)}
    assert {at for at in range(len(text) + 1) if may_cut(text, at)} == wanted


def test_every_combining_character_stays_with_its_base() -> None:
    for code in range(0x300, 0x1F000):
        if unicodedata.category(chr(code)) in ("Mn", "Me", "Mc"):
            assert not may_cut(f"a{chr(code)}", 1)


# What the windows decide


def judged(decision: Decision, confidence: float | None = None, **more: object) -> Judgement:
    cut = bool(more.pop("cut", False))
    provenance = Provenance("safeguard", "m", prompt_tokens=10, cached_tokens=4, output_tokens=2)
    provenance.reasoning_cut = cut
    answer = replace(Answer(decision), **more)  # type: ignore[arg-type]
    request = JudgeRequest("1", a_post("x"), POLICY)
    return Judgement(request, answer, None, provenance, confidence, "test", 5, 9)


def merged(*judgements: Judgement) -> Judgement:
    request = JudgeRequest("1", a_post("x"), POLICY)
    fitted = Fitted((request.post,) * len(judgements), ([1, 2],) * len(judgements), 3)
    return merge_windows(request, fitted, 77, judgements)


def test_the_worst_window_decides() -> None:
    safe, violates = judged("safe", 0.1), judged("violates", 0.8, category="A1", rationale="r")
    undecided = judged("undetermined", parse_status="timeout")
    found = merged(safe, undecided, violates, safe)
    assert (found.answer, found.confidence) == (violates.answer, 0.8)
    assert merged(safe, undecided).answer == undecided.answer
    assert merged(safe, safe).answer == safe.answer
    assert merged(violates, judged("violates", 0.9, category="B1")).answer.category == "B1"  # type: ignore[union-attr]
    asked = judged("undetermined", needs_review=True, labels=("ESCALATE",))
    assert merged(undecided, asked).answer == asked.answer


def test_a_safe_post_is_as_sure_as_its_least_sure_window() -> None:
    found = merged(judged("safe", 0.1), judged("safe", 0.4), judged("safe", 0.2))
    assert (found.confidence, found.confidence_method) == (0.4, "test")


def test_tokens_are_summed_and_the_windows_are_told() -> None:
    provenance = merged(judged("safe"), judged("safe", cut=True), judged("safe")).provenance
    assert provenance is not None
    assert (provenance.prompt_tokens, provenance.cached_tokens, provenance.output_tokens) == (
        30,
        12,
        6,
    )
    assert (provenance.windows, provenance.context_dropped, provenance.prompt_tokens_max) == (
        3,
        3,
        77,
    )
    assert provenance.reasoning_cut
    assert provenance.attempts == 3


def test_a_window_that_asks_for_a_person_makes_a_safe_post_ask() -> None:
    found = merged(judged("safe"), judged("safe", needs_review=True))
    assert found.answer is not None
    assert found.answer.needs_review


def test_an_error_of_one_window_is_the_posts() -> None:
    error = PromptError("bad")
    broken = replace(judged("safe"), answer=None, error=error)
    found = merged(judged("violates"), broken)
    assert (found.answer, found.error) == (None, error)
