"""Every record that a platform may emit ends as a verdict, a skip or a dead letter; only id and text fail a post."""

from __future__ import annotations

import pytest

from tools.platform_records import PLATFORMS, Case, outcome, run


def test_each_platforms_post_gets_a_verdict() -> None:
    for name, platform in PLATFORMS.items():
        place = next(iter(platform.document))
        case = Case(name, f"/{place}", platform.document[place], "as it is")
        assert outcome(case) == "verdict", name


def test_every_generated_record_has_one_outcome() -> None:
    found = run(2_000, seed=1)
    assert found.total() == 2_000
    assert {"verdict", "skip", "json", "encoding", "field_type", "too_large"} <= set(found)


@pytest.mark.parametrize(
    ("case", "ends_as"),
    [
        (Case("cloudevents, base64", "/data_base64", "\u00dd", "as it is"), "cloud_event"),
        (Case("slack", "/event/text", "cut <half>", "as it is"), "verdict"),
        (Case("slack", "/event/user", "x" * 200_000, "as it is"), "verdict"),
        (Case("debezium", "/op", "d", "as it is"), "skip"),
        (Case("discord", "/id", "x" * 200_000, "as it is"), "too_large"),
    ],
)  # fmt: skip
def test_what_was_found_before_stays_found(case: Case, ends_as: str) -> None:
    assert outcome(case) == ends_as
