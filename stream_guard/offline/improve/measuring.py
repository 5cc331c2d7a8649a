"""Measures a draft against the live version: golden set, backtest, people's decisions, shadow. One engine does it all.

A measure of real posts joins no group and writes to no topic.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from stream_guard.kafka.ranges import RangeReader
from stream_guard.kafka.registry.assembly import open_parser
from stream_guard.kafka.registry.written import open_verdicts
from stream_guard.kafka.sinks import NoSink
from stream_guard.offline.audit.audit_judge import AuditJudge
from stream_guard.offline.audit.backtest import Outcome
from stream_guard.offline.audit.backtest_run import Plan, backtest
from stream_guard.offline.audit.replay_run import read_verdict
from stream_guard.offline.evaluation.runner import EvaluationRun
from stream_guard.offline.evaluation.sides import Side
from stream_guard.offline.evaluation.thresholds import Thresholds
from stream_guard.offline.improve.gates import GoldenFigures, Measured, Share
from stream_guard.offline.improve.rulings import Place
from stream_guard.offline.review.follow import judged_post
from stream_guard.offline.session import OfflineJudge
from stream_guard.policies.policy import PolicySet
from stream_guard.policies.routing import Routing
from stream_guard.records.verdict_changes import HUMAN, SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stream_guard.judging.contract import Judge
    from stream_guard.kafka.bounds import Bound
    from stream_guard.kafka.ranges import Progress
    from stream_guard.offline.evaluation.golden import GoldenRow
    from stream_guard.offline.evaluation.report import Evaluation
    from stream_guard.offline.improve.rulings import Ruling
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

__all__ = ["Measuring"]

_JUDGED_AT_ONCE: Final = 256


@dataclass(slots=True, frozen=True)
class Measuring:
    """What to measure.

    Attributes:
        settings: all sections.
        live: the live version.
        draft: the new one.
        golden: the golden set's file, and ``rows`` its rows.
        topics: the topics to backtest.
        since: where the backtest begins.
        records_max: most records to backtest in each topic; 0 for all.
        rulings: what people decided about the policy's verdicts.
        rulings_max: most decided posts to judge again, the latest records.
        shadow_max: most verdicts of a shadow to compare, the latest; 0 for none.
    """

    settings: Settings
    live: Policy
    draft: Policy
    golden: Path
    rows: Sequence[GoldenRow]
    topics: Sequence[str] = ()
    since: Bound | None = None
    records_max: int = 0
    rulings: Sequence[Ruling] = ()
    rulings_max: int = 1_000
    shadow_max: int = 1_000

    async def run(
        self,
        progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
        *,
        judge: Judge | None = None,
    ) -> tuple[Measured, Evaluation, dict[str, Sequence[Mapping[str, Any]]]]:
        """Measure; return the figures, the evaluation on the golden set, and its prediction lines by file name.

        Args:
            progress: called with the current step, and how many of how many are done.
            judge: the model's judge; by default that of the settings.

        Raises:
            EngineError: the engine does not start, or crashes too often.
            BrokerError: the broker does not answer, or a topic does not exist.
            PolicyError: the judge cannot use a policy.
        """
        async with OfflineJudge(self.settings, judge=judge) as offline:
            run = EvaluationRun(
                self.settings,
                self.draft,
                Side.of(self.live),
                self.rows,
                str(self.golden),
                Thresholds(),
            )
            evaluation, lines = await run.run(progress, judge=offline.lend())
            measured = Measured(self._golden(evaluation))
            measured = await self._backtest(measured, partial(progress, "backtest"), offline.lend())
            step = partial(progress, "what people decided")
            measured = replace(measured, people=await self._people(step, offline.lend()))
        return await self._shadow(measured, partial(progress, "shadow")), evaluation, lines

    def _golden(self, evaluation: Evaluation) -> GoldenFigures:
        comparison, against = evaluation.comparison, evaluation.figures_against
        assert comparison is not None and against is not None, "there are two sides"  # noqa: PT018
        return GoldenFigures(
            file=str(self.golden),
            sha256=hashlib.sha256(self.golden.read_bytes()).hexdigest(),
            rows=len(self.rows),
            f1_old=against.decision.f1.value,
            f1_new=evaluation.figures.decision.f1.value,
            flips=len(comparison.flips),
            better=comparison.better,
            worse=comparison.worse,
        )

    async def _backtest(self, measured: Measured, progress: Progress, judge: Judge) -> Measured:
        reports = []
        for topic in self.topics:
            async with RangeReader(self.settings.kafka) as reader:
                spans = await reader.spans(topic, self.since, None)
            if all(span.begin == span.end for span in spans.values()):
                continue
            plan = Plan(self.draft, topic, self.since, records_max=self.records_max)
            report = await backtest(self.settings, plan, NoSink(), progress, judge=judge)
            reports.append(report.describe())
        flips = Share(
            sum(report["other_decision"] for report in reports),
            sum(report["compared"] for report in reports),
        )
        return replace(measured, backtests=tuple(reports), backtest_flips=flips)

    async def _people(self, progress: Progress, judge: Judge) -> Share:
        """Judge the posts that people decided on by the draft; the latest records first."""
        rulings = sorted(self.rulings, key=lambda ruling: -ruling.place.offset)[: self.rulings_max]
        if not rulings:
            return Share(0, 0)
        found = []
        async with RangeReader(self.settings.kafka) as reader, open_parser(self.settings) as parser:
            for number, ruling in enumerate(rulings, 1):
                source, sha256 = ruling.place._asdict(), ruling.content["sha256"]
                post = await judged_post(reader, parser, source, sha256)
                if post is not None:
                    found.append((post, ruling))
                progress(number, len(rulings))
        only = PolicySet.of({self.draft.id: self.draft}, Routing(default=(self.draft.id,)))
        agree = 0
        async with AuditJudge(self.settings, only, inner=judge) as audit:
            for begin in range(0, len(found), _JUDGED_AT_ONCE):
                part = found[begin : begin + _JUDGED_AT_ONCE]
                judgements = await audit.judge((post, self.draft) for post, _ in part)
                agree += sum(
                    judgement.answer is not None
                    and judgement.answer.decision == ruling.person.decision
                    for judgement, (_, ruling) in zip(judgements, part, strict=True)
                )
        return Share(agree, len(found))

    async def _shadow(self, measured: Measured, progress: Progress) -> Measured:
        """Compare verdicts of a shadow that has the draft's files with the live verdicts on the same records."""
        topic = self.settings.kafka.shadow_topic
        if topic is None or not self.shadow_max:
            return measured
        shadow: dict[Place, Outcome] = {}
        live: dict[Place, Outcome] = {}
        kafka = self.settings.kafka
        async with (
            RangeReader(kafka, progress) as reader,
            open_verdicts(self.settings) as reading,
        ):
            async for record in reader.read(await reader.whole(topic)):
                verdict = await read_verdict(reading, record.value)
                if verdict is not None and verdict["policy"]["sha256"] == self.draft.sha256:
                    place = Place.of(verdict["source"])
                    shadow.pop(place, None)
                    shadow[place] = Outcome.of(verdict)
            latest = dict(list(shadow.items())[-self.shadow_max :])
            if not latest:
                return measured
            async for record in reader.read(await reader.whole(kafka.verdict_topic)):
                verdict = await read_verdict(reading, record.value)
                if verdict is None or verdict["policy"]["id"] != self.live.id:
                    continue
                place = Place.of(verdict["source"])
                if verdict["provenance"]["tier"] not in (HUMAN, SOURCE) and place in latest:
                    live[place] = Outcome.of(verdict)
        flips = sum(latest[place].decision != old.decision for place, old in live.items())
        decided = {ruling.place: ruling.person for ruling in self.rulings if ruling.place in latest}
        agree = sum(latest[place].decision == person.decision for place, person in decided.items())
        return replace(
            measured,
            shadow_flips=Share(flips, len(live)),
            shadow_people=Share(agree, len(decided)),
        )
