"""Measures each cheap tier on one core: posts/s, and the cost of twice the text.

Each tier has one function, which prints its lines and returns its figures. The posts are invented, of about 100
characters each; a few are disguised.
"""

from __future__ import annotations

import random
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from stream_guard.judging.tiers.rules import RulesTier
from stream_guard.judging.tiers.tier import Settled
from stream_guard.policies.policy import make_policy
from stream_guard.policies.rules.normalise import normalise
from stream_guard.policies.rules.ruleset import hash_text
from stream_guard.records.post import Post

if TYPE_CHECKING:
    from collections.abc import Callable

_POLICY = (
    b"# Touting\n\n## Safe (TT0 - Fair)\n\n## Violates (TT1 - Price)\n- TT1.a over face value\n\n"
)
_PROSE = """
the a to and of in for is on that it with as was at by this from are or an have not but they you he she we
shop ticket front row friday saturday concert swap price printed paid music evening school film bread yeast
museum rain cousin bicycle repair helpline training garden window coffee nobody everyone really thought about
"""
_WORDS = _PROSE.split()
_RULES = """rules:
  - {id: fair, outcome: safe, terms: [face value, at cost price], languages: [en]}
  - id: prices
    outcome: violates
    category: TT1
    rule_ids: [TT1.a]
    patterns: ['\\b(double|triple|\\d+ times) the price\\b', 'make me an? offer',
      'no(thing)? (less|under) (than )?\\d+',
      '\\bfrom \\d{3,} (euro|pound|dollar)s?\\b', '(dm|text|call) me (for|with) (prices?|offers?)']
    terms_files: [touts.txt]
    hashes_files: [known.txt]
    except: {patterns: ['is (double|triple) the price normal']}
  - {id: odd, outcome: escalate, patterns: ['[a-z0-9._]+@[a-z0-9]+\\.[a-z]{2,}', 'https?://\\S+']}
"""


def make_posts(number: int = 20_000, seed: int = 1) -> list[str]:
    """Return texts of about 100 characters; one in ten has an emoji or typographic quotes, one in fifty a disguise."""
    rng = random.Random(seed)  # noqa: S311 - the same posts in each run
    texts = []
    for n in range(number):
        words = rng.choices(_WORDS, k=20)
        words[0] = words[0].capitalize()
        if n % 10 == 0:
            words.append(rng.choice(("\U0001f600", "don\u2019t \u201cask\u201d", "\u2026")))
        if n % 50 == 0:
            words.insert(
                5,
                rng.choice(
                    (
                        "f\u0430ce v\u0430lue",
                        "T\u200bout Brothers",
                        "soooo",
                        "D\u00d6UBLE the price",
                    )
                ),
            )
        texts.append(" ".join(words))
    return texts


def _policy() -> Any:
    rng = random.Random(2)  # noqa: S311 - the same banks in each run
    terms = [
        f"{rng.choice(_WORDS)} {rng.getrandbits(32):x} {rng.choice(_WORDS)}" for _ in range(2_000)
    ]
    hashes = [hash_text(f"known post {n}") for n in range(10_000)]
    files = {
        "rules.yaml": _RULES.encode(),
        "touts.txt": "\n".join(["tout brothers", *terms]).encode(),
        "known.txt": "\n".join(hashes).encode(),
    }
    return make_policy("touting", _POLICY, rules=files)


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the least CPU time, in s, that some work took."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def measure_normalise(texts: list[str]) -> float:
    """Print and return posts/s of normalisation."""
    rate = len(texts) / seconds(lambda: [normalise(text) for text in texts])
    print(
        f"normalise            {rate:>10,.0f} posts/s a core ({_length(texts):.0f} characters a post)"
    )
    return rate


def measure_rules(texts: list[str]) -> float:
    """Print and return posts/s of the rules tier, normalisation included, and the share that it settles."""
    policy, tier = _policy(), RulesTier()
    posts = [Post(str(n), text, "", len(text), language="en") for n, text in enumerate(texts)]
    rate = len(posts) / seconds(lambda: tier.screen(posts, policy))
    settled = sum(isinstance(outcome, Settled) for outcome in tier.screen(posts, policy))
    print(
        f"normalise and rules  {rate:>10,.0f} posts/s a core; {settled / len(posts):.1%} settled by 2,001 terms, "
        "7 patterns, 10,000 hashes"
    )
    return rate


def measure_linearity(
    units: tuple[str, ...] = ("a", "a b ", "f\u0430ce ", "x1@", "\U0001f600e\u0301"),
) -> float:
    """Print and return what twice the text costs, as a ratio, at worst: 2 is linear, 4 would be quadratic."""
    policy, tier = _policy(), RulesTier()
    worst = 0.0
    for unit in units:
        ratios = []
        for length in (50_000, 100_000, 200_000):
            costs = []
            for size in (length, 2 * length):
                post = Post("1", unit * (size // len(unit)), "", size, language="en")
                costs.append(seconds(partial(tier.screen, [post], policy), 3))
            ratios.append(costs[1] / costs[0])
        worst = max(worst, statistics.median(ratios))
    print(f"twice the text       {worst:>10.2f} times the cost, at worst (2 is linear)")
    return worst


def _length(texts: list[str]) -> float:
    return statistics.fmean(map(len, texts))


def measure() -> dict[str, float]:
    """Print and return the figures of every tier here, by name."""
    texts = make_posts()
    return {
        "normalise_per_s": measure_normalise(texts),
        "rules_per_s": measure_rules(texts),
        "twice_the_text": measure_linearity(),
    }


if __name__ == "__main__":
    measure()
