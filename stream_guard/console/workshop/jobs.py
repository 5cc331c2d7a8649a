"""What the bench does for authors: each function returns a piece of work that gets a judge and notes its progress."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from stream_guard.core.errors import PolicyError, SettingsError
from stream_guard.offline.improve.gates import check_gates
from stream_guard.offline.improve.promoting import Change
from stream_guard.offline.improve.promoting import promote as make_live
from stream_guard.offline.improve.rulings import find_rulings
from stream_guard.offline.improve.trying import latest_posts, pasted_posts, try_posts
from stream_guard.policies.commits import commit_policy
from stream_guard.policies.drafts import read_draft, rebase

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from stream_guard.client.verdicts import Verdict
    from stream_guard.console.sources.bench import Job, Progress
    from stream_guard.console.workshop.folder import Desk
    from stream_guard.judging.archive.promotion import Promotion
    from stream_guard.judging.contract import Judge
    from stream_guard.offline.evaluation.report import Evaluation
    from stream_guard.offline.improve.gates import Gate, Measured
    from stream_guard.offline.improve.rulings import Ruling
    from stream_guard.offline.improve.trying import Posts, Tried
    from stream_guard.policies.drafts import Draft
    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import Post
    from stream_guard.settings import Settings

_T = TypeVar("_T")

__all__ = [
    "AgainResult",
    "GoldenResult",
    "MeasuredResult",
    "TryResult",
    "again_job",
    "commit",
    "golden_job",
    "measure_job",
    "promote_job",
    "try_job",
]


@dataclass(slots=True, frozen=True)
class TryResult:
    """Posts as both versions judge them; the flips first."""

    posts: Posts
    tried: Sequence[Tried]
    drafted: bool

    @property
    def flips(self) -> int:
        """Number of posts with another decision."""
        return sum(each.flipped for each in self.tried)


@dataclass(slots=True, frozen=True)
class AgainResult:
    """A judged post, judged again.

    Attributes:
        then: the verdict.
        link: of the verdict's page.
        tried: what its policy says now, and what the other one says.
        now: the live version of its policy.
        other: the other policy; None where nobody asked for one.
    """

    then: Verdict
    link: str
    tried: Tried
    now: Policy
    other: Policy | None


@dataclass(slots=True, frozen=True)
class GoldenResult:
    """An evaluation on the golden set, with its plots as SVG elements."""

    evaluation: Evaluation
    plots: Sequence[str]


@dataclass(slots=True, frozen=True)
class MeasuredResult:
    """A measured draft.

    Attributes:
        evaluation: on the golden set, with ``plots`` as SVG elements.
        measured: all figures.
        gates: each gate with its figure.
        record: of the promotion; None if the draft is not live.
        not_committed: why the live version could not be committed; None if it was, or was not to be.
    """

    evaluation: Evaluation
    plots: Sequence[str]
    measured: Measured
    gates: Sequence[Gate]
    record: Promotion | None = None
    not_committed: str | None = None

    @property
    def held(self) -> bool:
        """Whether every gate holds."""
        return bool(self.gates) and all(gate.held for gate in self.gates)


def try_job(settings: Settings, desk: Desk, pasted: str, topic: str, count: int) -> Job:
    """Return the work of judging posts: pasted ones, or else the latest of a topic."""

    async def job(judge: Judge, progress: Progress) -> TryResult:
        if desk.texts.drafted and desk.draft is None:
            raise PolicyError(f"{desk.live.id}: the draft cannot be read; its findings say why")
        if pasted.strip():
            posts = pasted_posts(settings, pasted, settings.console.try_posts_max)
        else:
            progress("reading", 0, 0)
            posts = await latest_posts(settings, topic, count)
        if not posts.posts:
            raise SettingsError("there is no post to judge")
        draft = desk.draft.policy if desk.draft is not None else None
        tried = await try_posts(settings, posts.posts, desk.live, draft, progress, judge=judge)
        tried.sort(key=lambda each: (not each.flipped, not each.moved))
        return TryResult(posts, tried, draft is not None)

    return job


def again_job(
    settings: Settings, then: Verdict, link: str, post: Post, policies: tuple[Policy, Policy | None]
) -> Job:
    """Return the work of judging one post again: by the live version of its policy, and by another policy if given."""
    now, other = policies

    async def job(judge: Judge, progress: Progress) -> AgainResult:
        [tried] = await try_posts(settings, [post], now, other, progress, judge=judge)
        return AgainResult(then, link, tried, now, other)

    return job


def golden_job(settings: Settings, desk: Desk) -> Job:
    """Return the work of judging the golden set by the draft and the live version."""

    async def job(judge: Judge, progress: Progress) -> GoldenResult:
        # They bring scikit-learn and statsmodels, which take seconds, and which not every console has.
        from stream_guard.offline.evaluation.report import plots_of
        from stream_guard.offline.evaluation.runner import EvaluationRun
        from stream_guard.offline.evaluation.sides import Side
        from stream_guard.offline.evaluation.thresholds import Thresholds
        from stream_guard.offline.improve.preparing import golden_rows

        draft = desk.draft.policy if desk.draft is not None else None
        if draft is not None and draft.files == desk.live.files:
            draft = None
        policy = draft or desk.live
        rows = await asyncio.to_thread(golden_rows, settings, desk.golden, policy)
        other = None if draft is None else Side.of(desk.live)
        run = EvaluationRun(settings, policy, other, rows, str(desk.golden), Thresholds())
        evaluation, _ = await run.run(progress, judge=judge)
        return GoldenResult(evaluation, plots_of(evaluation.figures))

    return job


def measure_job(settings: Settings, desk: Desk) -> Job:
    """Return the work of holding the draft against the gates."""

    async def job(judge: Judge, progress: Progress) -> MeasuredResult:
        return await _measure(settings, desk, _draft(desk), judge, progress)

    return job


def promote_job(settings: Settings, desk: Desk, who: str, reason: str, now_ms: int) -> Job:
    """Return the work of measuring the draft, and of making it live if every gate holds."""

    async def job(judge: Judge, progress: Progress) -> MeasuredResult:
        draft = _draft(desk)
        found = await _measure(settings, desk, draft, judge, progress)
        if not found.held:
            return found
        change = Change(settings, desk.path, desk.live, who, reason, now_ms)
        progress("promote", 0, 0)
        record, not_committed = await _to_its_end(_go_live(change, desk, draft, found))
        return MeasuredResult(
            found.evaluation, found.plots, found.measured, found.gates, record, not_committed
        )

    return job


async def _go_live(
    change: Change, desk: Desk, draft: Draft, found: MeasuredResult
) -> tuple[Promotion, str | None]:
    """Make a draft live, and return the record and why it could not be committed."""
    record = await make_live(change, draft, found.gates, found.measured)
    # It is live. A draft that somebody removed in the meantime needs no note.
    with contextlib.suppress(PolicyError):
        await asyncio.to_thread(_follow, desk.path, draft)
    return record, await commit(change.settings, desk, record)


def _follow(path: Path, draft: Draft) -> None:
    """Note that the draft has what is live now; of one that changed in the meantime, its author must say so."""
    now = read_draft(path, draft.policy.id)
    if now.policy.files == draft.policy.files:
        rebase(path, draft.policy)


async def _to_its_end(step: Coroutine[Any, Any, _T]) -> _T:
    """Wait for a step, also after a stop: else it would go on, or end halfway, without a word to anybody."""
    task = asyncio.create_task(step)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()


async def commit(settings: Settings, desk: Desk, record: Promotion) -> str | None:
    """Commit what went live, if ``console.commit`` is set; return why that failed, or None."""
    if not settings.console.commit:
        return None
    message = (
        f"{record.kind.capitalize()} {record.policy_id} to {record.new}\n\n{record.reason}\n\nBy: {record.by}\n"
        f"Record: {record.sha256}\n"
    )
    try:
        await asyncio.to_thread(commit_policy, desk.path, desk.live.id, message, record.by)
    except PolicyError as error:
        return str(error)
    return None


def _draft(desk: Desk) -> Draft:
    if desk.draft is None:
        raise PolicyError(
            f"{desk.live.id}: there is no draft, or it cannot be read; its findings say why"
        )
    return desk.draft


async def _measure(
    settings: Settings, desk: Desk, draft: Draft, judge: Judge, progress: Progress
) -> MeasuredResult:
    from stream_guard.offline.evaluation.report import plots_of
    from stream_guard.offline.improve.preparing import prepare

    ready = await asyncio.to_thread(prepare, settings, desk.path, desk.policies, desk.live, draft)
    rulings: Sequence[Ruling] = ()
    if ready.with_people:
        rulings = await find_rulings(settings, desk.live.id, partial(progress, "decisions"))
    measured, evaluation, _ = await ready.measuring(rulings).run(progress, judge=judge)
    gates = check_gates(ready.limits, measured)
    return MeasuredResult(evaluation, plots_of(evaluation.figures), measured, gates)
