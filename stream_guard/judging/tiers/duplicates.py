"""The first tier: repeats the answer to an equal post that was judged before, or waits for one in flight.

An answer is repeated only under the same policy and model, and within one tenant: the trail names the repeated post,
and no tenant may learn of another's. Answers that decided nothing, failed, were made with something left out, or
followed reasoning that was cut are not cached.

Two posts are equal if a reader sees no difference between them. Ignored are canonical Unicode composition (NFC), the
length of white space, and white space at the ends. Case, punctuation, compatibility forms, look-alikes and zero-width
characters count, unlike in the rules tier: a policy may speak of shouting, or of words spelt to evade a filter. A miss
costs one judgement; a false match is a wrong verdict.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import LRUCache

from stream_guard.judging.contract import Judgement, Provenance, TierStep
from stream_guard.records.thread import speakers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Answer
    from stream_guard.judging.tiers.tiered_request import Key, TieredRequest
    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import Post

TIER: Final = "duplicates"
NEW: Final = "new"
"""The reason of a post without an equal one."""
NAME_CHARACTERS_MAX: Final = 200
"""Longest stored id of the repeated post. Ids can have any length; the cache needs a bound."""


class Known(NamedTuple):
    """An answer and its provenance, without the record that it was made for."""

    post_id: str
    answer: Answer
    provenance: Provenance
    confidence: float | None
    confidence_method: str | None

    @classmethod
    def of(cls, judgement: Judgement) -> Known | None:
        """Return what a judgement decided; None if it ended in an error."""
        answer, provenance = judgement.answer, judgement.provenance
        if answer is None or provenance is None:
            return None
        name = judgement.request.post.id[:NAME_CHARACTERS_MAX]
        return cls(name, answer, provenance, judgement.confidence, judgement.confidence_method)


def fold(text: str) -> str:
    """Return the text without differences that no reader sees. Idempotent."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    # A quick check that most texts pass: of all white space only U+0020 is printable.
    if text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
        return text
    if "\n" not in text and "\r" not in text:
        return " ".join(text.split())
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def digest(post: Post) -> bytes:
    """Return the SHA-256 of what is judged of a post: language (rules may depend on it), title, text and context.

    Of the context's authors counts what the prompt says of them: the post's own, unknown, or which of the others.
    """
    text, language, title = fold(post.text), post.language, post.title
    # The lengths make the boundaries between the parts unambiguous.
    text = f"-{text}" if language is None else f"{len(language)}:{language}{text}"
    if title is None and not post.context:
        return hashlib.sha256(text.encode()).digest()
    parts = ["-" if title is None else _measured(fold(title))]
    if post.context:
        who = speakers(post.context, post.author)
        parts += (
            f"{entry.kind},{speaker},{_measured(fold(entry.text))}"
            for entry, speaker in zip(post.context, who, strict=True)
        )
    # Hashed twice, so that no bare text equals a text with a title.
    return hashlib.sha256(
        hashlib.sha256(f"{len(parts)};{''.join(parts)}{text}".encode()).digest()
    ).digest()


def _measured(text: str) -> str:
    return f"{len(text)}:{text}"


class Duplicates:
    """Caches answers by policy, model, tenant and the post's digest.

    Args:
        entries_max: most answers in the cache; the least recently used are evicted.
        ttl_s: how long an answer is kept, in s.
        now_s: a monotonic clock, in s.
        across_tenants: whether tenants share answers.
    """

    def __init__(
        self,
        entries_max: int,
        ttl_s: float,
        now_s: Callable[[], float],
        *,
        across_tenants: bool = False,
    ) -> None:
        # Not cachetools.TTLCache: it takes three times as long, and every post passes here.
        self._known: LRUCache[Key, tuple[float, Known]] = LRUCache(entries_max)
        self._ttl_s = ttl_s
        self._now_s = now_s
        self._across_tenants = across_tenants
        self._model = ""

    def __len__(self) -> int:
        return len(self._known)

    def name_model(self, model: str) -> None:
        """Set the model and revision that answer from now on; answers of other models are not repeated."""
        self._model = model

    def keys(self, posts: Sequence[Post], policy: Policy) -> list[Key]:
        """Return one key per post, all under one policy."""
        context = f"{policy.id}\n{policy.sha256}\n{self._model}"
        if self._across_tenants:
            return [(context, None, digest(post)) for post in posts]
        return [(context, post.tenant, digest(post)) for post in posts]

    def find(self, keys: Sequence[Key]) -> list[Known | None]:
        """Return the cached answer of each key, or None."""
        get, now_s = self._known.get, self._now_s()
        return [None if (kept := get(key)) is None or kept[0] <= now_s else kept[1] for key in keys]

    def store(self, key: Key, judgement: Judgement) -> None:
        """Cache a judgement's answer, if equal posts may repeat it."""
        known = Known.of(judgement)
        if known is None or (
            known.answer.decision == "undetermined" and not known.answer.is_escalated
        ):
            return
        if known.provenance.degraded or known.provenance.reasoning_cut:
            return
        # An answer that was hard to read is worth another attempt.
        if known.answer.parse_status in ("ok", "not_applicable"):
            self._known[key] = (self._now_s() + self._ttl_s, known)


class InFlight:
    """Posts that are being judged. Each leads the equal posts that wait for its answer."""

    def __init__(self) -> None:
        self._leaders: dict[Key, TieredRequest] = {}

    def join(self, entry: TieredRequest, key: Key) -> bool:
        """Make a post wait for its leader and return True. Without a leader, make it one and return False.

        A post that is judged with something left out has no followers: an equal post continues alone. So does one that
        does not itself wait for what its leader may wait for: live posts, or the quota of a tenant.
        """
        leader = self._leaders.get(key)
        if leader is None:
            self._leaders[key] = entry
            entry.key = key
            return False
        if leader.degraded or _may_wait_longer(leader, entry):
            return False
        if leader.followers is None:
            leader.followers = {}
        leader.followers[entry.request.id] = entry
        entry.leader = leader
        return True

    def leave(self, entry: TieredRequest) -> bool:
        """Remove a settled post; return whether it was a leader."""
        if entry.key is None or self._leaders.get(entry.key) is not entry:
            return False
        del self._leaders[entry.key]
        return True

    def replace_leader(self, entry: TieredRequest) -> TieredRequest | None:
        """Remove a cancelled post. If others waited for it, make the first of them leader and return it."""
        if entry.leader is not None and entry.leader.followers is not None:
            entry.leader.followers.pop(entry.request.id, None)
        if not self.leave(entry) or not entry.followers:
            return None
        left = [follower for follower in entry.followers.values() if not follower.cancelled]
        entry.followers = None
        if not left:
            return None
        successor = min(left, key=_patience)  # so that nobody waits for what it need not wait for
        left.remove(successor)
        successor.leader, successor.key = None, entry.key
        successor.steps = (*successor.steps, TierStep(TIER, "escalated", NEW, 0))
        successor.followers = {follower.request.id: follower for follower in left} or None
        for follower in left:
            follower.leader = successor
        assert entry.key is not None, "a leader has a key"
        self._leaders[entry.key] = successor
        return successor


def _patience(entry: TieredRequest) -> tuple[bool, bool]:
    """Return what a post may wait for by its lane: all live posts, and its tenant's quota."""
    lane = entry.request.lane
    if lane is None:
        return False, False
    return lane.backfill, lane.quota_of(entry.post.tenant) is not None


def _may_wait_longer(leader: TieredRequest, entry: TieredRequest) -> bool:
    """Return whether a leader may wait for something that another post does not wait for."""
    first, second = leader.request.lane, entry.request.lane
    if first is None:
        return False
    by_class, by_quota = _patience(leader)
    same = second is not None and (first.name, leader.post.tenant) == (
        second.name,
        entry.post.tenant,
    )
    return (by_class and not _patience(entry)[0]) or (by_quota and not same)


def repeat(entry: TieredRequest, known: Known, *, how: str, us: int, now_ns: int) -> Judgement:
    """Return the judgement of a post that equals another: the same answer, and no tokens spent.

    Args:
        entry: the post that repeats.
        known: the decision about the other post.
        how: ``repeats`` if the other was judged before, ``joins`` if both were in flight.
        us: how long it took, in us.
        now_ns: Unix time in ns.
    """
    step = TierStep(TIER, "settled", f"{how}:{known.post_id}", us)
    provenance = known.provenance.copy()
    provenance.tier = TIER
    provenance.trail = (*entry.steps, step)
    # This post cost nothing.
    provenance.prompt_tokens = provenance.cached_tokens = provenance.output_tokens = 0
    provenance.attempts = 0
    provenance.finish_reason = "none"
    confidence, method = known.confidence, known.confidence_method
    return Judgement(
        entry.request, known.answer, None, provenance, confidence, method, now_ns, now_ns
    )
