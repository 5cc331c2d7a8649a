"""Judges blocks, with the tiers and the engine of the service. It knows neither Ray nor where the output goes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry

from stream_guard.core.clock import SystemClock
from stream_guard.core.errors import NotAPostError, RecordError, TooLargeError
from stream_guard.judging.assembly import make_lasting_judge
from stream_guard.judging.verdict import build_verdict
from stream_guard.kafka.part_writer import Keyed
from stream_guard.offline.audit.audit_judge import AuditJudge
from stream_guard.offline.backfill.counts import Counts
from stream_guard.offline.backfill.store import Letter, Outcome
from stream_guard.policies.effort import with_effort
from stream_guard.policies.policy import PolicySet
from stream_guard.policies.routing import Routing
from stream_guard.policies.store import build_policies
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from stream_guard.core.kafka_types import Record
    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.contract import Judge
    from stream_guard.offline.backfill.blocks import Block, Part, Row, Stretch
    from stream_guard.policies.policy import Policy
    from stream_guard.policies.store import PolicyFiles
    from stream_guard.records.post import Post
    from stream_guard.settings import Settings

__all__ = ["BlockJudge", "Reader", "Source", "Task"]


class Reader(Protocol):
    """Reads blocks of a source and parses their posts."""

    async def read(self, block: Block) -> list[Row]:
        """Return the rows of a block, without empty lines."""

    async def parse(self, row: Row) -> Post:
        """Return the post in a row. Raises RecordError."""

    async def close(self) -> None:
        """Release what is open."""


class Source(Protocol):
    """Where posts come from. It can be sent to another process."""

    def identity(self) -> str:
        """Return a text that changes when the source does, as far as that shows without reading it."""

    async def parts(
        self, settings: Settings, block_rows: int
    ) -> list[tuple[Part, Sequence[Stretch]]]:
        """Return all parts and their stretches."""

    async def open(self, settings: Settings) -> Reader:
        """Return a reader."""


@dataclass(slots=True, frozen=True)
class Task:
    """What is judged, and by what. It can be sent to another process.

    Attributes:
        settings: all sections.
        source: where the posts are.
        files: the policies, as they were read at the start; an edit during the run changes nothing.
        slugs: ids of the policies that judge each post, in order.
        effort: in place of the policies' own; None for theirs.
    """

    settings: Settings
    source: Source
    files: PolicyFiles
    slugs: tuple[str, ...]
    effort: Effort | None = None

    def policies(self) -> list[Policy]:
        """Return the policies, built from their files."""
        engine = self.settings.engine
        built = build_policies(
            self.files,
            effort=engine.effort,
            reasoning_tokens_max=engine.reasoning_tokens_max,
            answer=engine.answer,
            routes_needed=False,
        ).policies
        chosen = [built[slug] for slug in self.slugs]
        if self.effort is None:
            return chosen
        return [with_effort(one, self.effort, self.settings.cascade) for one in chosen]


class BlockJudge:
    """Judges blocks; an async context manager. Several blocks may be judged at the same time.

    Args:
        task: what is judged.
        inner: the model's judge; by default that of the settings, under its supervisor.

    Raises:
        EngineError: on entering, the engine does not start.
        BrokerError: on entering, the topic's broker does not answer.
    """

    def __init__(self, task: Task, *, inner: Judge | None = None) -> None:
        self._task = task
        self._policies = task.policies()
        settings = task.settings
        lasting = inner or make_lasting_judge(
            settings, SystemClock(), Metrics(CollectorRegistry()), lambda _: None
        )
        ids = {policy.id: policy for policy in self._policies}
        policies = PolicySet.of(ids, Routing(default=tuple(ids)))
        self._judge = AuditJudge(settings, policies, inner=lasting)
        self._reader: Reader | None = None

    async def __aenter__(self) -> Self:
        self._reader = await self._task.source.open(self._task.settings)
        try:
            await self._judge.__aenter__()
        except BaseException:
            await self._reader.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._reader is not None, "entered first"
        await self._judge.__aexit__()
        await self._reader.close()

    async def judge(self, block: Block, rows_max: int | None = None) -> Outcome:
        """Judge a block.

        Args:
            block: the block.
            rows_max: judge only its first rows; None for all.

        Raises:
            EngineError: the engine died too often.
            BrokerError: the topic cannot be read.
            SettingsError: the file cannot be read.
        """
        assert self._reader is not None, "entered first"
        consumed_ms = time.time_ns() // 1_000_000
        rows = (await self._reader.read(block))[:rows_max]
        places = block.rows if rows_max is None else len(rows)
        counts = Counts(places=places, blank=places - len(rows))
        posts: list[tuple[Record, Post]] = []
        letters: list[Letter] = []
        for number, row in enumerate(rows):
            if number % 256 == 0:
                await asyncio.sleep(0)  # blocks that are judged meanwhile go on
            try:
                posts.append((row.record, await self._parse(row)))
            except NotAPostError as error:
                counts.skipped[error.condition] += 1
            except RecordError as error:
                counts.refused[error.reason] += 1
                letters.append(_letter(row.record, error))
        counts.posts = len(posts)
        verdicts = await self._judge_posts(posts, letters, counts, consumed_ms)
        counts.verdicts = len(verdicts)
        return Outcome(verdicts, letters, counts)

    async def _parse(self, row: Row) -> Post:
        if row.error is not None:
            raise row.error
        assert self._reader is not None, "entered first"
        key, bytes_max = row.record.key, self._task.settings.post.max_key_bytes
        if key is not None and len(key) > bytes_max:
            message = f"the key has {len(key)} bytes; post.max_key_bytes is {bytes_max}"
            raise TooLargeError(message)
        return await self._reader.parse(row)

    async def _judge_posts(
        self,
        posts: Sequence[tuple[Record, Post]],
        letters: list[Letter],
        counts: Counts,
        consumed_ms: int,
    ) -> list[Keyed]:
        """Return the verdicts, in the order of the posts, and add what could not be judged to letters and counts."""
        # One policy after the other: prompts of one policy share their prefix in the engine's cache.
        asked = [(post, policy) for policy in self._policies for _, post in posts]
        judgements = await self._judge.judge(asked)
        now_ms = time.time_ns() // 1_000_000
        verdicts = []
        for at, (record, _) in enumerate(posts):
            for judgement in judgements[at :: len(posts)]:
                if judgement.error is not None:
                    counts.failed[judgement.error.reason] += 1
                    letters.append(_letter(record, judgement.error, judgement.request.policy.id))
                    continue
                verdict = build_verdict(
                    record, judgement, consumed_ms=consumed_ms, published_ms=now_ms
                )
                provenance = verdict["provenance"]
                counts.prompt_tokens += provenance["prompt_tokens"]
                counts.cached_tokens += provenance["cached_tokens"]
                counts.output_tokens += provenance["output_tokens"]
                verdicts.append(Keyed(verdict, record.key))
        return verdicts


def _letter(record: Record, error: RecordError, policy: str | None = None) -> Letter:
    return Letter(record, error.reason, error.stage, str(error), policy)
