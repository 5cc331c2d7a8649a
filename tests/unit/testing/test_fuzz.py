"""No parser of foreign bytes raises anything but its own errors; findings of longer runs are read again."""

from __future__ import annotations

import pytest

from tests.fuzz.run import CORPUS, corpus, examples, try_one
from tests.fuzz.targets import Target, targets

TARGETS = {target.name: target for target in targets()}
EXAMPLES = 100


@pytest.mark.parametrize("name", TARGETS)
def test_sound_examples_and_what_was_found_before_are_read_or_refused(name: str) -> None:
    target = TARGETS[name]
    for data in (*target.seeds, *(path.read_bytes() for path in corpus(target))):
        try_one(target, data)


@pytest.mark.parametrize("name", TARGETS)
def test_broken_input_is_read_or_refused(name: str) -> None:
    examples(TARGETS[name], EXAMPLES, 1)


def test_a_parser_that_raises_another_error_is_found_and_its_input_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    def fails(data: bytes) -> object:
        return data.index(b"a")

    monkeypatch.setattr("tests.fuzz.run.CORPUS", tmp_path)
    with pytest.raises(ValueError, match="not found"):
        examples(Target("made", fails, (KeyError,), (b"aaa",)), EXAMPLES, 1)
    assert [path.read_bytes() for path in sorted(tmp_path.glob("made/*.bin"))] == [b""]  # type: ignore[attr-defined]


def test_every_corpus_has_its_parser() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)
