"""Measures the cheap tiers on one core, and what each settles of the demo's stream: ``make bench-cascade``.

Rates are posts per second of processor time, so other load on the machine matters little. The demo's policies have no
rules; this benchmark adds rules and thresholds of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from prometheus_client import CollectorRegistry

from benchmarks import cheap_tiers, classifier
from stream_guard.cli.demo.posts import demo_posts
from stream_guard.core.clock import SystemClock
from stream_guard.judging.assembly import make_cascade
from stream_guard.judging.contract import JudgeRequest
from stream_guard.judging.engine.scripted import ScriptedJudge
from stream_guard.policies.policy import PolicySet
from stream_guard.policies.store import load_policies
from stream_guard.records.post import Post, PostParser
from stream_guard.settings import Settings
from stream_guard.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_guard.judging.contract import Judgement
    from stream_guard.policies.policy import Policy

ROOT = Path(__file__).resolve().parent.parent
BATCH = 64
AIM_TOGETHER, AIM_CLASSIFIER = 100_000, 5_000
_RULES = """\
rules:
  - {{id: known-harmless, outcome: safe, terms: [bicycle repair stand, maths test, my gran says hi]}}
  - id: known-bad
    outcome: violates
    category: {category}
    terms: [never checks id, buys beer for all of us, climbed the crane]
"""
_CATEGORIES = {"age-restricted-goods-and-services": "ARS2", "dangerous-content": "DC2"}
_THRESHOLDS = "thresholds: {safe_below: 0.03, violates_above: 0.97}\nclassifier: builtin:toxicity\n"


def settings(*tiers: str) -> Settings:
    """Return settings with these tiers, and room for every post of a run."""
    return Settings.model_validate(
        {
            "kafka": {"topics": ["posts"]},
            "cascade": {"tiers": tiers, "ladder": [], "duplicates_entries_max": 1_000_000},
        }
    )


async def run(
    posts: Sequence[Post], policies: PolicySet, policy: Policy, *tiers: str
) -> tuple[float, Counter[str]]:
    """Return the CPU time, in s, of all posts under a policy, and how many each tier decided."""
    cascade = make_cascade(
        settings(*tiers), SystemClock(), Metrics(CollectorRegistry()), ScriptedJudge()
    )
    await cascade.start(policies)
    decided: Counter[str] = Counter()
    finished = asyncio.Event()

    def deliver(judgements: Sequence[Judgement]) -> None:
        for judgement in judgements:
            assert judgement.provenance is not None
            decided[judgement.provenance.tier] += 1
        if decided.total() == len(posts):
            finished.set()

    requests = [JudgeRequest(str(number), post, policy) for number, post in enumerate(posts)]
    started = time.process_time()
    for at in range(0, len(requests), BATCH):
        cascade.submit(requests[at : at + BATCH], deliver)
        await asyncio.sleep(0)
    await finished.wait()
    spent = time.process_time() - started
    await cascade.close()
    return spent, decided


def measure_together(count: int, runs: int) -> dict[str, float]:
    """Print and return posts/s of duplicates, and of duplicates and rules together, through the whole cascade."""
    policy = cheap_tiers._policy()  # noqa: SLF001 - the same rules as the rules tier's own figure
    policies = PolicySet({policy.id: policy}, default=(policy.id,))
    texts = cheap_tiers.make_posts(count // 2)
    # Each text twice: the half that repeats ends in the first tier, the other passes both.
    posts = [
        Post(f"{turn}-{n}", text, "", len(text), language="en")
        for turn in range(2)
        for n, text in enumerate(texts)
    ]
    found = {}
    for name, tiers in (
        ("no cheap tier", ("safeguard",)),
        ("duplicates", ("duplicates", "safeguard")),
        ("duplicates and rules", ("duplicates", "rules", "safeguard")),
    ):
        results = [asyncio.run(run(posts, policies, policy, *tiers)) for _ in range(runs)]
        spent_s = statistics.median(spent for spent, _ in results)
        shares = ", ".join(f"{tier} {n / len(posts):.0%}" for tier, n in results[0][1].items())
        found[name] = len(posts) / spent_s
        print(f"{name:<21}{found[name]:>10,.0f} posts/s a core, through the cascade; {shares}")
    base_s = 1 / found["no cheap tier"]
    for name in ("duplicates", "duplicates and rules"):
        alone = 1 / max(1 / found[name] - base_s, 1e-9)
        found[f"{name}, alone"] = alone
        print(f"{name:<21}{alone:>10,.0f} posts/s a core, what the cascade itself costs taken off")
    return found


def measure_demo() -> dict[str, dict[str, float]]:
    """Print and return the share of the demo's verdicts that each tier decides, with rules and thresholds given."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "policies"
        shutil.copytree(ROOT / "policies", place)
        for slug, category in _CATEGORIES.items():
            (place / slug / "rules.yaml").write_text(_RULES.format(category=category))
            (place / slug / "policy.yaml").write_text(_THRESHOLDS)
        policies = load_policies(place)
    parser = PostParser(settings("safeguard").post)
    shares: dict[str, dict[str, float]] = {}
    for label, repeats in (("once", 1), ("as the demo sends it, twice", 2)):
        total: Counter[str] = Counter()
        for topic in dict.fromkeys(topic for topic, _, _ in demo_posts()):
            posts = [
                parser.parse(value, [])
                for _ in range(repeats)
                for t, _, value in demo_posts()
                if t == topic and "(again)" not in orjson.loads(value)["text"]
            ]
            for policy in policies.route(topic):
                tiers = ("duplicates", "rules", "classifier", "safeguard")
                total += asyncio.run(run(posts, policies, policy, *tiers))[1]
        shares[label] = {tier: n / total.total() for tier, n in total.most_common()}
        told = ", ".join(f"{tier} {share:.0%}" for tier, share in shares[label].items())
        print(f"the demo's stream, {label}: {told} (scripted stands for the model)")
    return shares


def main() -> int:
    """Measure all; exit 1 where an aim is missed."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--posts", type=int, default=20_000, help="of one run")
    arguments.add_argument("--runs", type=int, default=5, help="of which the median counts")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = arguments.parse_args()
    found: dict[str, Any] = dict(cheap_tiers.measure())
    found |= measure_together(options.posts, options.runs)
    shipped = classifier.measure(count=options.posts // 4, runs=options.runs)
    found["classifier"] = float(shipped["posts_per_s_per_core"])
    print(
        f"classifier           {found['classifier']:>10,.0f} posts/s a core ({classifier.REFERENCE})"
    )
    found["demo"] = measure_demo()
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    missed = []
    for name, aim in (
        ("duplicates and rules, alone", AIM_TOGETHER),
        ("classifier", AIM_CLASSIFIER),
    ):
        reached = found[name] >= aim
        print(f"aim: {name} at {aim:,} posts/s a core: {'reached' if reached else 'MISSED'}")
        missed += [] if reached else [name]
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
