"""Every command that the documentation shows is run as it is written, page by page, or says why not.

``tests/commands/lines.py`` says how a command is marked, ``tests/commands/stories.py`` what a page takes for granted.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from stream_guard.records.review_item import build_review_item
from stream_guard.testing import start_broker
from tests.commands.lines import Command, commands, pages
from tests.commands.stage import Story, copy_tree, run_page
from tests.commands.stories import POSTS, STORIES, VERDICT_ID
from tests.integration.harness import Deployment, read, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = {page: commands(page) for page in pages()}
RUN = {page: found for page, found in ALL.items() if any(c.mark is None for c in found)}
TOPICS = ("posts", "forum.posts", "stream-guard.verdicts", "stream-guard.dead-letters")
BACKTEST = "touting.backtest"
REVIEW, DECISIONS = "stream-guard.review", "stream-guard.decisions"
ESCALATIONS = "stream-guard.escalations"
STUBBORN = (
    "python -c 'import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(3));"
    ' open("up", "w"); time.sleep(1000)\''
)
MALFORMED, WITHOUT_TEXT = b"{", b'{"id": "without"}'


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What every page finds: a broker, and topics in which a program has judged posts and goes on to."""
    with start_broker() as broker:
        broker.create_topics(*TOPICS, REVIEW, ESCALATIONS, BACKTEST, partitions=6)
        broker.create_topics(DECISIONS, partitions=6, configs={"cleanup.policy": "compact"})
        posts, _, verdicts, dead = TOPICS
        deployment = Deployment(broker.bootstrap_servers, posts, verdicts, dead)
        with running(deployment, tmp_path_factory.mktemp("program") / "log.txt"):
            asyncio.run(_judged(broker.bootstrap_servers))
            yield {
                "STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
                "STREAM_GUARD_HTTP__PORT": "0",
                "COLUMNS": "200",
            }


async def _judged(bootstrap: str) -> None:
    """Send 41 posts to a partition and two records that are none; return once both are dead letters.

    A verdict on one of the posts is published again, with the id that the documentation names, and put into review.
    """
    verdicts = "stream-guard.verdicts"
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        posts = [orjson.dumps(POSTS[number % len(POSTS)]) for number in range(41)]
        for value in (*posts, MALFORMED, WITHOUT_TEXT):
            await producer.send_and_wait("posts", value, partition=3)
        await read(bootstrap, ["stream-guard.dead-letters"], lambda records: len(records) >= 2)
        published = await read(bootstrap, [verdicts], lambda records: len(records) >= 10)
        named = {**orjson.loads(published[0].value), "id": VERDICT_ID}
        await producer.send_and_wait(verdicts, orjson.dumps(named))
        item = build_review_item(named, ["sample"], sample_share=1.0, reviews=1)
        await producer.send_and_wait("stream-guard.review", orjson.dumps(item))
    finally:
        await producer.stop()


@pytest.mark.parametrize("page", RUN)
def test_each_command_of_a_page_runs_as_it_is_written(
    page: str, environment: dict[str, str], tmp_path: Path
) -> None:
    tree = copy_tree(tmp_path)
    (tree / "posts.jsonl").write_bytes(b"".join(orjson.dumps(post) + b"\n" for post in POSTS))
    complaint = run_page(RUN[page], STORIES.get(page, Story()), tree, environment)
    assert complaint is None, complaint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("true\nfalse  # needs nothing\ntrue", "page.md:2: exit code 1, and not 0: false"),
        (
            f"{STUBBORN} &\nuntil [ -e up ]; do :; done",
            "page.md:2: what ran in the background ended with 3",
        ),
        ("true\nexit 0\ntrue", "page.md:2: ended the shell"),
        ("true\n'", "page.md:1: the shell ended"),
        ("sleep 1000 &\nexport A=1\n[ $A = 1 ]\n[ $(jobs -p | wc -l) = 1 ]", None),
    ],
)
def test_a_command_that_fails_is_named(text: str, complaint: str | None, tmp_path: Path) -> None:
    (tree := tmp_path / "stream-guard").mkdir()
    made = [Command("page.md", n, line, None) for n, line in enumerate(text.split("\n"), 1)]
    said = run_page(made, Story(), tree, {})
    assert said is None if complaint is None else (said or "").startswith(complaint)
