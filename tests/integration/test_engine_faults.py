"""The whole program, its real engine killed, stopped, or killed by one post: every record ends as it should."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import orjson
import psutil
import pytest

from stream_guard.judging.families.registry import load_family
from stream_guard.settings import EngineSettings
from tests.integration import killing_tokens
from tests.integration.harness import (
    Deployment,
    Running,
    deploy,
    owed_of,
    post,
    produce,
    read,
    running,
)
from tests.integration.test_reload import TEXT, health, logged, write_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

DEADLY = " KILLTHEENGINE"


def deployment(
    broker: Broker, new_topic: Callable[..., str], model: Path, folder: Path
) -> Deployment:
    """One policy, so that a post is one request, and an engine that is small and soon found to hang."""
    write_policy(folder, TEXT)
    (folder / "routes.yaml").write_text("default: [touting]\n", "utf-8")
    tokens = load_family(EngineSettings(model=str(model))).encode(DEADLY)
    extra = {
        "logits_processors": ["tests.integration.killing_tokens:KillingTokens"],
        "async_scheduling": False,
    }
    return deploy(
        broker.bootstrap_servers,
        new_topic,
        STREAM_GUARD_POLICIES__PATH=str(folder),
        STREAM_GUARD_KAFKA__SESSION_TIMEOUT_MS="45000",  # two engines' imports can take every core for a while
        STREAM_GUARD_ENGINE__KIND="vllm",
        STREAM_GUARD_ENGINE__MODEL=str(model),
        # Random weights write no answer by themselves: an attempt without the grammar would only take time.
        STREAM_GUARD_ENGINE__CONSTRAINT="always",
        STREAM_GUARD_ENGINE__MAX_NUM_SEQS="8",
        STREAM_GUARD_ENGINE__MAX_MODEL_LEN="2048",
        STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX="8",
        STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX="8",
        # The random model never ends its reasoning, so every post would climb.
        STREAM_GUARD_CASCADE__LADDER="[]",
        STREAM_GUARD_ENGINE__REQUEST_TIMEOUT_S="20",
        STREAM_GUARD_ENGINE__HANG_TIMEOUT_S="21",
        STREAM_GUARD_ENGINE__EXTRA=orjson.dumps(extra).decode(),
        OMP_NUM_THREADS="1",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        **{killing_tokens.VARIABLE: ",".join(map(str, tokens))},
    )


def core_of(run: Running) -> psutil.Process:
    """Return the engine's process: the fork server's child."""
    below = psutil.Process(run.process.pid).children(recursive=True)
    (core,) = [
        process
        for process in below
        if "forkserver" in " ".join(process.cmdline()) and process.ppid() != run.process.pid
    ]
    return core


@pytest.mark.parametrize(("number", "cause"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "hung")])
async def test_an_engine_killed_or_stopped_is_rebuilt_and_no_post_is_lost(
    broker: Broker,
    new_topic: Callable[..., str],
    random_model: Path,
    tmp_path: Path,
    number: signal.Signals,
    cause: str,
) -> None:
    place = deployment(broker, new_topic, random_model, tmp_path / "policies")
    with running(place, tmp_path / "log") as run:
        await asyncio.to_thread(run.wait_for, "ready")
        core = core_of(run)
        core.send_signal(number)
        await produce(place.bootstrap, place.posts, (post(n) for n in range(30)))
        records = await read(
            place.bootstrap, [place.verdicts, place.dead], lambda got: len(owed_of(got)) >= 30
        )
        died = await logged(run, "engine_died")
        assert died["cause"] == cause
        assert not core.is_running()
        report = await health(run)
        assert report["ready"]
        assert report["engine_rebuilds"] == 1
        assert run.end() == 0, run.tail()
    assert {record.topic for record in records} == {place.verdicts}
    assert len(records) == 30, "each is judged once"


async def test_a_post_that_kills_the_engine_is_a_dead_letter_and_its_neighbours_are_judged(
    broker: Broker, new_topic: Callable[..., str], random_model: Path, tmp_path: Path
) -> None:
    place = deployment(broker, new_topic, random_model, tmp_path / "policies")
    posts = [post(n) for n in range(30)]
    posts[17] = post(17, f"please{DEADLY} now")
    await produce(place.bootstrap, place.posts, posts)
    with running(place, tmp_path / "log") as run:
        records = await read(
            place.bootstrap, [place.verdicts, place.dead], lambda got: len(owed_of(got)) >= 30
        )
        report = await health(run)
        # With its neighbours, in a group of them, and alone.
        assert report["engine_rebuilds"] <= 3
        assert run.end() == 0, run.tail()
    (dead,) = [record for record in records if record.topic == place.dead]
    headers = {name: value.decode() for name, value in dead.headers}
    assert dead.value == posts[17]
    assert headers["sg_reason"] == "engine_killed"
    assert headers["sg_error"] == "EngineKilledError"
    assert headers["sg_policy"] == "touting"
    assert "engine.deaths_per_post_max" in headers["sg_message"]
    assert "KILL" not in run.log.read_text("utf-8"), "posts' text reaches no log"
    judged = {orjson.loads(r.value)["content"]["id"] for r in records if r is not dead}
    assert judged == {f"p{n}" for n in range(30)} - {"p17"}
