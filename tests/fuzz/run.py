"""Draws broken input for one target, and keeps what it finds.

Input is a sound example with a few edits, or bytes that are drawn. Hypothesis draws it and makes a finding as small as
it can. A finding is kept as a file of the corpus, which the unit tests read again.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.targets import Target

CORPUS: Final = Path(__file__).parent / "corpus"
_EDITS_MAX: Final = 6
_PIECE_BYTES_MAX: Final = 24


@st.composite
def broken(draw: st.DrawFn, target: Target) -> bytes:
    """Draw an input."""
    data = bytearray(draw(st.sampled_from(target.seeds)))
    piece = st.binary(max_size=_PIECE_BYTES_MAX)
    if target.words:
        piece = st.one_of(st.sampled_from(target.words), piece)
    for _ in range(draw(st.integers(0, _EDITS_MAX))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(len(data), begin + draw(st.sampled_from((0, 1, 4, 64))))))
        data[begin:end] = draw(piece) * draw(st.sampled_from((1, 1, 1, 2, 200)))
    return bytes(data)


def corpus(target: Target) -> list[Path]:
    """Return the files of what was found before."""
    return sorted((CORPUS / target.name).glob("*.bin"))


def try_one(target: Target, data: bytes) -> None:
    """Give a target some bytes; raise what it must not raise."""
    try:
        target.read(data)
    except target.refusals:
        return


def examples(target: Target, count: int, number: int) -> None:
    """Try so many inputs, the same for the same number; raise the smallest finding, which is kept."""
    last = b""

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(broken(target))
    def body(data: bytes) -> None:
        nonlocal last
        last = data
        try_one(target, data)

    try:
        body()
    except BaseException:
        _keep(target, last)
        raise


def _keep(target: Target, data: bytes) -> None:
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{hashlib.sha256(data).hexdigest()[:16]}.bin").write_bytes(data)


def rounds(target: Target, seconds: float, first: int) -> Iterator[tuple[int, int]]:
    """Try inputs for so long; yield the number of each round and how many inputs it had."""
    count = 200
    ends_s = time.monotonic() + seconds
    number = first
    while time.monotonic() < ends_s:
        examples(target, count, number)
        yield number, count
        number += 1
