"""``eval --repeat`` judges the rows again, and says which of them change and which rules they name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from stream_guard.judging.contract import Answer, Judgement
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.offline.evaluation.golden import Columns, read_golden
from stream_guard.offline.evaluation.predictions import Prediction
from stream_guard.offline.evaluation.repetition import RuleCount, repeated
from stream_guard.offline.evaluation.runner import EvaluationRun, write_files
from stream_guard.offline.evaluation.thresholds import Thresholds
from stream_guard.policies.policy import make_policy
from stream_guard.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pytest

    from stream_guard.judging.contract import JudgeRequest

POLICY = make_policy(
    "spam", b"- S1: Advertising\n- S1.a prices\n- S1.b links\n- S0: Safe\nAnswer `BAD` or `OK`."
)
ANSWERS = {
    "steady": [Answer("safe", "S0")] * 3,
    "flips": [
        Answer("violates", "S1", ("S1.a",)),
        Answer("safe", "S0"),
        Answer("violates", "S1", ("S1.a", "S1.b")),
    ],
    "moves": [
        Answer("violates", "S1", ("S1.a",)),
        Answer("violates", "S1", ("S1.a",)),
        Answer("violates", "S1", ("S1.a", "S1.b")),
    ],
}


class Fickle(ScriptedJudge):
    """Answers each run as :data:`ANSWERS` says."""

    def submit(
        self, requests: Sequence[JudgeRequest], deliver: Callable[[Sequence[Judgement]], None]
    ) -> None:
        def changed(judgements: Sequence[Judgement]) -> None:
            deliver(
                [
                    replace(one, answer=ANSWERS[one.request.post.text][one.request.run])
                    for one in judgements
                ]
            )

        super().submit(requests, changed)


async def test_changed_rows_and_their_rules_are_counted_shown_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stream_guard.cli.views.evaluation import say_evaluation

    golden = tmp_path / "golden.csv"
    golden.write_text("id,text,label\na,steady,OK\nb,flips,BAD\nc,moves,BAD\n")
    rows = read_golden(golden, POLICY, Columns(), labels={}, text_bytes_max=1_000)
    seen: list[tuple[str, int, int]] = []
    run = EvaluationRun(load_settings(None), POLICY, None, rows, "golden.csv", Thresholds(), 3)
    evaluation, lines = await run.run(lambda *step: seen.append(step), judge=Fickle())
    assert {what for what, _, _ in seen} == {f"judging, run {n} of 3" for n in (1, 2, 3)}
    assert [*lines] == [
        "predictions.jsonl",
        "predictions-run-2.jsonl",
        "predictions-run-3.jsonl",
    ]
    document = write_files(tmp_path, evaluation, lines, rows)
    found = json.loads((tmp_path / "report.json").read_text())["repetition"]
    assert found == json.loads(json.dumps(document["repetition"]))
    assert (found["runs"], found["rows"], found["flip_share"]["value"]) == (3, 3, 1 / 3)
    assert [[one["decision"] for one in row["runs"]] for row in found["flips"]] == [
        ["violates", "safe", "violates"]
    ]
    assert [row["row"] for row in found["moved"]] == [4]
    # S1.a is named by every run of the row that only moves, and by two of the row that flips.
    assert found["rules"] == [{"rule": "S1.b", "rows": 2}, {"rule": "S1.a", "rows": 1}]
    assert found["f1"] == [1.0, 2 / 3, 1.0]
    say_evaluation(evaluation)
    said = capsys.readouterr().out
    assert "3 runs: 1 flip (33.3%), 1 with another category or rule alone" in said
    assert "S1.b (2), S1.a (1)" in said
    assert "\n  b: S1 S1.a, S0, S1 S1.a S1.b\n  c: " in said
    page = (tmp_path / "report.html").read_text()
    assert '<table id="changes">' in page
    assert "S1.a, S1.b" in page
    assert '<th scope="row">b</th>' in page
    assert (tmp_path / "predictions-run-3.jsonl").read_text().count("\n") == 3


async def test_one_run_has_no_repetition(tmp_path: Path) -> None:
    golden = tmp_path / "golden.csv"
    golden.write_text("text,label\nsteady,OK\n")
    rows = read_golden(golden, POLICY, Columns(), labels={}, text_bytes_max=1_000)
    run = EvaluationRun(load_settings(None), POLICY, None, rows, "golden.csv", Thresholds())
    evaluation, lines = await run.run(judge=Fickle())
    assert [*lines] == ["predictions.jsonl"]
    assert write_files(tmp_path, evaluation, lines, rows)["repetition"] is None
    assert "From run to run" not in (tmp_path / "report.html").read_text()


def test_rules_in_another_order_are_no_change() -> None:
    first = Prediction(
        row=1,
        id="1",
        sha256="1",
        language=None,
        violates=True,
        category=None,
        decision="violates",
        predicted_category="S1",
        rule_ids=("S1.a", "S1.b"),
    )
    same = replace(first, rule_ids=("S1.b", "S1.a"), confidence=0.7, rationale="other words")
    found = repeated([[first], [same]], POLICY)
    assert (found.flips, found.moved, found.rules) == ((), (), ())
    other = repeated([[first], [replace(first, rule_ids=("S1.a",))]], POLICY)
    assert other.rules == (RuleCount("S1.b", 1),)
    assert len(other.moved) == 1
