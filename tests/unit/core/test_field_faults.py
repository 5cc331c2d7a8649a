"""A message about an invalid document names fields, and never what stands in them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from stream_guard.client import UnreadableVerdictError, parse_verdict
from stream_guard.core.errors import DecisionError, SettingsError
from stream_guard.core.field_faults import field_faults
from stream_guard.offline.choice import Choice, decision_of
from stream_guard.records.decision import parse_decision

TEXT = "text of a post"


class Inner(BaseModel):
    """Part of a document."""

    number: int = Field(ge=1)


class Outer(BaseModel):
    """A document."""

    inner: list[Inner]
    word: str
    flag: bool
    size: int


def faults_of(value: Any) -> str:  # noqa: ANN401 - anything may come
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(value)
    return field_faults(caught.value, "document")


def test_the_first_three_are_named_by_their_paths() -> None:
    told = faults_of({"inner": [{"number": 0}], "word": 1, "flag": TEXT, "size": TEXT})
    assert told == (
        "inner.0.number: Input should be greater than or equal to 1; word: Input should be a valid string; "
        "flag: Input should be a valid boolean, unable to interpret input"
    )


def test_the_document_itself_has_a_name() -> None:
    assert faults_of(TEXT).startswith("document: ")
    assert TEXT not in faults_of(TEXT)


def test_who_reads_documents_says_it_in_the_same_way() -> None:
    with pytest.raises(UnreadableVerdictError, match=r"not a verdict: \w[\w.]*: Field required; "):
        parse_verdict(b"{}", "here")
    with pytest.raises(DecisionError, match=r"not a decision: \w[\w.]*: Field required; "):
        parse_decision(None, b"{}")
    with pytest.raises(SettingsError, match=r"the decision is invalid: decided_by\.id: .*; about"):
        decision_of(
            Choice(None, "retraction"),
            decision_id="d",
            by="",
            role="lead",
            about={},
            outcome=None,
            now_ms=1,
        )
