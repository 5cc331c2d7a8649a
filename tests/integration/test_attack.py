"""``stream-guard policies attack`` by the real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from stream_guard.judging.hostile_posts import ATTACKS
from tests.integration.harness import ROOT
from tests.integration.in_process import judging_command

if TYPE_CHECKING:
    from pathlib import Path

# vLLM and torch warn of themselves while they are imported.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


@pytest.mark.usefixtures("engine_server")
def test_every_disguise_of_every_post_is_judged(random_model: Path, tmp_path: Path) -> None:
    posts = tmp_path / "posts.txt"
    posts.write_text("one post\nanother post\n")
    done = judging_command(
        random_model,
        *("policies", "attack", "dangerous-content", "--path", str(ROOT / "policies")),
        *("--posts", str(posts), "--json"),
        STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX="16",
        STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX="16",
        # The random model never ends its reasoning, so every post would climb.
        STREAM_GUARD_CASCADE__LADDER="[]",
    )
    assert done.exit_code == 0, done.stderr[-3_000:]
    assert "Traceback" not in done.stdout + done.stderr, "vLLM finds its engine gone at the end"
    report = orjson.loads(done.stdout)
    assert report["posts"] + report["undecided"] == 2
    assert [result["name"] for result in report["results"]] == [a.name for a in ATTACKS]
    for result in report["results"]:
        kinds = ("held", "hidden", "accused", "escalated", "undetermined", "failed")
        assert sum(result[kind] for kind in kinds) == report["posts"]
