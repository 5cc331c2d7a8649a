"""The cascade as a picture: a stream that gets thinner, because each tier takes its share out of it. Pure.

The result is numbers for attributes of SVG elements. Colours and fonts are in the style sheet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.console.sources.board import TierShare

__all__ = ["Picture", "Settled", "draw"]

_TOP: Final = 16
_DEPTH: Final = 110
"""Of the whole stream."""
_LEFT: Final = 24
_STEP: Final = 165
_BOTTOM: Final = 190
_TEXT: Final = 44
_TURN: Final = 14
"""How far a part goes on before it turns down."""
_COLOURS: Final = ("one", "two", "three", "four", "five")


class Settled(NamedTuple):
    """What a tier takes out of the stream.

    Attributes:
        tier: as the board has it.
        path: of the part that turns down; empty where it is nothing.
        passes: of the part that goes on to the next tier; empty where there is none.
        x, y: of the text.
        colour: class of the style sheet.
    """

    tier: TierShare
    path: str
    passes: str
    x: float
    y: float
    colour: str


class Picture(NamedTuple):
    """The picture, and its size."""

    width: int
    height: int
    enters: str
    settled: Sequence[Settled]


def draw(tiers: Sequence[TierShare]) -> Picture | None:
    """Return the picture; None where nothing was judged yet."""
    if not tiers:
        return None
    left = 1.0
    settled = []
    for number, tier in enumerate(tiers):
        # Rounding must not leave a hair of the stream behind the last tier.
        last = number == len(tiers) - 1
        rest = 0.0 if last else max(0.0, left - tier.share)
        at = _LEFT + _STEP * number + _TURN
        settled.append(
            Settled(
                tier,
                _turning(at, left, rest),
                _band(at, at + _STEP, rest),
                at + _TURN + _DEPTH * (left - rest) / 2,
                _BOTTOM + _TEXT / 2,
                _COLOURS[min(number, len(_COLOURS) - 1)],
            )
        )
        left = rest
    width = _LEFT + _STEP * len(tiers) + _TURN
    return Picture(width, _BOTTOM + _TEXT + _TURN, _band(0, _LEFT + _TURN, 1.0), settled)


def _band(begin: float, end: float, share: float) -> str:
    """Return a piece of the stream, from left to right."""
    if not share:
        return ""
    low = _TOP + _DEPTH * share
    return f"M{begin:.1f} {_TOP}H{end:.1f}V{low:.1f}H{begin:.1f}Z"


def _turning(at: float, before: float, after: float) -> str:
    """Return the lower part of the stream, which leaves it and goes down."""
    if before <= after:
        return ""
    high, low = _TOP + _DEPTH * after, _TOP + _DEPTH * before
    near = at + _TURN
    far = near + _DEPTH * (before - after)
    return (
        f"M{at:.1f} {high:.1f}Q{far:.1f} {high:.1f} {far:.1f} {low + _TURN:.1f}V{_BOTTOM}H{near:.1f}"
        f"V{low + _TURN:.1f}Q{near:.1f} {low:.1f} {at:.1f} {low:.1f}Z"
    )
