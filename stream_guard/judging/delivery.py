"""A request on its way through a judge, and who waits for its judgement: what all judges keep. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest

__all__ = ["Deliver", "Pending", "by_caller", "hand_out"]

Deliver: TypeAlias = "Callable[[Sequence[Judgement]], None]"
"""What a judge calls with the judgements of a caller's requests."""


class Pending:
    """A request that a judge has accepted and not delivered.

    Attributes:
        request: as it was submitted.
        deliver: the caller's.
    """

    __slots__ = ("deliver", "request")

    def __init__(self, request: JudgeRequest, deliver: Deliver) -> None:
        self.request = request
        self.deliver = deliver


def by_caller(settled: Iterable[tuple[Pending, Judgement]]) -> dict[Deliver, list[Judgement]]:
    """Return judgements grouped by the function to call with them, each group in its order."""
    groups: dict[Deliver, list[Judgement]] = {}
    for pending, judgement in settled:
        groups.setdefault(pending.deliver, []).append(judgement)
    return groups


def hand_out(
    groups: Mapping[Deliver, Sequence[Judgement]], failed: Callable[[Exception], None]
) -> None:
    """Call each caller with its judgements; an error of one keeps nothing from the others.

    Judges deliver from callbacks of the event loop, which only logs an error: the posts would wait without end.

    Args:
        groups: from :func:`by_caller`.
        failed: called with each error; it should end the judge.
    """
    for deliver, judgements in groups.items():
        try:
            deliver(judgements)
        except Exception as error:  # noqa: BLE001 - it goes to ``failed``
            failed(error)
