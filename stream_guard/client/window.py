"""A bounded memory of verdicts, to ignore duplicates. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from stream_guard.client.errors import ClientError

if TYPE_CHECKING:
    from stream_guard.client.verdicts import Verdict


class _Standing(NamedTuple):
    """A person's decision, as its event says it."""

    rank: tuple[int, str]
    replaces: bool
    sha256: str
    policy_sha256: str
    valid_until: int | None


class Window:
    """Remembers the last verdicts by id and by subject.

    The window is in memory and empty after a restart, so duplicates of earlier verdicts pass. A service that must
    act only once stores the ids with its actions (see ``examples/enforcement.py``).

    Args:
        size_max: number of verdicts to remember; the oldest are forgotten.

    Raises:
        ClientError: ``size_max`` is below 1.
    """

    def __init__(self, size_max: int) -> None:
        if size_max < 1:
            message = f"window_size_max: {size_max}; it must be at least 1"
            raise ClientError(message)
        self._size_max = size_max
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._latest: OrderedDict[tuple[str, int, int, str], tuple[int, str]] = OrderedDict()
        # By policy, tenant and content: the standing decision, the text that it is about, and when it expires.
        self._decided: OrderedDict[tuple[str, str | None, str], _Standing] = OrderedDict()
        # Ids of verdicts that a larger model has superseded, and that may still come, or come again.
        self._superseded: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    def is_repeat(self, verdict: Verdict) -> bool:
        """Return whether a verdict with this id is remembered."""
        return verdict.id in self._ids

    def is_overruled(self, verdict: Verdict, now_ms: int) -> bool:
        """Return whether a person's later decision about the same content and policy counts more.

        Of the machine's verdicts, those on the same text are overruled, by a decision that replaced a verdict and has
        not expired.
        """
        standing = self._decided.get(verdict.content_subject)
        if standing is None:
            return False
        if verdict.is_human:
            return (verdict.revision, verdict.decision_id or "") < standing.rank
        return (
            verdict.event == "verdict"
            and standing.replaces
            and standing.sha256 == verdict.content.sha256
            and (standing.valid_until is None or now_ms < standing.valid_until)
            # An edited policy may have ended the decision; the machine's verdict by it counts.
            and standing.policy_sha256 == verdict.policy.sha256
        )

    def is_superseded(self, verdict: Verdict) -> bool:
        """Return whether a larger model's verdict on the same post has come before this one."""
        return verdict.id in self._superseded

    def note(self, verdict: Verdict) -> None:
        """Remember what a person or a larger model decided, although the caller does not want the verdict."""
        if verdict.is_human:
            self._decide(verdict)
        self._supersede(verdict)

    def _supersede(self, verdict: Verdict) -> None:
        for hop in verdict.escalated:
            self._superseded[hop.verdict_id] = None
        while len(self._superseded) > self._size_max:
            self._superseded.popitem(last=False)

    def _decide(self, verdict: Verdict) -> None:
        rank = (verdict.revision, verdict.decision_id or "")
        known = self._decided.get(verdict.content_subject)
        if known is None or known.rank <= rank:
            self._decided[verdict.content_subject] = _Standing(
                rank,
                verdict.event == "verdict" and verdict.decision != "undetermined",
                verdict.content.sha256,
                verdict.policy.sha256,
                verdict.valid_until,
            )
            self._decided.move_to_end(verdict.content_subject)
        while len(self._decided) > self._size_max:
            self._decided.popitem(last=False)

    def remember(self, verdict: Verdict) -> str | None:
        """Remember a verdict; return the id of the verdict that it supersedes, or None.

        A verdict supersedes one on the same record by another version of the same policy, unless that one was
        published later.
        """
        self._ids[verdict.id] = None
        if verdict.is_human:
            self._decide(verdict)
        self._supersede(verdict)
        subject, mine = verdict.subject, (verdict.timing.published, verdict.id)
        earlier = self._latest.get(subject)
        superseded = earlier[1] if earlier is not None and earlier[0] <= mine[0] else None
        if earlier is None or superseded is not None:
            self._latest[subject] = mine
            self._latest.move_to_end(subject)
        for memory in (self._ids, self._latest):
            while len(memory) > self._size_max:
                memory.popitem(last=False)
        return superseded if superseded != verdict.id else None
