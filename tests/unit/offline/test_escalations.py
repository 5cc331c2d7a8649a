"""A golden set may leave posts to people, and an answer that does so is neither undecided nor wrong in form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_guard.judging.contract import Answer, Judgement, JudgeRequest, Provenance
from stream_guard.offline.calibrate.data import label_words
from stream_guard.offline.evaluation.figures import count, is_wrong
from stream_guard.offline.evaluation.golden import Columns, GoldenRow, read_golden
from stream_guard.offline.evaluation.predictions import Prediction, predict, prediction_line
from stream_guard.policies.policy import make_policy

if TYPE_CHECKING:
    from pathlib import Path

POLICY = make_policy("p", b"Answer `REMOVE`, `ALLOW` or `ESCALATE`.")
PEOPLE = Answer("undetermined", labels=("ESCALATE",), needs_review=True)
FAILED = Answer("undetermined", parse_status="malformed")


@pytest.fixture
def rows(tmp_path: Path) -> list[GoldenRow]:
    file = tmp_path / "golden.csv"
    file.write_text("id,text,label\na,one,ESCALATE\nb,two,REMOVE\nc,three,ALLOW\n")
    return read_golden(file, POLICY, Columns(), labels={}, text_bytes_max=1_000)


def judged(row: GoldenRow, answer: Answer) -> Prediction:
    request = JudgeRequest(row.post.id, row.post, POLICY)
    judgement = Judgement(request, answer, provenance=Provenance("safeguard", "m"))
    return predict(prediction_line(row, judgement, "golden.csv"))


def test_a_label_for_people_is_a_golden_label(rows: list[GoldenRow]) -> None:
    assert [(row.violates, row.escalated) for row in rows] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    # It says nothing of whether a post violates, so no confidence is fitted on it.
    assert label_words(POLICY).keys() & {"remove", "allow", "escalate"} == {"remove", "allow"}


def test_an_escalated_row_is_counted_as_such(rows: list[GoldenRow]) -> None:
    right = [judged(rows[0], PEOPLE), judged(rows[1], Answer("violates", labels=("REMOVE",)))]
    figures = count([*right, judged(rows[2], FAILED)], POLICY)
    assert (figures.escalated, figures.undecided) == (1, 1)
    assert figures.accuracy.value == pytest.approx(2 / 3)
    assert [is_wrong(each) for each in right] == [False, False]
    assert "escalated" in figures.confusion.golden
    assert is_wrong(judged(rows[0], FAILED))
    assert is_wrong(judged(rows[2], PEOPLE))
