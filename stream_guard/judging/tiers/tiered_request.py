"""A request on its way through the tiers, and how lists of them are sliced. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from stream_guard.judging.contract import Judgement
from stream_guard.judging.delivery import Pending

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_guard.judging.contract import Answer, JudgeRequest, Provenance, TierStep
    from stream_guard.judging.delivery import Deliver
    from stream_guard.judging.tiers.ladder import Climb
    from stream_guard.records.post import Post

Key: TypeAlias = tuple[str, str | None, bytes]
"""Equal for equal posts: the policy with its model, the tenant (None for posts without one, or if tenants share), and
the digest of all fields of the post that are judged."""
SLICE_POSTS_MAX: Final = 256
SLICE_BYTES_MAX: Final = 128 << 10
"""A slice ends with the post that reaches this size. One turn of the event loop screens a slice in a few ms."""


class TieredRequest(Pending):
    """A request on its way.

    Attributes:
        since_s: when it was submitted, on the monotonic clock.
        steps: what the tiers did so far; one tuple is shared by all requests of a list.
        key: equal posts wait for this one by it, or None.
        followers: the equal posts that wait for this one, by request id.
        leader: the equal post that this one waits for.
        asked: whether the model's judge has it.
        released_s: when that delay was over, on the monotonic clock; None if there was none.
        cancelled: whether the next tier drops it.
        rung: of the ladder, from 0; -1 below the policy's own effort.
        climb: the results of lower rungs; None on its first.
        degraded: the work skipped for it so far.
    """

    # Defaults of the class: most posts need few of them, and each assignment costs time.
    steps: tuple[TierStep, ...] = ()
    key: Key | None = None
    followers: dict[str, TieredRequest] | None = None
    leader: TieredRequest | None = None
    asked = False
    released_s: float | None = None
    cancelled = False
    rung = 0
    climb: Climb | None = None
    degraded: tuple[str, ...] = ()

    def __init__(self, request: JudgeRequest, deliver: Deliver, since_s: float) -> None:
        # Not super().__init__: one call less for each post.
        self.request = request
        self.deliver = deliver
        self.since_s = since_s

    def judgement(
        self, answer: Answer | None, provenance: Provenance | None, now_ns: int
    ) -> Judgement:
        """Return a judgement that took no time, at ``now_ns``, Unix time in ns."""
        return Judgement(self.request, answer, None, provenance, None, None, now_ns, now_ns)

    @property
    def post(self) -> Post:
        """The post."""
        return self.request.post


def slices(entries: Sequence[TieredRequest]) -> Iterator[list[TieredRequest]]:
    """Yield lists of one policy each, in order. One turn of the event loop screens one list."""
    part: list[TieredRequest] = []
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
