"""Policies, posts and the model's context are compared before a start."""

from __future__ import annotations

import pytest

from stream_guard.core.errors import EngineError
from stream_guard.judging.engine.arguments import engine_arguments
from stream_guard.judging.engine.probe import CONTEXT_TOKENS, context_tokens, probe_context
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.settings import EngineSettings, PostSettings, Settings


def probe(context: int | None, text_bytes_max: int = 65_536, words: int = 5) -> str:
    engine = EngineSettings(model="demo", max_model_len=context)
    settings = Settings(engine=engine, post=PostSettings(max_text_bytes=text_bytes_max))
    policies = {"p": make_policy("p", b"spam " * words), "short": make_policy("short", b"No.")}
    return probe_context(settings, PolicySet(policies))


def test_a_context_that_takes_every_post_is_told_with_its_room() -> None:
    assert "32,768 tokens at most; policy p leaves 31," in probe(None)
    assert "windows" not in probe(None, 1_000)


def test_a_context_that_needs_windows_is_told_with_the_remedy() -> None:
    found = probe(2_048)
    assert "judged in windows (post.max_text_bytes is 65,536)" in found
    assert "raise engine.max_model_len" in found


def test_a_policy_without_room_is_an_error_with_the_remedy() -> None:
    with pytest.raises(EngineError, match=r"policy 'p': .* of 2048 tokens .*; raise engine\.max_m"):
        probe(2_048, words=1_200)


def test_the_context_is_that_of_the_setting_or_of_the_model() -> None:
    assert context_tokens(EngineSettings(max_model_len=5_000)) == 5_000
    assert context_tokens(EngineSettings(model="demo")) == 32_768
    assert context_tokens(EngineSettings()) == CONTEXT_TOKENS == 131_072


def test_unset_the_engine_takes_the_longest_context() -> None:
    known = frozenset[str]()
    assert engine_arguments(EngineSettings(model="demo"), known)["max_model_len"] == -1
    limited = EngineSettings(model="demo", max_model_len=5_000)
    assert engine_arguments(limited, known)["max_model_len"] == 5_000
