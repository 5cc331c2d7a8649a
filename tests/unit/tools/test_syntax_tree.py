"""A parse ends with a tree even where the collector calls code that parses."""

from __future__ import annotations

import ast
import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools.syntax_tree import syntax_tree

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cycle:
    """An object that only the collector frees, and that parses when it goes."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        ast.parse("1 + 2 * (3 + 4)")


@pytest.fixture
def _collects_often() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(10)
    yield
    gc.collect()  # A cycle that is left would parse inside somebody else's parse.
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_collects_often")
def test_a_collection_that_parses_does_not_end_a_parse() -> None:
    text = Path(ast.__file__).read_text("utf-8")
    for _ in range(5):
        cycles = [Cycle() for _ in range(200)]
        del cycles
        assert len(syntax_tree(text).body) > 10
    assert gc.isenabled()


def test_what_is_not_python_is_refused() -> None:
    with pytest.raises(SyntaxError):
        syntax_tree("def")
    assert gc.isenabled()
