"""Judges some posts by the live version and by a draft, for an author who wants to see what an edit does."""

from __future__ import annotations

import hashlib
import heapq
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from stream_guard.core.errors import RecordError, TooLargeError
from stream_guard.judging.contract import JudgeRequest
from stream_guard.kafka.ranges import RangeReader
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.offline.session import OfflineJudge
from stream_guard.offline.studio.workbench import Outcome, outcome_of
from stream_guard.records.post import Post, PostParser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.judging.contract import Judge, Judgement
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

__all__ = ["Posts", "Said", "Tried", "latest_posts", "pasted_posts", "try_posts"]


class Posts(NamedTuple):
    """Posts to judge.

    Attributes:
        posts: in their order.
        unreadable: number of lines or records that are no post.
        left: number of posts that were left out because there are too many.
    """

    posts: Sequence[Post]
    unreadable: int = 0
    left: int = 0


class Said(NamedTuple):
    """What one version says about a post: the outcome, the model's rationale, and the tier that decided."""

    outcome: Outcome
    rationale: str | None
    tier: str | None

    @classmethod
    def of(cls, judgement: Judgement) -> Said:
        """Return what a judgement says."""
        answer = judgement.answer
        rationale = answer.rationale if answer is not None else None
        tier = judgement.provenance.tier if judgement.provenance is not None else None
        return cls(outcome_of(judgement), rationale, tier)


class Tried(NamedTuple):
    """A post, and what both versions say; ``after`` is None where there is one version alone."""

    post: Post
    before: Said
    after: Said | None

    @property
    def flipped(self) -> bool:
        """Whether the decisions differ."""
        return self.after is not None and self.before.outcome[0] != self.after.outcome[0]

    @property
    def moved(self) -> bool:
        """Whether the decisions are the same, and the categories or the rules differ."""
        return (
            self.after is not None
            and not self.flipped
            and self.before.outcome != self.after.outcome
        )


def pasted_posts(settings: Settings, text: str, posts_max: int) -> Posts:
    """Return the posts of a text: one a line. A line that begins with ``{`` is a record's value as JSON.

    Args:
        settings: how posts are read.
        text: as somebody pasted it.
        posts_max: most posts.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    parser = PostParser(settings.post)
    posts, unreadable = [], 0
    for number, line in enumerate(lines[:posts_max], 1):
        try:
            posts.append(_post(parser, settings, number, line))
        except RecordError:
            unreadable += 1
    return Posts(posts, unreadable, max(0, len(lines) - posts_max))


def _post(parser: PostParser, settings: Settings, number: int, line: str) -> Post:
    if line.startswith("{"):
        return parser.parse(line.encode("utf-8", "replace"), ())
    data = line.encode("utf-8", "replace")
    post = Post(str(number), line, hashlib.sha256(data).hexdigest(), len(data))
    parser.finish(post)
    if post.text_bytes > settings.post.max_text_bytes:
        raise TooLargeError("over post.max_text_bytes")
    return post


async def latest_posts(settings: Settings, topic: str, count: int) -> Posts:
    """Return the latest posts of a topic, oldest first. It reads ``count`` offsets of each partition, without a group.

    No more than ``count`` records are in memory, however many partitions there are.

    Args:
        settings: the broker, and how posts are read.
        topic: of the posts.
        count: most posts.

    Raises:
        BrokerError: the broker does not answer, or the topic does not exist.
    """
    async with RangeReader(settings.kafka) as reader:
        records = await _newest(reader.read(await reader.latest(topic, count)), count)
    posts, unreadable = [], 0
    async with open_parser(settings) as parser:
        for record in records:
            try:
                posts.append((await parser.parse(record))[0])
            except RecordError:
                unreadable += 1
    return Posts(posts, unreadable)


async def _newest(read: AsyncIterator[Record], count: int) -> list[Record]:
    """Return the ``count`` newest of records from one topic, oldest first, and keep no others meanwhile."""
    kept: list[tuple[tuple[int, int, int], Record]] = []  # a heap; the oldest is first
    async for record in read:
        # No two records of a topic have one key, so records are never compared.
        each = ((record.timestamp, record.partition, record.offset), record)
        if len(kept) < count:
            heapq.heappush(kept, each)
        else:
            heapq.heappushpop(kept, each)
    return [record for _, record in sorted(kept)]


async def try_posts(
    settings: Settings,
    posts: Sequence[Post],
    live: Policy,
    draft: Policy | None,
    progress: Callable[[str, int, int], None],
    *,
    judge: Judge,
) -> list[Tried]:
    """Judge posts by the live version, and by the draft if there is one.

    Args:
        settings: the sections ``engine`` and ``cascade``.
        posts: to judge.
        live: the live version.
        draft: the new one.
        progress: called with the current step, and how many of how many posts are done.
        judge: the model's judge; it is not closed.

    Raises:
        EngineError: the engine does not start, or crashes too often.
        PolicyError: the judge cannot use a policy.
    """
    offline = OfflineJudge(settings, judge=judge)
    before = await _judge(offline, posts, live, partial(progress, "live"))
    after = (
        None if draft is None else await _judge(offline, posts, draft, partial(progress, "draft"))
    )
    return [
        Tried(post, before[number], None if after is None else after[number])
        for number, post in enumerate(posts)
    ]


async def _judge(
    offline: OfflineJudge,
    posts: Sequence[Post],
    policy: Policy,
    progress: Callable[[int, int], None],
) -> list[Said]:
    requests = [JudgeRequest(str(number), post, policy) for number, post in enumerate(posts)]
    return [Said.of(each) for each in await offline.judge(requests, progress=progress)]
