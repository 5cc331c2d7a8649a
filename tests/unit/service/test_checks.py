"""``stream-guard check`` finds settings for topics that are not read, and for policies that do not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_guard.kafka import input_topics
from stream_guard.service.diagnostics.checks import run_checks

if TYPE_CHECKING:
    from pathlib import Path

    from stream_guard.settings import KafkaSettings


@pytest.mark.parametrize(
    ("topics", "says"),
    [("posts", None), ("comments", None), ("coments", "not read: coments; fix the names")],
)
def test_settings_for_a_topic_that_is_not_read_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, topics: str, says: str | None
) -> None:
    async def there(settings: KafkaSettings, *_: object) -> set[str]:
        del settings
        return {"posts", "comments"}

    monkeypatch.setattr(input_topics, "existing_topics", there)
    monkeypatch.setattr(input_topics, "check_topics", there)
    file = tmp_path / "settings.toml"
    file.write_text(
        f'[kafka]\ntopics = ["posts", "comments"]\n[post.topics.{topics}]\ntext = "/body"\n'
    )
    found = next(result for result in run_checks(file) if result.name == "topics")
    assert (found.error is None) == (says is None)
    assert says is None or says in str(found.error)


@pytest.mark.parametrize(
    ("topic", "policy", "says"),
    [
        ("review", "spam", None),
        ("review", "*", None),
        ("review", "spma", "spma (did you mean spam?); fix the names"),
        ("", "spam", "kafka.review_topic (STREAM_GUARD_KAFKA__REVIEW_TOPIC) is not set"),
    ],
)
def test_a_sample_of_a_policy_that_does_not_exist_is_named(
    tmp_path: Path, topic: str, policy: str, says: str | None
) -> None:
    (folder := tmp_path / "policies" / "spam").mkdir(parents=True)
    (folder / "policy.md").write_text("# Spam\n")
    file = tmp_path / "settings.toml"
    kafka = f'review_topic = "{topic}"\n' if topic else ""
    file.write_text(
        f'[kafka]\n{kafka}[policies]\npath = "{folder.parent}"\n'
        f'[review.sample]\n"{policy}" = {{ safe = 0.5 }}\n'
    )
    found = next(result for result in run_checks(file) if result.name == "review")
    assert (found.error is None) == (says is None)
    assert says is None or says in str(found.error)
