"""What a command and its studio say to each other arrives as it was sent, whatever fields the classes have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stream_guard.core.errors import EngineError, EngineKilledError, PolicyError, PromptError
from stream_guard.judging.contract import (
    Answer,
    Judgement,
    JudgeRequest,
    Provenance,
    Thought,
    TierStep,
)
from stream_guard.judging.families.family import Exchange
from stream_guard.offline.studio.plain_data import from_plain, to_plain
from stream_guard.offline.studio.protocol import (
    LENGTH_BYTES,
    error_message,
    exchange_message,
    frame,
    judge_message,
    judged_message,
    length_of,
    policy_message,
    read_error,
    read_exchange,
    read_judged,
    read_policy,
    read_request,
    unframe,
)
from stream_guard.policies.effort import with_effort
from stream_guard.policies.policy import make_policy
from stream_guard.records.post import Post
from stream_guard.settings import CascadeSettings

POLICY = make_policy(
    "spam",
    b"# Spam\n\n## SP1 Adverts\n\nOutput: `BAD`\n\n## SP0 Others\n\nOutput: `GOOD`\n",
    metadata=b"action: hide\nlimits: [{action: hide, actions_max: 5}]\ngates: {min_f1: 0.5}\n",
)
POST = Post("p", "a text", "0" * 64, 6, author="a", created_at_ms=7, nulled=("title",))


def carried(message: dict[str, object]) -> dict[str, object]:
    content = frame(message)
    assert length_of(content[:LENGTH_BYTES]) == len(content) - LENGTH_BYTES
    return unframe(content[LENGTH_BYTES:])


def test_a_policy_arrives_with_the_effort_that_the_command_gave_it() -> None:
    policy = with_effort(POLICY, "high", CascadeSettings())
    arrived = read_policy(carried(policy_message(3, policy)))
    assert arrived == policy
    assert arrived.sha256 == policy.sha256


def test_a_request_arrives_with_its_post() -> None:
    request = JudgeRequest("mine", POST, POLICY, effort="medium", reasoning_tokens_max=9)
    arrived = read_request(carried(judge_message(request, 0)), "studio-1", POLICY)
    assert (arrived.id, arrived.context, arrived.post) == ("studio-1", "mine", POST)
    assert (arrived.effort, arrived.reasoning_tokens_max) == ("medium", 9)


def test_a_judgement_comes_back_whole() -> None:
    request = JudgeRequest("studio-1", POST, POLICY, context="mine")
    about = Provenance("safeguard", "m", "r", trail=(TierStep("rules", "skipped", "none", 5),))
    answer = Answer("violates", "SP1", ("SP1.a", "SP1.b"), "because")
    thoughts = (Thought("low", "hm", cut=True),)
    sent = Judgement(request, answer, None, about, 0.5, "told", 1, 2, thoughts)
    message = carried(judged_message(sent))
    assert message["id"] == "mine"
    back = read_judged(message, request)
    for name in ("answer", "provenance", "confidence", "confidence_method", "thoughts"):
        assert getattr(back, name) == getattr(sent, name)


@pytest.mark.parametrize(
    "error", [PromptError("long"), EngineKilledError(2), PolicyError("p"), EngineError("e")]
)
def test_an_error_keeps_its_class_and_words(error: Exception) -> None:
    back = read_error(carried({"is": "x", **error_message(error)}))
    assert (type(back), str(back)) == (type(error), str(error))


def test_an_exchange_comes_back_under_the_commands_id() -> None:
    exchange = Exchange("studio-1", "low", "prompt", "completion", 2, 3, "analysis")
    back = read_exchange(carried(exchange_message(exchange, "mine")))
    assert back == replace(exchange, request_id="mine")


@pytest.mark.parametrize(
    "name", ["os:system", "stream_guard.core.errors:EngineError", "stream_guard.cli.main:main"]
)
def test_only_plain_data_of_this_package_is_made(name: str) -> None:
    with pytest.raises(ValueError, match="is no plain data of this package"):
        from_plain({"~class": name})


def test_what_is_no_plain_data_is_not_sent() -> None:
    for value in (Path(), {1, 2}, b"bytes"):
        with pytest.raises(TypeError):
            to_plain(value)
