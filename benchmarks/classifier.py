"""Measures the classifier tier: posts per second and core, with the shipped classifier and posts of the demo's length.

Runs the whole tier: tokenization, model, thresholds, outcomes. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import time

from stream_guard.judging.tiers.classifier.tier import ClassifierTier
from stream_guard.judging.tiers.tier import Settled
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.records.post import Post

REFERENCE = "builtin:toxicity"
_METADATA = b"classifier: builtin:toxicity\nthresholds: {safe_below: 0.03, violates_above: 0.95}\n"
_WORDS = (
    *(
        "the",
        "a",
        "you",
        "I",
        "this",
        "that",
        "is",
        "are",
        "was",
        "not",
        "and",
        "but",
        "with",
        "from",
        "about",
    ),
    *(
        "game",
        "match",
        "team",
        "ticket",
        "price",
        "please",
        "thanks",
        "never",
        "always",
        "really",
        "maybe",
    ),
    *(
        "today",
        "friend",
        "people",
        "idiot",
        "stupid",
        "love",
        "hate",
        "great",
        "terrible",
        "awful",
        "nice",
    ),
    *(
        "good",
        "bad",
        "wrong",
        "right",
        "yes",
        "no",
        "why",
        "how",
        "when",
        "watch",
        "read",
        "sell",
        "buy",
    ),
)


def make_posts(count: int, *, seed: int = 7, words: tuple[int, int] = (8, 60)) -> list[Post]:
    """Return posts of random words; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    posts = []
    for number in range(count):
        text = " ".join(rng.choices(_WORDS, k=rng.randint(*words)))
        digest = hashlib.sha256(text.encode()).hexdigest()
        posts.append(Post(f"post-{number}", text, digest, len(text.encode())))
    return posts


def measure(*, count: int = 20_000, batch: int = 64, runs: int = 5) -> dict[str, float | str]:
    """Return posts per second of processor time; the median of runs.

    Args:
        count: posts a run.
        batch: posts handed to the tier together.
        runs: how many; the median counts.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core, as in the service
    tier = ClassifierTier(threads=1)
    policy = make_policy("benchmark", b"No insults.", metadata=_METADATA)
    tier.prepare(PolicySet({policy.id: policy}))
    posts = make_posts(count)
    tier.screen(posts[:batch], policy)  # warm
    rates, settled = [], 0
    for _ in range(runs):
        settled, start = 0, time.process_time()
        for at in range(0, count, batch):
            outcomes = tier.screen(posts[at : at + batch], policy)
            settled += sum(isinstance(outcome, Settled) for outcome in outcomes)
        rates.append(count / (time.process_time() - start))
    return {
        "benchmark": "classifier",
        "classifier": REFERENCE,
        "batch": batch,
        "bytes_per_post": round(statistics.mean(post.text_bytes for post in posts)),
        "posts_per_s_per_core": round(statistics.median(rates)),
        "settled_share": round(settled / count, 3),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps(measure(count=arguments.count, batch=arguments.batch, runs=arguments.runs)))


if __name__ == "__main__":
    main()
