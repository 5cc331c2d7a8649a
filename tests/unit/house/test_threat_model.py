"""Every defence that the threat model names has the test that it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = ROOT / "docs" / "threat-model.md"
NAMED: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
MOST_ROWS_WITHOUT: Final = 1


def named() -> list[tuple[str, str]]:
    return NAMED.findall(PAGE.read_text("utf-8"))


@pytest.mark.parametrize(("file", "test"), named())
def test_the_test_exists(file: str, test: str) -> None:
    source = (ROOT / file).read_text("utf-8")
    assert re.search(rf"^(?:async )?def {test}\(", source, re.MULTILINE), f"{file} has no {test}"


def test_every_attempt_names_its_test() -> None:
    rows = re.findall(
        r"^\| (?!attempt|asset|---)[^|]+\|[^|]+\|([^|]*)\|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    without = [row for row in rows if not NAMED.search(row)]
    assert len(rows) > 20
    assert len(without) == MOST_ROWS_WITHOUT
