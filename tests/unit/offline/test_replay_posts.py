"""A replay rebuilds the prompts of threads and of windows, token by token."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from stream_guard.judging.archive.entry import Judging, read_entry, write_entry
from stream_guard.judging.families.family import hash_ids
from stream_guard.judging.families.registry import load_family
from stream_guard.judging.windows import fit_post
from stream_guard.offline.audit.replay import Rebuilder
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import PostParser
from stream_guard.settings import EngineSettings, PostSettings

FAMILY = load_family(EngineSettings(model="demo"))
PARSER = PostParser(PostSettings())
OVERLAP = 20


@pytest.mark.parametrize("judge", ["post", "thread"])
@pytest.mark.parametrize("room", [None, 150])
def test_the_prompts_of_threads_and_windows_are_rebuilt(judge: str, room: int | None) -> None:
    metadata = f"judge: {judge}".encode()
    policy = make_policy("insults", b"No insults.", metadata=metadata)
    document = {
        "id": "1",
        "text": "One sentence. " * 200,
        "parent": "Hello",
        "thread": {"parent_author": 1},
    }
    value = json.dumps(document).encode()
    post = PARSER.parse(value, ())
    prefix = FAMILY.prefix(policy, "low")
    tokens_max, ids = None, FAMILY.prompt(post, prefix)
    if room is not None:
        tokens_max = len(prefix.ids) + room
        fitted = fit_post(post, prefix, FAMILY, tokens_max, OVERLAP)
        assert len(fitted.prompts) > 2
        ids = [token for prompt in fitted.prompts for token in prompt]
    judging = Judging("vllm", "demo", None, "t" * 64, "2025-01-01", "harmony")
    entry = read_entry(*write_entry(policy, judging, FAMILY.template), "here")
    verdict: dict[str, Any] = {
        "content": {"sha256": post.sha256},
        "policy": {"id": "insults"},
        "provenance": {
            "tier": "safeguard",
            "effort": "low",
            "prompt_sha256": prefix.sha256,
            "prompt_ids_sha256": hash_ids(ids),
            "prompt_tokens_max": tokens_max,
        },
    }
    record: Any = SimpleNamespace(topic="posts", partition=0, offset=1, value=value, headers=())
    replayed = Rebuilder(PARSER, FAMILY, "t" * 64, OVERLAP).rebuild(verdict, record, [entry])
    assert (replayed.status, replayed.reason) == ("identical", "")
    assert replayed.ids == ids
    other = Rebuilder(PARSER, FAMILY, "t" * 64, 0).rebuild(verdict, record, [entry])
    assert other.status == ("identical" if room is None else "differs")
    if room is not None:
        assert "engine.window_overlap_tokens" in other.reason
