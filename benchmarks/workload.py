"""Makes the posts and policies of a benchmark: equal for equal seeds, of mixed lengths.

Each post names a board, and each board has one policy, so a post owes exactly one verdict. The boards' policies
alternate in effort, so that reasoning has mixed lengths as well. No two posts begin alike, because an engine's prefix
cache would save work on one of them. The posts do not represent any platform's traffic.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_THINGS: Final = (
    *("scooter", "umbrella", "kettle", "museum", "gossip", "garden", "vampire", "invoice"),
    *("football", "homework", "film", "bread", "ticket", "firework", "password", "holiday"),
    *("camera", "ladder", "violin", "orchard", "harbour", "lantern", "pigeon", "rucksack"),
    *("teapot", "barber", "cinema", "postcard", "marathon", "compost", "jigsaw", "caravan"),
)
_SENTENCES: Final = (
    "I saw a {} on my way home.",
    "Does anybody have a {}?",
    "Has anyone tried the new {} yet?",
    "We talked about the {} all night.",
    "My friend told me about a {} and I liked it.",
    "Selling a {}, write to me.",
    "Somebody left the {} here yesterday, and it rained.",
    "How do I get a {} this weekend?",
)
Efforts = tuple[tuple[str, int], ...]
"""Effort and reasoning budget, in tokens, of the boards in turn."""
EFFORTS: Final[Efforts] = (("low", 24), ("medium", 64), ("high", 128))
"""Sizes for a model that is tiny."""
SENTENCES_MAX: Final = 40


class Workload(NamedTuple):
    """What an engine is given to do for each post.

    Attributes:
        policy_tokens: of each policy's text, at least.
        efforts: of the policies.
        rationale_tokens: longest rationale.
    """

    policy_tokens: int
    efforts: Efforts
    rationale_tokens: int


WORKLOADS: Final = {
    "reasoning": Workload(300, EFFORTS, 32),
    "short": Workload(60, (("low", 4), ("medium", 8), ("high", 16)), 4),
}
"""By name: ``reasoning`` keeps an engine busy; ``short`` puts the load on the work before the engine."""


class Given(NamedTuple):
    """A post: its id, the policy that judges it, and its record's value."""

    id: str
    policy: str
    value: bytes


def policy_id(board: int) -> str:
    """Return the id of a board's policy."""
    return f"rules-{board:02d}"


def policy_text(board: int, tokens_min: int, count_tokens: Callable[[str], int]) -> str:
    """Return a policy of at least so many tokens, and hardly more: definitions are added until it is long enough."""
    rng = random.Random(board)  # noqa: S311 - drawn to be repeated
    things = rng.sample(_THINGS, 6)
    # As the demo model was taught: two letters, and a code for what is allowed. Where there is none it makes one up.
    code = f"B{chr(ord('A') + board % 26)}"
    text = (
        f"# Board {board:02d} Rules (#{code})\n\n## Goal\n\n"
        "Neighbours talk, swap and sell here. Classify each post as `VIOLATES` or `SAFE`.\n\n"
        f"## Allowed content ({code}0 - Allowed content)\n\n- {code}0.a Questions about a {things[4]}\n"
        f"- {code}0.b Anything about a {things[5]}\n\nOutput: `SAFE`\n\n"
        f"## Sales ({code}1 - Sales)\n\n- {code}1.a Selling or buying a {things[0]}\n"
        f"- {code}1.b Any {things[1]}, in any form\n\nOutput: `VIOLATES`\n\n"
        f"## Talk ({code}2 - Talk)\n\n- {code}2.a Posts about a {things[2]}\n"
        f"- {code}2.b Praise of a {things[3]}\n\nOutput: `VIOLATES`\n\n## Definitions\n\n"
    )
    while count_tokens(text) < tokens_min:
        one, other = rng.sample(_THINGS, 2)
        text += f"- A {one} is what people on this board call one, and not a {other}.\n"
    return text


def write_policies(
    folder: Path,
    boards: int,
    tokens_min: int,
    count_tokens: Callable[[str], int],
    *,
    mixed: bool,
    efforts: Efforts = EFFORTS,
) -> None:
    """Write a folder of policies, one for each board, and the routes to them.

    Args:
        folder: made, and must not be there.
        boards: how many.
        tokens_min: of each text.
        count_tokens: of the model that will read them.
        mixed: whether boards take turns in effort; else all have the lowest.
        efforts: that they take turns in, the lowest first.
    """
    folder.mkdir()
    rules = []
    for board in range(boards):
        one = folder / policy_id(board)
        one.mkdir()
        (one / "policy.md").write_text(policy_text(board, tokens_min, count_tokens), "utf-8")
        effort, budget = efforts[board % len(efforts) if mixed else 0]
        meta = {"effort": effort, "reasoning_tokens_max": budget}
        (one / "policy.yaml").write_text(yaml.safe_dump(meta), "utf-8")
        when = {"field": {"/board": board}}
        rules.append({"name": f"board {board}", "when": when, "policies": [policy_id(board)]})
    routes = {"default": [policy_id(0)], "rules": rules}
    (folder / "routes.yaml").write_text(yaml.safe_dump(routes), "utf-8")


def make_posts(run: str, count: int, boards: int, *, seed: int = 0) -> list[Given]:
    """Return posts in random order of boards; equal seeds make the same texts behind the run's own first words.

    Args:
        run: names the run; the first word of each text, so that an engine that lives on has seen none of them.
        count: how many.
        boards: numbered from 0; their counts of posts differ by at most one.
        seed: of boards, lengths and words.
    """
    rng = random.Random(seed)  # noqa: S311 - drawn to be repeated
    order = [number % boards for number in range(count)]
    rng.shuffle(order)
    return [_post(rng, run, number, board) for number, board in enumerate(order)]


def _post(rng: random.Random, run: str, number: int, board: int) -> Given:
    # Most posts are short and a few are long, as people write them.
    sentences = min(SENTENCES_MAX, 1 + int(rng.lognormvariate(0.8, 0.9)))
    words = (rng.choice(_SENTENCES).format(rng.choice(_THINGS)) for _ in range(sentences))
    name = f"{run}-{number:06d}"
    text = f"{run} {number}: " + " ".join(words)
    post = {"id": name, "text": text, "author": f"author-{number % 997}", "board": board}
    return Given(name, policy_id(board), orjson.dumps(post))


def board_of(post: Given) -> int:
    """Return the board of a post."""
    board: int = orjson.loads(post.value)["board"]
    return board


def by_policy(posts: Sequence[Given]) -> list[Given]:
    """Return the same posts sorted by policy, and within one as they came: the order that serves a cache best."""
    return sorted(posts, key=lambda post: post.policy)
