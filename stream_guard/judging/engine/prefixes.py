"""Predicts which policies' prompts vLLM's prefix cache holds: a model of its order of eviction. Pure.

vLLM keeps the blocks of finished prompts until it needs their memory, and drops the least recently used first. The
blocks of one prompt are dropped from its end, so a post's own tokens go before its policy's.

vLLM can also publish each change of its cache (``kv_events_config``). We do not use that. The events come through a
socket after the step in which they happened, in batches that may be lost, and the engine's process must make them in
its hot path. A prefix that has just been admitted is not in them, although the next post will find it. This model knows
it at once, costs a few dictionary operations for each post, and is put right by every completion: what the engine has
finished with is certainly in its cache.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.contract import JudgeRequest

__all__ = ["CacheRoom", "PrefixCache", "PrefixKey", "prefix_key"]

_LEARNED_SHARE: Final = 0.05
"""How far one completion moves the average size of a post."""


class PrefixKey(NamedTuple):
    """Names the part of a prompt that is the same for all posts of a policy at one effort."""

    policy_sha256: str
    effort: Effort


def prefix_key(request: JudgeRequest) -> PrefixKey:
    """Return the key of a request's prefix."""
    return PrefixKey(request.policy.sha256, request.effort or request.policy.effort)


class CacheRoom(NamedTuple):
    """The size of an engine's cache.

    Attributes:
        capacity_tokens: of the whole cache.
        block_tokens: tokens of one block.
        seqs_max: posts that the engine runs at the same time.
    """

    capacity_tokens: int
    block_tokens: int
    seqs_max: int


# A prefix, or what a post has for itself: by a number, because a post can come again under the same id.
_Segment: TypeAlias = PrefixKey | int


class PrefixCache:
    """The model of one engine's cache. Until :meth:`reset` gives its size, everything is taken to fit.

    It runs ahead of the engine: a post that enters is taken to run at once, and the oldest of the others to be finished
    once more run than can. So it says what a post will find when its turn comes, after those that entered before it.

    Sizes are in tokens; a prefix counts with its whole blocks, a post with the blocks that it begins.

    Attributes:
        holds_all: whether all prefixes fit beside the posts that the engine runs at the same time.
    """

    def __init__(self) -> None:
        self._room: CacheRoom | None = None
        # The posts that run, oldest first, with their prefixes and sizes; how many of them use a prefix.
        self._running: OrderedDict[str, tuple[PrefixKey, int]] = OrderedDict()
        self._users: Counter[PrefixKey] = Counter()
        self._used_sizes: dict[PrefixKey, int] = {}
        self._running_tokens = 0
        # What may be dropped, least recently used first.
        self._idle: OrderedDict[_Segment, int] = OrderedDict()
        self._idle_tokens = 0
        self._numbers = itertools.count()
        # Prefixes that run or are idle, least recently used first.
        self._warm: OrderedDict[PrefixKey, None] = OrderedDict()
        self._sizes: dict[PrefixKey, int] = {}
        self._sizes_tokens = 0
        self._post_mean = 0.0
        self._learned = False
        self.holds_all = True

    def reset(self, room: CacheRoom | None) -> None:
        """Begin with the empty cache of a new engine; None if the engine does not tell its size."""
        self._room = room
        self._running.clear()
        self._users.clear()
        self._used_sizes.clear()
        self._idle.clear()
        self._warm.clear()
        self._running_tokens = self._idle_tokens = 0
        self._compare()

    def expect(self, prefixes: Mapping[PrefixKey, int], post_tokens_max: int) -> None:
        """Record all prefixes that posts will have; forget the others that are not cached.

        Args:
            prefixes: their lengths in tokens.
            post_tokens_max: what a post may have for itself; it counts until a post is completed.
        """
        kept = {key: size for key, size in self._sizes.items() if key in self._warm}
        self._post_mean = self._post_mean or post_tokens_max
        self._sizes = kept | {key: self._whole_blocks(tokens) for key, tokens in prefixes.items()}
        self._sizes_tokens = sum(self._sizes.values())
        self._compare()

    def is_warm(self, key: PrefixKey) -> bool:
        """Return whether a post with this prefix would find it cached."""
        return key in self._warm

    def warm(self) -> Iterator[PrefixKey]:
        """Return the prefixes that are cached, the most recently used first."""
        return reversed(self._warm)

    def enter(self, key: PrefixKey, request_id: str) -> None:
        """Record that a post was admitted."""
        room = self._room
        if room is None:
            return
        if (
            request_id in self._running
        ):  # the engine never completed it, as the warm-up of an older policy
            self._finish(request_id)
        own = round(self._post_mean)
        needed = own + (0 if self._users[key] else self._sizes.get(key, 0))
        while self._running and (
            len(self._running) >= room.seqs_max
            or self._running_tokens + needed > room.capacity_tokens
        ):
            self._finish(next(iter(self._running)))
        if not self._users[key]:
            self._idle_tokens -= self._idle.pop(key, 0)
            self._used_sizes[key] = size = self._sizes.get(key, 0)
            self._running_tokens += size
        self._users[key] += 1
        self._running[request_id] = (key, own)
        self._running_tokens += own
        self._use(key)
        self._drop()

    def leave(self, key: PrefixKey, request_id: str, prefix_tokens: int, post_tokens: int) -> None:
        """Record that the engine has completed a post.

        Args:
            key: of its prefix.
            request_id: its id.
            prefix_tokens: of its prefix.
            post_tokens: of its prompt after the prefix, and of its completion.
        """
        if request_id in self._running:
            self._finish(request_id)
            self._drop()
        if key not in self._sizes:
            self._sizes[key] = size = self._whole_blocks(prefix_tokens)
            self._sizes_tokens += size
        own = prefix_tokens % self._block_tokens + post_tokens
        own += -own % self._block_tokens
        share = _LEARNED_SHARE if self._learned else 1.0
        self._learned = True
        self._post_mean += share * (own - self._post_mean)
        self._compare()

    @property
    def _block_tokens(self) -> int:
        return 1 if self._room is None else self._room.block_tokens

    def _whole_blocks(self, tokens: int) -> int:
        return tokens - tokens % self._block_tokens

    def _compare(self) -> None:
        """Find out whether all prefixes fit."""
        if self._room is None:
            self.holds_all = True
            return
        own = self._room.seqs_max * self._post_mean
        self.holds_all = self._sizes_tokens + own <= self._room.capacity_tokens

    def _use(self, key: PrefixKey) -> None:
        self._warm[key] = None
        self._warm.move_to_end(key)

    def _finish(self, request_id: str) -> None:
        """Make a post's blocks idle. Its prefix is dropped after them: blocks go from the end of a prompt."""
        key, own = self._running.pop(request_id)
        self._running_tokens -= own
        self._idle[next(self._numbers)] = own
        self._idle_tokens += own
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            size = self._used_sizes.pop(key)
            self._running_tokens -= size
            self._idle[key] = size
            self._idle_tokens += size
        self._use(key)

    def _drop(self) -> None:
        """Drop what has no room."""
        assert self._room is not None
        while self._idle and self._running_tokens + self._idle_tokens > self._room.capacity_tokens:
            dropped, size = self._idle.popitem(last=False)
            self._idle_tokens -= size
            if isinstance(dropped, PrefixKey):
                del self._warm[dropped]
