"""The soak finds libfaketime, or says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak import clock
from tests.soak.schedule import CLOCK

if TYPE_CHECKING:
    from pathlib import Path


def test_a_library_that_is_missing_is_named_with_each_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(clock.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(clock, "_ROOTS", (tmp_path,))
    with pytest.raises(RuntimeError, match="apt-get install faketime") as told:
        clock.library()
    assert f"--without '{CLOCK}'" in str(told.value)
    assert clock.LIBRARY_VARIABLE in str(told.value)


def test_it_is_found_where_debian_puts_it_or_where_a_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(clock.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(clock, "_ROOTS", (tmp_path,))
    library = tmp_path / "lib" / "x86_64-linux-gnu" / "faketime" / "libfaketimeMT.so.1"
    library.parent.mkdir(parents=True)
    library.touch()
    assert clock.library() == str(library)
    other = tmp_path / "other.so"
    monkeypatch.setenv(clock.LIBRARY_VARIABLE, str(other))
    with pytest.raises(RuntimeError, match=str(other)):
        clock.library()
    other.touch()
    assert clock.library() == str(other)


def test_a_clock_is_set_off_both_ways(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    for seconds, text in ((7_200, "+7200"), (-1_800, "-1800"), (0, "+0")):
        clock.set_off(file, seconds)
        assert file.read_text().strip() == text
