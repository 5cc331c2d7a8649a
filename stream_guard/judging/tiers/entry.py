"""A request on its way through the tiers, and the cutting of lists of them. Pure.

What it must never do: hold a request that was delivered or cancelled (the cascade lets go of it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_guard.judging.contract import Judgement, JudgeRequest, TierStep
    from stream_guard.judging.tiers.ladder import Climb
    from stream_guard.records.post import Post

Key: TypeAlias = tuple[str, bytes]
"""By which posts are equal: the policy's digest, and that of all of the post that is judged."""
SLICE_POSTS_MAX: Final = 256
SLICE_BYTES_MAX: Final = 128 << 10
"""With one post more, what is looked at in one turn of the event loop: a few ms."""


class Entry:
    """A request on its way.

    Attributes:
        since_s: when it came, on the monotonic clock.
        steps: what the tiers so far did; shared by all of a list.
        key: by which equal posts may join it, or None.
        followers: those that have, by request id.
        leader: the equal post that it waits for itself.
        asked: whether the judge inside has it.
        cancelled: whether it is to be dropped where it is next met.
        rung: of the ladder, from 0, where it is or was last; -1 below the policy's own effort.
        climb: what the rungs below said; None on its first.
        degraded: what was left out for it so far.
    """

    # Defaults of the class, since most posts need few of them and each assignment costs.
    steps: tuple[TierStep, ...] = ()
    key: Key | None = None
    followers: dict[str, Entry] | None = None
    leader: Entry | None = None
    asked = False
    cancelled = False
    rung = 0
    climb: Climb | None = None
    degraded: tuple[str, ...] = ()

    def __init__(
        self,
        request: JudgeRequest,
        deliver: Callable[[Sequence[Judgement]], None],
        since_s: float,
    ) -> None:
        self.request = request
        self.deliver = deliver
        self.since_s = since_s

    @property
    def post(self) -> Post:
        """The post."""
        return self.request.post


def slices(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Yield lists of one policy each, in order, of a size that one turn of the event loop can take."""
    part: list[Entry] = []
    size_bytes = 0
    for entry in entries:
        if part and (
            entry.request.policy is not part[0].request.policy
            or len(part) >= SLICE_POSTS_MAX
            or size_bytes >= SLICE_BYTES_MAX
        ):
            yield part
            part, size_bytes = [], 0
        part.append(entry)
        size_bytes += entry.request.post.text_bytes
    if part:
        yield part
