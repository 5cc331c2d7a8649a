"""Micro-batching: posts of one policy text are gathered up to a size or an age. Pure: the time is an argument.

A post never waits longer than the age, nor for posts of another policy. A batch never mixes two versions of a policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from stream_guard.judging.contract import ContextT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import JudgeRequest


class Batcher(Generic[ContextT]):
    """Gathers requests by the digest of their policy.

    Args:
        size_max: requests of one batch.
        age_max_s: how long a request waits for company, in s.
    """

    def __init__(self, size_max: int, age_max_s: float) -> None:
        self._size_max = size_max
        self._age_max_s = age_max_s
        # By the policy's sha256: when its oldest request came in, and the requests. A dict keeps the order of arrival.
        self._groups: dict[str, tuple[float, list[JudgeRequest[ContextT]]]] = {}

    def offer(self, request: JudgeRequest[ContextT], now_s: float) -> None:
        """Take a request."""
        group = self._groups.get(request.policy.sha256)
        if group is None:
            self._groups[request.policy.sha256] = (now_s, [request])
        else:
            group[1].append(request)

    def due(self, now_s: float) -> list[Sequence[JudgeRequest[ContextT]]]:
        """Return the batches that are full or old enough, oldest first, each of one policy text."""
        batches: list[Sequence[JudgeRequest[ContextT]]] = []
        for sha256, (since_s, requests) in list(self._groups.items()):
            old = now_s - since_s >= self._age_max_s
            if not old and len(requests) < self._size_max:
                continue
            whole = len(requests) if old else len(requests) - len(requests) % self._size_max
            batches.extend(
                requests[i : i + self._size_max] for i in range(0, whole, self._size_max)
            )
            if whole == len(requests):
                del self._groups[sha256]
            else:
                # What is left came in with the newest: its own age is not known, so the group's is kept,
                # which errs towards sending early.
                self._groups[sha256] = (since_s, requests[whole:])
        return batches

    def flush(self) -> list[Sequence[JudgeRequest[ContextT]]]:
        """Return everything, whatever its age."""
        return self.due(float("inf"))

    def next_due_s(self) -> float | None:
        """Return when :meth:`due` will have something by age; None where nothing waits."""
        if not self._groups:
            return None
        return min(since_s for since_s, _ in self._groups.values()) + self._age_max_s
