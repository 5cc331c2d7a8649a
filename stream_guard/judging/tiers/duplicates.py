"""The first tier: a post that was judged before is not judged again, and one that is being judged is waited for.

What it must never do: take two posts for one that the policy could tell apart, give out an answer that was made
under another policy or model, or keep one that decided nothing, failed, or was made with something left out.

Which posts are the same is a matter of what a reader sees, and no more: canonical Unicode composition (NFC), runs
of white space, and white space at the ends. Case, punctuation, compatibility forms, look-alikes and characters of no
width stay, unlike in the rules tier, since each may change a verdict: shouting, a surface number, or a word spelt so
as to get past a filter, are what policies speak of. A miss costs one judgement; a false match is a wrong verdict.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import LRUCache

from stream_guard.judging.contract import Judgement, Provenance, TierStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_guard.judging.contract import Answer
    from stream_guard.judging.tiers.entry import Entry, Key
    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import Post

TIER: Final = "duplicates"
NEW: Final = "new"
"""The reason of a post that no known one equals."""
NAME_CHARACTERS_MAX: Final = 200
"""Of the id by which a repeat names the post that it repeats; ids may be of any length, and a cache may not."""


class Known(NamedTuple):
    """An answer, and how it came about, without the record that it was made for."""

    post_id: str
    answer: Answer
    provenance: Provenance
    confidence: float | None
    confidence_method: str | None

    @classmethod
    def of(cls, judgement: Judgement) -> Known | None:
        """Return what a judgement decided; None where it ended in an error."""
        answer, provenance = judgement.answer, judgement.provenance
        if answer is None or provenance is None:
            return None
        name = judgement.request.post.id[:NAME_CHARACTERS_MAX]
        return cls(name, answer, provenance, judgement.confidence, judgement.confidence_method)


def fold(text: str) -> str:
    """Return the text without the differences that no reader sees; idempotent."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    # Most texts are as they should be, and that is soon seen: of all white space only U+0020 is printable.
    if text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
        return text
    if "\n" not in text and "\r" not in text:
        return " ".join(text.split())
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def digest(post: Post) -> bytes:
    """Return the SHA-256 of all of a post that is judged: language (rules may be for one), title, parent and text."""
    text, language, title, parent = fold(post.text), post.language, post.title, post.parent
    # Lengths keep a part's end from passing for the next one's beginning.
    text = f"-{text}" if language is None else f"{len(language)}:{language}{text}"
    if title is None and parent is None:
        return hashlib.sha256(text.encode()).digest()
    parts = [None if part is None else fold(part) for part in (title, parent)]
    head = "".join("-" if part is None else f"{len(part)}:{part}" for part in parts)
    # One hash more, so that no bare text is taken for one with a title.
    return hashlib.sha256(hashlib.sha256(f"{head}{text}".encode()).digest()).digest()


class Duplicates:
    """Answers by what they were made of: policy, model, and a post's digest.

    Args:
        entries_max: answers kept; the least recently used go first.
        ttl_s: how long an answer is kept, in s.
        now_s: a clock that never goes back, in s.
    """

    def __init__(self, entries_max: int, ttl_s: float, now_s: Callable[[], float]) -> None:
        # With times of our own: the cache that keeps them itself takes three times as long, on every post's path.
        self._known: LRUCache[Key, tuple[float, Known]] = LRUCache(entries_max)
        self._ttl_s = ttl_s
        self._now_s = now_s
        self._model = ""

    def __len__(self) -> int:
        return len(self._known)

    def name_model(self, model: str) -> None:
        """Say which model, in which revision, answers from now on; another's answers are not given out."""
        self._model = model

    def keys(self, posts: Sequence[Post], policy: Policy) -> list[Key]:
        """Return one key per post, all under one policy."""
        context = f"{policy.id}\n{policy.sha256}\n{self._model}"
        return [(context, digest(post)) for post in posts]

    def find(self, keys: Sequence[Key]) -> list[Known | None]:
        """Return what is known of each key."""
        get, now_s = self._known.get, self._now_s()
        return [None if (kept := get(key)) is None or kept[0] <= now_s else kept[1] for key in keys]

    def learn(self, key: Key, judgement: Judgement) -> None:
        """Keep a judgement's answer, where it is one that later posts may have."""
        known = Known.of(judgement)
        if known is None or known.answer.decision == "undetermined" or known.provenance.degraded:
            return
        # One that had to be mended to be read is worth another try.
        if known.answer.parse_status in ("ok", "not_applicable"):
            self._known[key] = (self._now_s() + self._ttl_s, known)


class InFlight:
    """Posts that are being judged, each the leader of those that equal it and wait for its answer."""

    def __init__(self) -> None:
        self._leaders: dict[Key, Entry] = {}

    def join(self, entry: Entry, key: Key) -> bool:
        """Have a post wait for its leader; where there is none, make it one, and return False.

        One that is judged with something left out has no followers: an equal post goes on alone.
        """
        leader = self._leaders.get(key)
        if leader is None:
            self._leaders[key] = entry
            entry.key = key
            return False
        if leader.degraded:
            return False
        if leader.followers is None:
            leader.followers = {}
        leader.followers[entry.request.id] = entry
        entry.leader = leader
        return True

    def leave(self, entry: Entry) -> bool:
        """Take note that a post is settled; returns whether it was a leader."""
        if entry.key is None or self._leaders.get(entry.key) is not entry:
            return False
        del self._leaders[entry.key]
        return True

    def bequeath(self, entry: Entry) -> Entry | None:
        """Let a cancelled post go; where others waited for it, put the first in its place and return that."""
        if entry.leader is not None and entry.leader.followers is not None:
            entry.leader.followers.pop(entry.request.id, None)
        if not self.leave(entry) or not entry.followers:
            return None
        left = [follower for follower in entry.followers.values() if not follower.cancelled]
        entry.followers = None
        if not left:
            return None
        heir = left[0]
        heir.leader, heir.key = None, entry.key
        heir.steps = (*heir.steps, TierStep(TIER, "escalated", NEW, 0))
        heir.followers = {follower.request.id: follower for follower in left[1:]} or None
        for follower in left[1:]:
            follower.leader = heir
        assert entry.key is not None, "a leader has a key"
        self._leaders[entry.key] = heir
        return heir


def repeat(entry: Entry, known: Known, *, how: str, us: int, now_ns: int) -> Judgement:
    """Return the judgement of a post that another one equals: the same answer, and nothing spent.

    Args:
        entry: the post that repeats.
        known: what was decided of the other.
        how: ``repeats`` where the other was judged before, ``joins`` where both were in flight.
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
