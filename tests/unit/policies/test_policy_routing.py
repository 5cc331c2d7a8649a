"""Routing is total, stable and explained, whatever the post."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stream_guard.cli.route import route
from stream_guard.core.errors import PolicyError
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.routes_file import RULES_MAX, read_routes
from stream_guard.policies.routing import (
    Canary,
    Condition,
    NoRouteError,
    RoutedId,
    RouteFacts,
    RouteRule,
    Routing,
    Shadow,
    in_share,
)
from stream_guard.policies.yaml_document import read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# The machine that runs this may be busy: what is slow is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
KNOWN = ("a", "b", "c", "d", "e")
FULL = """
default: [a]
topics:
  forum.posts: [b]
  "forum.*": [c]
rules:
  - name: german comments
    when:
      topic: "forum.*"
      language: de
    policies: [d, a]
  - name: acme
    when: {tenant: [acme, "acme-*"], header: {x-surface: [comments, chat]}}
    policies: [e]
  - name: paid
    when: {field: {/meta/paid: true, /meta/tags/0: [1, "x*"]}}
    policies: [b]
"""


def routing(text: str) -> Routing:
    return read_routes(read_yaml(text.encode(), "routes.yaml"), KNOWN)


def ids(facts: RouteFacts, text: str = FULL) -> list[str]:
    return [routed.policy for routed in routing(text).route(facts)]


def document(*, paid: Any, tags: list[Any]) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    return {"meta": {"paid": paid, "tags": tags}}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (RouteFacts("other"), ["a"]),
        (RouteFacts("forum.posts"), ["b"]),
        (RouteFacts("forum.news"), ["c"]),
        (RouteFacts("forum.posts", language="de"), ["d", "a"]),
        (RouteFacts("forum.posts", language="DE-at"), ["d", "a"]),
        (RouteFacts("forum.posts", language="den"), ["b"]),
        (RouteFacts("other", language="de"), ["a"]),
        (RouteFacts("other", [("x-surface", b"chat")], tenant="acme-2"), ["e"]),
        (RouteFacts("other", [("x-surface", b"mail")], tenant="acme"), ["a"]),
        (
            RouteFacts("other", [("x-surface", b"mail"), ("x-surface", b"chat")], tenant="acme"),
            ["e"],
        ),
        (RouteFacts("other", [("x-surface", b"\xff")], tenant="acme"), ["a"]),
        (RouteFacts("other", tenant="acme"), ["a"]),
        (RouteFacts("other", document=document(paid=True, tags=[1])), ["b"]),
        (RouteFacts("other", document=document(paid=True, tags=["xyz"])), ["b"]),
        (RouteFacts("other", document=document(paid=1, tags=[1])), ["a"]),
        (RouteFacts("other", document=document(paid="true", tags=[1])), ["a"]),
        (RouteFacts("other", document=document(paid=True, tags=[True])), ["a"]),
        (RouteFacts("other", document=document(paid=True, tags=[])), ["a"]),
        (RouteFacts("other", document=[]), ["a"]),
        (
            RouteFacts("forum.posts", language="de", document=document(paid=True, tags=[1])),
            ["d", "a"],
        ),
    ],
)
def test_first_rule_that_matches_wins_then_topic_then_default(
    facts: RouteFacts, expected: list[str]
) -> None:
    assert ids(facts) == expected


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/a~1b/m~0n", True),
        ("/list/1", True),
        ("/list/01", False),
        ("/list/-", False),
        ("/x/y", False),
    ],
)
def test_pointers_are_those_of_rfc_6901(pointer: str, found: bool) -> None:  # noqa: FBT001
    condition = Condition("field", ("*",), pointer)
    post = {"a/b": {"m~n": "v"}, "list": ["v", "v"], "x": "y"}
    assert condition.matches(RouteFacts("t", document=post)) is found


def test_value_longer_than_patterns_look_at_is_still_compared_whole() -> None:
    condition = Condition("tenant", ("a*b",))
    assert not condition.matches(RouteFacts("t", tenant="a" + "x" * 2_000 + "b"))
    assert Condition("tenant", ("x" * 2_000,)).matches(RouteFacts("t", tenant="x" * 2_000))


CANARY = "default: [a, b]\ncanaries: [{policy: a, candidate: c, percent: 50}]"
SHADOW = (
    "default: [a]\ntopics: {t: [b]}\nshadows: [{policy: c, beside: b}, {policy: d, percent: 0}]"
)


def test_canary_takes_the_place_of_its_policy_and_is_marked() -> None:
    seen = {routing(CANARY).route(RouteFacts("t", author=str(n))) for n in range(50)}
    assert seen == {
        (RoutedId("a"), RoutedId("b")),
        (RoutedId("c", "canary", "a"), RoutedId("b")),
    }


def test_post_without_the_key_is_in_no_canary() -> None:
    text = CANARY.replace("50", "100")
    assert ids(RouteFacts("t"), text) == ["a", "b"]
    assert ids(RouteFacts("t", author="x"), text) == ["c", "b"]


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        ("id", RouteFacts("t", id="x")),
        ("tenant", RouteFacts("t", tenant="x")),
        ("language", RouteFacts("t", language="x")),
        ("header:h", RouteFacts("t", [("h", b"x")])),
        ("/thread", RouteFacts("t", document={"thread": 7})),
    ],
)
def test_any_of_these_can_be_the_key(key: str, facts: RouteFacts) -> None:
    text = CANARY.replace("percent: 50", f"percent: 100, key: '{key}'")
    assert ids(facts, text) == ["c", "b"]
    assert ids(RouteFacts("t"), text) == ["a", "b"]


def test_shadow_is_added_beside_its_policy_only() -> None:
    shadowed = routing(SHADOW).route(RouteFacts("t", id="x"))
    assert shadowed == (RoutedId("b"), RoutedId("c", "shadow"))
    assert routing(SHADOW).route(RouteFacts("u", id="x")) == (RoutedId("a"),)


def test_policy_that_judges_anyway_is_no_shadow() -> None:
    text = "default: [a]\nshadows: [{policy: a}]"
    assert routing(text).route(RouteFacts("t", id="x")) == (RoutedId("a"),)


@pytest.mark.parametrize("percent", [0, 1, 5, 50, 99, 100])
def test_share_of_keys_is_the_percentage(percent: float) -> None:
    chosen = sum(in_share("salt", f"author-{n}", percent) for n in range(10_000))
    assert chosen == pytest.approx(percent * 100, abs=120)
    if percent in {0, 100}:
        assert chosen == percent * 100


def test_share_is_the_same_for_ever() -> None:
    """These were computed apart from the code; a change would move authors between versions."""
    chosen = [n for n in range(40) if in_share("canary:c", f"author-{n}", 20)]
    assert chosen == [0, 1, 2, 9, 14, 24, 26, 27, 29, 30, 36]


@patient
@given(st.text(), st.floats(0, 100), st.floats(0, 100))
def test_larger_share_only_adds_keys(key: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    assert in_share("s", key, larger) or not in_share("s", key, smaller)


names = st.sampled_from(["t", "forum.posts", "forum.news", "x*", "forum.*", "*"])
topics = st.sampled_from(["t", "forum.posts", "forum.news", "xyz", "zzz"])
lists = st.lists(st.sampled_from(KNOWN), min_size=1, max_size=3, unique=True).map(tuple)
values = st.sampled_from([None, "de", "de-AT", "acme", "x", "*", "[", ""]) | st.text(max_size=5)
conditions = st.one_of(
    st.builds(Condition, st.just("topic"), st.tuples(names)),
    st.builds(Condition, st.sampled_from(["language", "tenant"]), st.tuples(values)),
    st.builds(Condition, st.just("header"), st.tuples(values), st.just("h")),
    st.builds(
        Condition,
        st.just("field"),
        st.tuples(values | st.booleans() | st.integers(0, 2)),
        st.sampled_from(["/f", "/f/0", "/"]),
    ),
)
rules = st.builds(
    RouteRule, st.just("r"), st.lists(conditions, min_size=1, max_size=3).map(tuple), lists
)
slugs = st.sampled_from(KNOWN)
keys = st.sampled_from(["author", "id", "tenant", "header:h", "/f"])
percents = st.sampled_from([0.0, 5.0, 50.0, 100.0])
routings = st.builds(
    Routing,
    st.lists(rules, max_size=4).map(tuple),
    st.dictionaries(names, lists, max_size=4),
    lists,
    st.lists(st.builds(Canary, percents, keys, slugs, slugs), max_size=2).map(tuple),
    st.lists(st.builds(Shadow, percents, keys, slugs, st.none() | slugs), max_size=2).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["f", "0"]), inner),
    max_leaves=5,
)
facts_of_any_post = st.builds(
    RouteFacts,
    topics,
    st.lists(st.tuples(st.sampled_from(["h", "g"]), st.binary(max_size=5)), max_size=3),
    json_values,
    values,
    values,
    values,
    values,
)


@patient
@given(routings, facts_of_any_post)
def test_routing_is_total_with_a_default(made: Routing, facts: RouteFacts) -> None:
    routed = made.route(facts)
    assert routed
    assert len({r.policy for r in routed}) == len(routed)
    assert {r.policy for r in routed} <= set(KNOWN)
    assert any(r.mode != "shadow" for r in routed)


@patient
@given(routings, facts_of_any_post)
def test_routing_depends_on_its_arguments_alone(made: Routing, facts: RouteFacts) -> None:
    assert made.route(facts) == made.route(facts)


@patient
@given(routings, facts_of_any_post)
def test_what_a_topic_alone_settles_is_what_each_post_gets(
    made: Routing, facts: RouteFacts
) -> None:
    fixed = made.fixed(facts.topic)
    assert fixed is None or fixed == made.route(facts)


@patient
@given(routings, facts_of_any_post)
def test_every_route_can_be_explained(made: Routing, facts: RouteFacts) -> None:
    assert list(made.explain(facts))


def test_topic_alone_settles_it_where_no_rule_may_match() -> None:
    made = routing(
        FULL.replace(
            "  - name: acme",
            "  - name: zzz\n    when: {topic: z}\n    policies: [a]\n  - name: acme",
        )
    )
    assert made.fixed("forum.posts") is None
    assert routing("default: [a]\ntopics: {'f*': [b]}").fixed("forum") == (RoutedId("b"),)
    assert made.fixed("z") == (RoutedId("a"),)


def test_topic_without_route_or_default_has_no_route() -> None:
    with pytest.raises(NoRouteError):
        routing("topics: {a: [a]}").route(RouteFacts("b"))


def policy_set(text: str) -> PolicySet:
    return PolicySet.of({slug: make_policy(slug, b"x") for slug in KNOWN}, routing(text))


def test_snapshot_resolves_ids_to_policies() -> None:
    routed = policy_set(CANARY.replace("50", "100")).route_post(RouteFacts("t", author="x"))
    assert [(r.policy.id, r.mode, r.stands_for) for r in routed] == [
        ("c", "canary", "a"),
        ("b", "live", None),
    ]


def test_snapshot_says_which_topics_need_no_look_at_the_post() -> None:
    assert policy_set(CANARY).route_topic("t") is None
    fixed = policy_set("default: [a]").route_topic("t")
    assert fixed is not None
    assert [r.policy.id for r in fixed] == ["a"]


def test_snapshot_refuses_a_route_to_nothing() -> None:
    with pytest.raises(PolicyError, match="default names the policy 'zz', which does not exist"):
        PolicySet({"a": make_policy("a", b"x")}, default=("zz",))


@pytest.mark.parametrize(
    ("text", "line", "wanted"),
    [
        ("default: [a]\nrules: [{name: x, policies: [a]}]", 2, "when: Field required"),
        ("default: [a]\nrules:\n- name: x\n  when: {}\n  policies: [a]", 4, "has no condition"),
        (
            "default: [a]\nrules:\n- name: x\n  when: {tenant: a}\n  policies: [zz]",
            5,
            "no policy 'zz'",
        ),
        (
            "default: [a]\nrules:\n- name: x\n  when: {tenat: a}\n  policies: [a]",
            4,
            "unknown key (did you mean tenant?)",
        ),
        (
            "default: [a]\nrules:\n- name: x\n  when: {field: {x: 1}}\n  policies: [a]",
            4,
            "JSON pointer",
        ),
        (
            "default: [a]\nrules:\n- name: x\n  when: {topic: 'a b'}\n  policies: [a]",
            4,
            "topic's name",
        ),
        ("default: [a]\nrules:\n- name: x\n  when: {tenant: []}\n  policies: [a]", 4, "at least 1"),
        (
            "default: [a]\nrules:\n- &r {name: x, when: {tenant: a}, policies: [a]}\n- *r",
            4,
            "aliases",
        ),
        (
            "default: [a]\nrules:\n" + "- {name: x, when: {tenant: a}, policies: [a]}\n" * 2,
            4,
            "duplicate rule name 'x'",
        ),
        (
            "topics: {t: [a]}\nrules:\n- {name: x, when: {tenant: a}, policies: [a]}",
            2,
            "need a default",
        ),
        ("default: [a]\ncanaries: [{policy: a, candidate: zz, percent: 5}]", 2, "no policy 'zz'"),
        (
            "default: [a]\ncanaries: [{policy: a, candidate: b, percent: 101}]",
            2,
            "less than or equal",
        ),
        (
            "default: [a]\ncanaries: [{policy: a, candidate: b, percent: true}]",
            2,
            "should be a valid number",
        ),
        ("default: [a]\nshadows: [{policy: b, percent: '5'}]", 2, "should be a valid number"),
        (
            "default: [a]\ncanaries: [{policy: a, candidate: b, percent: 5, key: mood}]",
            2,
            "must be author",
        ),
        ("default: [a]\ncanaries: [{policy: a, candidate: a, percent: 5}]", 2, "own candidate"),
        (
            "default: [a]\ncanaries:\n" + "- {policy: a, candidate: b, percent: 5}\n" * 2,
            4,
            "already has a canary",
        ),
        ("default: [a]\nshadows:\n- {policy: b}\n- {policy: b}", 4, "is already a shadow"),
        ("default: [a]\nshadows:\n- {policy: b, beside: b}", 3, "beside itself"),
        ("shadows:\n- {policy: b}", 1, "no routes; add a default"),
    ],
)
def test_bad_routes_are_named_with_their_line(text: str, line: int, wanted: str) -> None:
    with pytest.raises(PolicyError) as caught:
        routing(text)
    assert str(caught.value).startswith(f"routes.yaml:{line}: ")
    assert wanted in str(caught.value)


def test_too_many_rules_are_refused() -> None:
    rules = "".join(
        f"- {{name: r{n}, when: {{tenant: a}}, policies: [a]}}\n" for n in range(RULES_MAX + 1)
    )
    with pytest.raises(PolicyError, match=f"at most {RULES_MAX} items"):
        routing(f"default: [a]\nrules:\n{rules}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for slug in KNOWN:
        (tmp_path / slug).mkdir()
        (tmp_path / slug / "policy.md").write_text("Be kind.\n")
    (tmp_path / "routes.yaml").write_text(FULL)
    return tmp_path


def explain(folder: Path, posts: Sequence[dict[str, Any] | str], *options: str) -> list[str]:
    file = folder / "posts.jsonl"
    file.write_text("\n".join(p if isinstance(p, str) else json.dumps(p) for p in posts))
    app = typer.Typer()
    app.command()(route)
    result = CliRunner().invoke(app, [str(file), "--path", str(folder), *options])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_route_command_explains_which_rule_sent_a_post_where(folder: Path) -> None:
    post = {"id": "p1", "text": "hallo", "language": "de"}
    lines = explain(folder, [post], "--topic", "forum.posts")
    assert lines[0].startswith("line 1: p1: d@")
    assert lines[1:] == ["  rule 'german comments' matches", "  rule 'german comments' names d, a"]


def test_route_command_says_why_rules_do_not_match(folder: Path) -> None:
    post = {"id": "p1", "text": "hi", "tenant": "acme"}
    lines = explain(folder, [post], "--topic", "x", "--header", "x-surface=chat")
    assert lines[1:] == [
        "  rule 'german comments' does not match; condition not met: topic is forum.*",
        "  rule 'acme' matches",
        "  rule 'acme' names e",
    ]


def test_route_command_names_dead_letters_without_their_text(folder: Path) -> None:
    lines = explain(folder, ['{"id": "x", "text": 5}', "{"], "--topic", "x")
    assert [line.split(":")[1].strip() for line in lines] == ["would be a dead letter"] * 2
