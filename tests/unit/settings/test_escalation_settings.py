"""Settings of escalations that would lose posts, or send them round, are refused with the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stream_guard.settings import Settings


@pytest.mark.parametrize(
    ("cascade", "says"),
    [
        ({"escalation_group": "g"}, "escalation_group needs escalation_topic"),
        ({"escalation_topic": "e", "escalated_topic": "e"}, "posts go round"),
        (
            {"escalation_topic": "e", "escalation_deadline_s": 5, "escalation_group": "g"},
            'needs escalation = "withhold"',
        ),
        (
            {"escalation_topic": "e", "escalation": "withhold", "escalation_deadline_s": 5},
            "needs escalation_group",
        ),
        ({"escalation_topic": "posts"}, "also a topic of section kafka"),
        ({"escalated_topic": "stream-guard.verdicts"}, "also a topic of section kafka"),
        ({"escalation_topic": "e", "escalation_group": "stream-guard"}, "the other deployment"),
        ({"escalation_topic": "e", "escalation_hops_max": 4}, "less than or equal to 3"),
    ],
)
def test_a_contradiction_is_refused(cascade: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(kafka={"topics": ["posts"]}, cascade=cascade)


def test_topics_and_names_follow_from_the_settings() -> None:
    first = Settings(
        cascade={
            "escalation_topic": "e",
            "escalation": "withhold",
            "escalation_group": "large",
            "escalation_deadline_s": 5,
        }
    )
    assert (first.side_topics.read, first.side_topics.written) == (("e",), ("e",))
    assert first.deployment == "stream-guard"
    second = Settings(cascade={"escalated_topic": "e", "deployment": "large"})
    assert (second.side_topics.read, second.side_topics.written) == (("e",), ())
    assert second.deployment == "large"
    assert Settings().side_topics.all == ()
