"""Runs an evaluation: judges both sides with one engine, counts, compares and writes the files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from stream_guard.core.errors import SettingsError
from stream_guard.core.version import package_version
from stream_guard.offline.evaluation.comparison import compare
from stream_guard.offline.evaluation.figures import count, name_categories
from stream_guard.offline.evaluation.judging import judge_rows
from stream_guard.offline.evaluation.predictions import predict
from stream_guard.offline.evaluation.repetition import repeated
from stream_guard.offline.evaluation.report import Evaluation, to_document, to_html
from stream_guard.offline.evaluation.sides import Side
from stream_guard.offline.evaluation.thresholds import check
from stream_guard.offline.session import OfflineJudge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stream_guard.judging.contract import Judge
    from stream_guard.offline.evaluation.golden import GoldenRow
    from stream_guard.offline.evaluation.judging import Judged
    from stream_guard.offline.evaluation.thresholds import Thresholds
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import Settings

__all__ = ["EvaluationRun", "write_files"]


@dataclass(slots=True, frozen=True)
class EvaluationRun:
    """An evaluation to run.

    Attributes:
        settings: of the engine and the tiers.
        policy: the policy to judge by.
        other: the side to compare with, or None.
        rows: of the golden set.
        source: name of the golden set.
        thresholds: bounds for the figures.
        repeat: how often to judge all rows by this side.
    """

    settings: Settings
    policy: Policy
    other: Side | None
    rows: Sequence[GoldenRow]
    source: str
    thresholds: Thresholds
    repeat: int = 1

    async def run(
        self,
        progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None,
        *,
        judge: Judge | None = None,
    ) -> tuple[Evaluation, dict[str, Sequence[Mapping[str, Any]]]]:
        """Judge; return the evaluation, and the prediction lines of each side by file name.

        Args:
            progress: called with the current step, the number of judged rows and of all rows.
            judge: the model's judge; by default that of the settings.

        Raises:
            EngineError: the engine does not start, or crashes too often.
            PolicyError: the judge cannot use a policy.
            SettingsError: the rows of the other side differ.
        """
        against: Judged | None = None
        async with OfflineJudge(self.settings, judge=judge) as offline:
            runs = [
                await judge_rows(
                    offline,
                    self.rows,
                    self.policy,
                    self.source,
                    partial(progress, self._name_run(run)),
                    run,
                )
                for run in range(self.repeat)
            ]
            if self.other is not None and self.other.policy is not None:
                against = await judge_rows(
                    offline,
                    self.rows,
                    self.other.policy,
                    self.source,
                    partial(progress, "judging the other side"),
                )
            about = dict(offline.describe())
        return self._count(runs, against, about)

    def _name_run(self, run: int) -> str:
        return "judging" if self.repeat == 1 else f"judging, run {run + 1} of {self.repeat}"

    def _count(
        self, runs: Sequence[Judged], against: Judged | None, about: Mapping[str, str]
    ) -> tuple[Evaluation, dict[str, Sequence[Mapping[str, Any]]]]:
        predicted = [name_categories(map(predict, run.lines), self.policy) for run in runs]
        predictions = predicted[0]
        figures = count(predictions, self.policy)
        lines: dict[str, Sequence[Mapping[str, Any]]] = {
            f"predictions-run-{number}.jsonl": run.lines for number, run in enumerate(runs, 1)
        }
        lines = {"predictions.jsonl": lines.pop("predictions-run-1.jsonl"), **lines}
        comparison = figures_against = None
        if self.other is not None:
            others = self.other.predictions
            if against is not None:
                others = [predict(line) for line in against.lines]
                lines["predictions-against.jsonl"] = against.lines
            assert others is not None, "a side has a policy or predictions"
            others = name_categories(others, self.other.policy or self.policy)
            comparison = compare(predictions, others, self.other.name)
            figures_against = count(others, self.other.policy or self.policy)
        policy = self.policy
        evaluation = Evaluation(
            name=Side.of(policy).name,
            policy={
                "id": policy.id,
                "version": policy.version,
                "sha256": policy.sha256,
                "effort": policy.effort,
            },
            source=self.source,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            program=package_version(),
            model=about,
            seconds=sum(run.seconds for run in runs),
            figures=figures,
            predictions=predictions,
            against=None if self.other is None else self.other.name,
            figures_against=figures_against,
            comparison=comparison,
            repetition=repeated(predicted, policy) if len(runs) > 1 else None,
            checks=check(self.thresholds, figures, comparison),
        )
        return evaluation, lines


def write_files(
    folder: Path,
    evaluation: Evaluation,
    lines: Mapping[str, Sequence[Mapping[str, Any]]],
    rows: Sequence[GoldenRow] | None,
) -> dict[str, Any]:
    """Write the files of a report, and return the report as plain data.

    Args:
        folder: an existing folder.
        evaluation: the content of the report.
        lines: prediction lines by file name.
        rows: rows whose texts the page shows; None omits the texts.

    Raises:
        SettingsError: a file cannot be written.
    """
    document = to_document(evaluation)
    texts = None if rows is None else {row.number: row.post.text for row in rows}
    contents = {
        name: b"".join(orjson.dumps(x) + b"\n" for x in each) for name, each in lines.items()
    }
    contents["report.json"] = orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"
    contents["report.html"] = to_html(evaluation, texts).encode("utf-8", "replace")
    for name, content in contents.items():
        try:
            (folder / name).write_bytes(content)
        except OSError as error:
            message = f"--out {folder}: cannot write {name} ({error.strerror or error}); name a writable folder"
            raise SettingsError(message) from error
    return document
