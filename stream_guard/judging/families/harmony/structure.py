"""Checks, on token ids, that no hostile post changes the structure of a policy's prompt. Pure."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from stream_guard.core.errors import PolicyError, PromptError
from stream_guard.core.vocabulary import ThreadKind
from stream_guard.judging.hostile_posts import ATTACKS
from stream_guard.records.post import Post
from stream_guard.records.thread import ThreadEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_guard.judging.families.family import Prefix
    from stream_guard.judging.families.harmony.prompt import PromptBuilder
    from stream_guard.judging.families.harmony.tokens import ControlTokens
    from stream_guard.judging.hostile_posts import Attack
    from stream_guard.policies.policy import Policy


def check_structure(
    policy: Policy, builder: PromptBuilder, prefix: Prefix, tokens: ControlTokens
) -> None:
    """Reject a policy if a hostile post can change the structure of its prompt.

    Whatever a post's text, title, language or thread holds, the prompt must begin with the policy's part, token by
    token. It must end like every other prompt, and have no control token in between.

    Raises:
        PolicyError: a hostile post changes the structure; names it.
    """
    plain = Post(id="", text="x", sha256="", text_bytes=1)
    head = len(prefix.ids)
    # The same for every post: the end of the user's turn and the start of the model's.
    suffix = _common_end(
        builder.build(plain, prefix), builder.build(replace(plain, text="7"), prefix)
    )
    for attack in ATTACKS:
        for post in _hostile(plain, attack.apply("x", policy.taxonomy)):
            try:
                ids = builder.build(post, prefix)
            except PromptError as error:
                raise _changed(policy, attack) from error
            content = ids[head : len(ids) - len(suffix)]
            intact = tuple(ids[:head]) == prefix.ids and ids[len(ids) - len(suffix) :] == suffix
            if not intact or not tokens.every.isdisjoint(content):
                raise _changed(policy, attack)


def _common_end(one: list[int], other: list[int]) -> list[int]:
    pairs = zip(reversed(one), reversed(other), strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return one[len(one) - same :]


def _hostile(plain: Post, text: str) -> Iterator[Post]:
    """Yield posts with a hostile text in each field that the prompt shows or depends on."""
    yield replace(plain, text=text)
    yield replace(plain, title=text, language=text)
    every = tuple(ThreadEntry(kind, text, text) for kind in get_args(ThreadKind))
    yield replace(plain, author=text, context=every)


def _changed(policy: Policy, attack: Attack) -> PolicyError:
    message = (
        f"policy {policy.id!r}: the hostile post {attack.name!r} ({attack.what}) changes the structure of its prompt; "
        "the model's tokenizer is not safe to use with untrusted text"
    )
    return PolicyError(message)
