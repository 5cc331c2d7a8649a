"""Two deployments, each with a real engine, exchange escalations and are killed: each post has one final verdict."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import orjson

from stream_guard.cli.demo import MODEL, POLICIES
from tests.integration.harness import deploy_demo_engine, read, running
from tests.integration.test_escalation import final_verdicts, send, two_deployments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_guard.testing import Broker

TEXTS = (
    "Selling fireworks, write to me.",
    "who wants lottery tickets",
    "We talked about gardening all night.",
    "Does anybody have a scooter?",
    "Which museum would you see first with children?",
    "not again, gossip everywhere",
)
POSTS = {f"p{number}": TEXTS[number % len(TEXTS)] for number in range(48)}
SALES = ("fireworks", "lottery")


def write_policy(folder: Path) -> Path:
    """Write the demo's house rules; sales are severe, so that a violation of theirs goes to the larger model."""
    (folder / "house-rules").mkdir(parents=True)
    text = (POLICIES / "house-rules" / "policy.md").read_text("utf-8")
    (folder / "house-rules" / "policy.md").write_text(text, "utf-8")
    (folder / "house-rules" / "policy.yaml").write_text(
        "categories:\n  HR1: {violates: true, severity: high}\naction: hide\n", "utf-8"
    )
    (folder / "routes.yaml").write_text("default: [house-rules]\n", "utf-8")
    return folder


async def test_each_post_has_one_final_verdict_although_both_engines_are_killed(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic("escalations")
    place = deploy_demo_engine(
        broker.bootstrap_servers,
        new_topic,
        write_policy(tmp_path / "policies"),
        STREAM_GUARD_POLICIES__ARCHIVE="off",
        STREAM_GUARD_BATCHING__POLL_RECORDS_MAX="4",
        STREAM_GUARD_CASCADE__TIERS='["safeguard"]',
        STREAM_GUARD_ENGINE__MAX_NUM_SEQS="4",
        STREAM_GUARD_ENGINE__RATIONALE_TOKENS_MAX="48",
    )
    small, large = two_deployments(place, topic, STREAM_GUARD_CASCADE__ESCALATION="withhold")
    # One model plays both; the name of its folder says in a verdict which of them judged.
    (larger := tmp_path / "larger").symlink_to(MODEL)
    large.extra["STREAM_GUARD_ENGINE__MODEL"] = str(larger)
    posts = list(POSTS.items())
    reading = asyncio.create_task(final_verdicts(place, set(POSTS)))
    with (
        running(small, tmp_path / "small-1") as first,
        running(large, tmp_path / "large-1") as second,
    ):
        first.wait_for("ready")
        second.wait_for("ready")
        await send(small, posts[:24])
        # Both are in the middle: the large one has had a post, and the small one has more to judge.
        await read(place.bootstrap, [topic], lambda got: len(got) >= 2, run=first)
        second.end(signal.SIGKILL)
        first.end(signal.SIGKILL)
    with running(small, tmp_path / "small-2") as first, running(large, tmp_path / "large-2"):
        await send(small, posts[24:])
        found = await reading
        records = await read(place.bootstrap, [topic], lambda got: len(got) >= 2, run=first)
    assert {name: len(verdicts) for name, verdicts in found.items()} == dict.fromkeys(POSTS, 1)
    went = {orjson.loads(record.value)["post"]["id"] for record in records}
    for name, [verdict] in found.items():
        assert bool(verdict.escalated) == (name in went), name
        assert (verdict.provenance.model == str(larger)) == (name in went), name
    sales = {name for name, text in POSTS.items() if any(word in text for word in SALES)}
    assert went & sales, "the small model found a sale"
    assert POSTS.keys() - went, "what is not severe stays with the small model"
