"""What benchmarks send and count: posts in a known order, one verdict each, rates from the right ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from benchmarks import traffic
from benchmarks.engine_feed import fill_report
from benchmarks.report import Report
from benchmarks.sides import gauge_of
from benchmarks.workload import Given, by_policy, make_posts, policy_id, policy_text, write_policies
from stream_guard.policies.routing import RouteFacts
from stream_guard.policies.store import load_policies
from stream_guard.records.post import PostParser
from stream_guard.settings import PostSettings
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from pathlib import Path


def count_words(text: str) -> int:
    return len(text.split())


def texts(posts: list[Given]) -> list[str]:
    return [orjson.loads(post.value)["text"] for post in posts]


# Posts and policies


def test_equal_seeds_make_equal_posts() -> None:
    assert make_posts("a", 50, 4, seed=1) == make_posts("a", 50, 4, seed=1)
    assert texts(make_posts("a", 50, 4, seed=1)) != texts(make_posts("a", 50, 4, seed=2))


def test_another_run_has_the_same_posts_behind_another_first_word() -> None:
    one, other = texts(make_posts("a", 50, 4)), texts(make_posts("b", 50, 4))
    assert not set(one) & set(other)
    assert [text.partition(" ")[2] for text in one] == [text.partition(" ")[2] for text in other]


def test_boards_are_in_random_order_and_have_equal_shares() -> None:
    policies = [post.policy for post in make_posts("a", 64, 16)]
    assert policies != sorted(policies)
    assert all(policies.count(policy_id(board)) == 4 for board in range(16))


def test_lengths_are_mixed() -> None:
    lengths = sorted(len(text) for text in texts(make_posts("a", 500, 1)))
    assert lengths[-1] > 8 * lengths[250]


def test_sorting_keeps_the_order_within_a_policy() -> None:
    posts = make_posts("a", 64, 4)
    by = by_policy(posts)
    assert sorted(posts) == sorted(by)
    for board in range(4):
        mine = policy_id(board)
        assert [p for p in by if p.policy == mine] == [p for p in posts if p.policy == mine]
    assert [post.policy for post in by] == sorted(post.policy for post in posts)


def test_each_post_is_routed_to_its_own_policy_alone(tmp_path: Path) -> None:
    write_policies(tmp_path / "policies", 8, 60, count_words, mixed=True)
    policies = load_policies(tmp_path / "policies", effort="low", reasoning_tokens_max=10)
    assert {policy.effort for policy in policies.policies.values()} == {"low", "medium", "high"}
    parser = PostParser(PostSettings())
    for given in make_posts("a", 32, 8):
        post, document = parser.parse_document(given.value, [])
        (route,) = policies.route_post(RouteFacts.of("posts", [], document, post))
        assert (post.id, route.policy.id) == (given.id, given.policy)


def test_without_a_mix_all_policies_ask_for_one_effort(tmp_path: Path) -> None:
    write_policies(tmp_path / "policies", 3, 60, count_words, mixed=False)
    policies = load_policies(tmp_path / "policies", effort="high", reasoning_tokens_max=10)
    assert {policy.effort for policy in policies.policies.values()} == {"low"}


def test_a_policy_is_as_long_as_asked_and_hardly_longer() -> None:
    assert 600 <= count_words(policy_text(3, 600, count_words)) < 625
    assert policy_text(3, 600, count_words) != policy_text(4, 600, count_words)


# Counts


def seen(
    post: str, policy: str = "p", *, consumed_ms: int = 0, verdict_ms: int = 0
) -> traffic.Seen:
    return traffic.Seen(
        *(post, policy, 0, consumed_ms, 0, 0, verdict_ms, 0.0), 1, 0, 1, 1, undetermined=False
    )


POSTS = [Given("a", "p", b""), Given("b", "p", b"")]


def test_one_verdict_for_each_post_is_no_complaint() -> None:
    assert traffic.complaints("side", POSTS, [seen("b"), seen("a")], 0) == []


@pytest.mark.parametrize(
    ("verdicts", "dead", "complaint"),
    [
        ([seen("a")], 0, "side: 1 posts without a verdict (such as b)"),
        ([seen("a"), seen("b"), seen("b")], 0, "side: 1 posts with one too many (such as b)"),
        ([seen("a"), seen("b"), seen("c")], 0, "side: 1 posts with one too many (such as c)"),
        ([seen("a"), seen("b")], 1, "side: 1 dead letters"),
    ],
)
def test_any_other_count_is(verdicts: list[traffic.Seen], dead: int, complaint: str) -> None:
    assert traffic.complaints("side", POSTS, verdicts, dead) == [complaint]


def test_a_verdict_under_another_policy_does_not_count() -> None:
    found = traffic.complaints("side", POSTS, [seen("a"), seen("b", "q")], 0)
    assert len(found) == 2


def test_a_rate_runs_from_the_first_reading_to_the_last_verdict() -> None:
    verdicts = [
        seen("a", consumed_ms=1_000, verdict_ms=1_500),
        seen("b", consumed_ms=1_200, verdict_ms=3_000),
    ]
    assert traffic.rate_of(verdicts) == 1.0
    assert traffic.rate_of([]) is None


def test_a_flow_is_counted_between_its_ends() -> None:
    assert traffic.flow_of([3_000, 1_000, 2_000]) == 1.0
    assert traffic.flow_of([1_000]) == 0.0
    assert traffic.flow_of([]) == 0.0


def test_verdicts_are_read_as_the_service_writes_them() -> None:
    verdict: dict[str, Any] = make_verdict(offset=3)
    record = SimpleNamespace(value=orjson.dumps(verdict), timestamp=77)
    (one,) = traffic.seen_of([record])
    assert one.post == verdict["content"]["id"]
    assert one.verdict_ms == 77
    assert one.appended_ms == verdict["source"]["timestamp_ms"]
    assert one.prompt_tokens == verdict["provenance"]["prompt_tokens"]


def test_a_metric_is_summed_over_its_labels() -> None:
    page = '# HELP a b\nvllm:a{engine="0"} 2.0\nvllm:a{engine="1"} 3.0\nvllm:a_total 9.0\n'
    assert gauge_of(page, "vllm:a") == 5.0
    assert gauge_of(page, "vllm:b") == 0.0


# The engine's feed


def run(rate: float | None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - as a side reports it
    tokens = {"prompt_tokens": 10, "cached_tokens": 5, "output_tokens": 3, "tried_again": 3}
    return {"rate": rate, **tokens, **more}


def test_the_feed_is_judged_by_the_median_of_its_pairs() -> None:
    report = Report("engine-feed", "", {}, machine={})
    found = {
        "offline": [run(100.0), run(50.0), run(100.0)],
        "guard": [run(96.0, full_s=0.2), run(40.0, full_s=None), run(97.0, full_s=0.4)],
        "on_retry": [run(120.0), run(80.0), run(None)],
        "by token": [run(80.0), run(None), run(97.0)],
    }
    fill_report(report, found)
    assert [(target.value, target.state) for target in report.targets] == [
        (0.96, "reached"),
        (pytest.approx(1.1), "reached"),
        (pytest.approx(1.625), "reached"),
    ]
    assert (
        "| 2 | 50.00 | 40.00 | 0.80 | not measured | 80.00 | 2.00 | 3 | not measured | not measured |"
        in report.markdown()
    )
    assert "| first record to a full engine, median | 0.30 |" in report.markdown()


def test_speculation_is_held_against_the_same_without_it() -> None:
    report = Report("engine-feed", "", {}, machine={})
    sides = ("offline", "guard", "on_retry", "by token", "ngram")
    rates = dict(zip(sides, (100.0, 100.0, 120.0, 90.0, 90.0), strict=True))
    fill_report(report, {side: [run(rates[side], full_s=0.2)] for side in sides})
    assert "| 1 | 90.00 | 0.75 |" in report.markdown()
