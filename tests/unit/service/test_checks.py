"""``stream-guard check`` finds settings for topics that are not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_guard.kafka import source
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
    async def there(settings: KafkaSettings) -> set[str]:
        del settings
        return {"posts", "comments"}

    monkeypatch.setattr(source, "existing_topics", there)
    monkeypatch.setattr(source, "check_topics", there)
    file = tmp_path / "settings.toml"
    file.write_text(
        f'[kafka]\ntopics = ["posts", "comments"]\n[post.topics.{topics}]\ntext = "/body"\n'
    )
    found = next(result for result in run_checks(file) if result.name == "topics")
    assert (found.error is None) == (says is None)
    assert says is None or says in str(found.error)
