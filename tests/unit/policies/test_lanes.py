"""Lanes in routes.yaml: what they match, what is refused and where, and what the linter says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_guard.core.errors import PolicyError
from stream_guard.policies.diff import diff_lines, diff_policies
from stream_guard.policies.lanes import Lane, LaneLimits, Lanes, Quota, TenantShare, severity_of
from stream_guard.policies.lint import lint_policies
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.routes_file import read_routes
from stream_guard.policies.routing import Condition, RouteFacts
from stream_guard.policies.yaml_document import read_yaml

FULL = """
default: [spam]
lanes:
  - name: children
    when: {severity: [high, critical]}
    weight: 8
    goal_s: 5
    limits: {records: 500, bytes: 1000000, tokens: 200000}
  - name: comments
    when:
      topic: "forum.*"
      header: {x-surface: [comments, chat]}
      field: {/meta/paid: true}
      tenant: [acme, "acme-*"]
    weight: 2.5
    quota: {tokens_per_s: 500, burst_tokens: 20000, past: low_effort}
    tenants:
      acme: {weight: 3}
      acme-eu: {quota: {tokens_per_s: 50, burst_tokens: 1000, past: undetermined}}
  - name: history
    when: {topic: old}
    class: backfill
"""
SPAM = make_policy("spam", b"S1: Advertising\nAnswer `VIOLATES` or `SAFE`.")
GRAVE = make_policy(
    "grave",
    b"G1: Harm\nG2: Rudeness\nAnswer `VIOLATES` or `SAFE`.",
    metadata=b"categories:\n  G1: {violates: true, severity: critical}\n  G2: {violates: true, severity: low}\n",
)


def lanes(text: str) -> Lanes:
    return read_routes(read_yaml(text.encode(), "routes.yaml"), ("spam", "grave")).lanes


def test_a_file_without_lanes_has_none() -> None:
    assert not lanes("default: [spam]")


def test_every_key_is_read() -> None:
    children, comments, history, rest = lanes(FULL).all
    assert children == Lane(
        "children",
        severities=("high", "critical"),
        weight=8,
        goal_s=5,
        limits=LaneLimits(500, 1_000_000, 200_000),
    )
    assert comments.quota == Quota(500, 20_000, "low_effort")
    assert comments.tenants == {
        "acme": TenantShare(3),
        "acme-eu": TenantShare(1, Quota(50, 1_000, "undetermined")),
    }
    assert history.backfill
    assert rest == Lane("rest")


@pytest.mark.parametrize(
    ("facts", "severity", "expected"),
    [
        (RouteFacts("posts"), None, "rest"),
        (RouteFacts("posts"), "critical", "children"),
        (RouteFacts("old"), "low", "history"),
        (RouteFacts("old"), "high", "children"),
        (
            RouteFacts(
                "forum.a", [("x-surface", b"chat")], {"meta": {"paid": True}}, None, "acme-2"
            ),
            None,
            "comments",
        ),
        (
            RouteFacts(
                "forum.a", [("x-surface", b"chat")], {"meta": {"paid": False}}, None, "acme"
            ),
            None,
            "rest",
        ),
        (RouteFacts("forum.a", [], {"meta": {"paid": True}}, None, "acme"), None, "rest"),
    ],
)
def test_the_first_lane_whose_conditions_hold_takes_the_post(
    facts: RouteFacts, severity: str | None, expected: str
) -> None:
    assert lanes(FULL).of(facts, severity).name == expected  # type: ignore[arg-type]


def test_a_policy_counts_by_its_most_severe_violating_category() -> None:
    assert severity_of(SPAM.taxonomy) is None
    assert severity_of(GRAVE.taxonomy) == "critical"


def test_the_lanes_of_a_topic_are_known_where_no_condition_reads_the_post() -> None:
    read = lanes(FULL)
    assert [one.name for one in read.possible("old", [None])] == ["history"]
    assert [one.name for one in read.possible("posts", [None])] == ["rest"]
    assert [one.name for one in read.possible("forum.a", [None])] == ["comments", "rest"]
    assert [one.name for one in read.possible("forum.a", [None, "high"])] == [
        "comments",
        "rest",
        "children",
    ]


@given(
    topics=st.lists(st.sampled_from(["a", "b", "c", "*"]), min_size=1, max_size=4, unique=True),
    topic=st.sampled_from(["a", "b", "c", "d"]),
    tenant=st.sampled_from([None, "x", "y"]),
)
def test_a_post_is_always_in_a_lane_that_its_topic_may_have(
    topics: list[str], topic: str, tenant: str | None
) -> None:
    made = Lanes(
        [
            Lane(f"{name}-{kind}", conditions)
            for name in topics
            for kind, conditions in (
                ("x", (Condition("topic", (name,)), Condition("tenant", ("x",)))),
                ("all", (Condition("topic", (name,)),)),
            )
        ]
    )
    lane = made.of(RouteFacts(topic, tenant=tenant), None)
    assert lane.name in {one.name for one in made.possible(topic, [None])}


def test_tenants_that_are_not_named_have_the_lanes_own_quota() -> None:
    comments = lanes(FULL).all[1]
    assert comments.quota_of("other") == comments.quota_of(None) == comments.quota
    assert comments.quota_of("acme") is None
    assert comments.tenant_weight("acme") == 3
    assert comments.tenant_weight(None) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("- {name: a, wight: 2}", "routes.yaml:3: lanes.0.wight: unknown key"),
        ("- {name: A b}", "routes.yaml:3: lanes.0.name: "),
        ("- {weight: 2}", "routes.yaml:3: lanes.0.name: Field required"),
        ("- {name: a, weight: 0}", "routes.yaml:3: lanes.0.weight: "),
        ("- {name: a, weight: .nan}", "routes.yaml:3: lanes.0.weight: "),
        ("- {name: a, weight: true}", "routes.yaml:3: lanes.0.weight: "),
        ("- {name: a, goal_s: -1}", "routes.yaml:3: lanes.0.goal_s: "),
        ("- {name: a, limits: {}}", "routes.yaml:3: lanes.0.limits: has no limit"),
        ("- {name: a, limits: {records: 0}}", "routes.yaml:3: lanes.0.limits.records: "),
        ("- {name: a, class: soon}", "routes.yaml:3: lanes.0.class: "),
        ("- {name: a, kind: live}", "routes.yaml:3: lanes.0.kind: unknown key"),
        ("- {name: a, when: {}}", "routes.yaml:3: lanes.0.when: has no condition; leave out when"),
        ("- {name: a, when: {severity: grave}}", "routes.yaml:3: lanes.0.when.severity"),
        ("- {name: a, quota: {tokens_per_s: 1}}", "lanes.0.quota.burst_tokens: Field required"),
        (
            "- {name: a, quota: {tokens_per_s: 1, burst_tokens: 1, past: drop}}",
            "routes.yaml:3: lanes.0.quota.past: ",
        ),
        ("- {name: a, tenants: {x: {wait: 1}}}", "routes.yaml:3: lanes.0.tenants.x.wait: unknown"),
        (
            "- {name: a, when: {topic: x}}\n  - {name: a}",
            "routes.yaml:4: lanes.1.name: duplicate lane 'a'",
        ),
        ("- {name: a}\n  - {name: b}", "routes.yaml:4: lanes.1: lane 'a' has no conditions"),
        (
            "- {name: a, when: {topic: x}}\n  - {name: b, when: {topic: x}}",
            "routes.yaml:4: lanes.1.when: lane 'a' has the same conditions",
        ),
        (
            "- {name: rest, when: {topic: x}}",
            "routes.yaml:3: lanes.0.name: 'rest' is the lane of posts that match no other",
        ),
        ("\n".join(["- {name: a}", *["  - {name: a}"] * 32]), "routes.yaml:2: lanes: "),
    ],
)
def test_a_mistake_is_refused_with_its_place(entry: str, message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        lanes(f"default: [spam]\nlanes:\n  {entry}\n")
    assert message in str(refused.value)


def policy_set(text: str) -> PolicySet:
    routing = read_routes(read_yaml(text.encode(), "routes.yaml"), ("spam", "grave"))
    return PolicySet.of({"spam": SPAM, "grave": GRAVE}, routing)


def test_the_linter_finds_what_no_post_can_meet() -> None:
    made = policy_set(
        "default: [spam, grave]\nlanes:\n"
        "  - {name: a, when: {severity: [critical, medium], tenant: x}, tenants: {x: {}, y: {}}}\n"
    )
    found = {one.code: one.message for one in lint_policies(made) if one.code.startswith("SG2")}
    assert "severity medium" in found["SG203"]
    assert "'y'" in found["SG204"]


def test_the_difference_of_two_sets_names_the_lanes() -> None:
    before = policy_set("default: [spam, grave]\nlanes: [{name: a, weight: 2}]\n")
    after = policy_set(
        "default: [spam, grave]\n"
        "lanes: [{name: a, weight: 3, quota: {tokens_per_s: 5, burst_tokens: 9}}]\n"
    )
    shown = "\n".join(diff_lines(diff_policies(before, after)))
    assert "lanes.a.weight: 2.0 -> 3.0" in shown
    assert "lanes.a.quota: nothing -> 5 tokens/s, burst 9, past it delay" in shown
