"""Two hundred edits, a third of them broken, while the real engine judges: nothing lost, nothing mixed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import orjson

from stream_guard.core.errors import PolicyError
from stream_guard.policies.policy import make_policy
from tests.integration.harness import (
    HANG_S,
    deploy_engine,
    owed_of,
    post,
    produce,
    read,
    running,
)
from tests.integration.test_reload import health, logged, write_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

EDITS = 200
BROKEN = (b"", b"\xff\xfe not text", b"   \n", b"# NUL \0 in it")


def text_of(number: int) -> bytes:
    """Return a policy whose one violating category has the number of its version: a mix would show."""
    return (
        f"# Touting\n\nAnswer `VIOLATES` or `SAFE`.\n\n## Violates (TT{number} - Price)\n\n"
        f"- TT{number}.a asks too much\n"
    ).encode()


def write(folder: Path, content: bytes) -> None:
    draft = folder / "touting" / ".draft"
    draft.write_bytes(content)
    draft.replace(folder / "touting" / "policy.md")


async def live_version(run: Any, wanted: str) -> None:  # noqa: ANN401
    async with asyncio.timeout(HANG_S):
        while (await health(run))["policies"] != {"touting": wanted}:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.1)


async def test_two_hundred_edits_under_load_lose_and_mix_nothing(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, random_model: Path
) -> None:
    draw = random.Random(7)  # noqa: S311 - seeded, so that a failure can be run again
    folder = tmp_path / "policies"
    write_policy(folder, text_of(0).decode())
    place = deploy_engine(
        broker.bootstrap_servers,
        new_topic,
        random_model,
        folder,
        STREAM_GUARD_ENGINE__REASONING_TOKENS_MAX="16",
        STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX="16",
    )
    made = {make_policy("touting", text_of(0)).sha256: "TT0"}
    sent, finished = 0, asyncio.Event()

    async def feed() -> None:
        nonlocal sent
        while not finished.is_set():
            await produce(place.bootstrap, place.posts, (post(sent + n) for n in range(10)))
            sent += 10
            await asyncio.sleep(0.5)

    with running(place, tmp_path / "log") as run:
        await logged(run, "ready")
        feeding = asyncio.create_task(feed())
        for number in range(1, EDITS - 1):
            if draw.random() < 1 / 3:
                write(folder, draw.choice(BROKEN))
            else:
                write(folder, text_of(number))
                made[make_policy("touting", text_of(number)).sha256] = f"TT{number}"
            await asyncio.sleep(draw.uniform(0, 0.2))
        last = make_policy("touting", text_of(EDITS))
        made[last.sha256] = f"TT{EDITS}"
        write(folder, text_of(EDITS))
        await live_version(run, last.version)
        write(folder, BROKEN[0])
        async with asyncio.timeout(HANG_S):
            while (await health(run))["policies_refused"] is None:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.1)
        finished.set()
        await feeding
        records = await read(
            place.bootstrap, [place.verdicts], lambda got: len(owed_of(got)) >= sent
        )
        assert (await health(run))["policies"] == {"touting": last.version}
        assert run.end() == 0, run.tail()
    verdicts = [orjson.loads(record.value) for record in records]
    assert len(verdicts) == len(owed_of(records)) == sent, "lost, or judged twice"
    for verdict in verdicts:
        policy = verdict["policy"]
        assert policy["sha256"] in made, "a version that never existed"
        assert policy["category"] in (None, made[policy["sha256"]]), "judged under a mix"
    assert len({verdict["policy"]["sha256"] for verdict in verdicts}) > 3


def test_every_broken_text_is_refused() -> None:
    for content in BROKEN:
        try:
            make_policy("touting", content)
        except PolicyError:
            continue
        raise AssertionError(content)
