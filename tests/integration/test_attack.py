"""``stream-guard policies attack`` by the real program and the real engine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson

from stream_guard.judging.hostile_posts import ATTACKS
from tests.integration.harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_every_disguise_of_every_post_is_judged(random_model: Path, tmp_path: Path) -> None:
    posts = tmp_path / "posts.txt"
    posts.write_text("one post\nanother post\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stream_guard", "policies", "attack", "dangerous-content"),
            *("--path", str(ROOT / "policies"), "--posts", str(posts), "--json"),
        ],
        env={
            **os.environ,
            "STREAM_GUARD_ENGINE__MODEL": str(random_model),
            "STREAM_GUARD_ENGINE__MAX_NUM_SEQS": "16",
            "STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX": "16",
            "STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX": "16",
        },
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    report = orjson.loads(done.stdout)
    assert report["posts"] + report["undecided"] == 2
    assert [result["name"] for result in report["results"]] == [a.name for a in ATTACKS]
    for result in report["results"]:
        kinds = ("held", "hidden", "accused", "undetermined", "failed")
        assert sum(result[kind] for kind in kinds) == report["posts"]
