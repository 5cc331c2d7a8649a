"""What each page takes for granted before its commands: files, variables, exit codes that are meant.

A page that needs nothing beyond the common stage needs no entry here. The common stage is a copy of the tree with
``posts.jsonl`` in it, and a broker (``STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS``) with the topics ``posts`` and
``forum.posts``, those of verdicts, dead letters, decisions, review items and escalations and ``touting.backtest``, all
of six partitions, in which a program has judged posts: there are verdicts, one with the id ``VERDICT_ID`` and in
review, and dead letters of posts/3/41 (``json``) and of posts/3/42 (``missing_field``).
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import orjson

from stream_guard.policies.drafts import make_draft
from stream_guard.policies.store import load_policies
from tests.commands.stage import Story
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from pathlib import Path

POSTS: Final = [
    {"id": f"p{number}", "text": text, "author": f"a{number}", "language": "en"}
    for number, text in enumerate(
        ("[violates] You are an idiot", "The doors open at seven", "Two for 500", "Thank you all"),
        1,
    )
]
BROKERS: Final = '"$STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS"'
VERDICT_ID: Final = "0f3a9c21d4b84e6f9a7c5d1e2b3f4a60"
"""The verdict that the documentation names; a real one's id comes of its policy's text, and changes with it."""
SCRIPTED: Final = {"STREAM_GUARD_ENGINE__KIND": "scripted"}
REVIEWED: Final = {
    "STREAM_GUARD_KAFKA__REVIEW_TOPIC": "stream-guard.review",
    "STREAM_GUARD_REVIEW__TOKENS_FILE": "tokens",
    "STREAM_GUARD_REVIEW__PORT": "0",
}
DECIDING: Final = {"STREAM_GUARD_DECISIONS__ENABLED": "true"}


def written(tree: Path, place: str) -> Path:
    """Write the policy that docs/guides/policies.md writes to ``place/touting``; return that folder."""
    page = (tree / "docs" / "guides" / "policies.md").read_text("utf-8")
    (text,) = re.findall(r"````markdown\n(.*?)````", page, re.DOTALL)
    folder = tree / place / "touting"
    folder.mkdir(parents=True)
    (folder / "policy.md").write_text(text, encoding="utf-8")
    return folder


def touting(tree: Path) -> None:
    """Add the policy that docs/guides/policies.md writes, as it is there, and as it was before."""
    folder = written(tree, "policies")
    shutil.copytree(tree / "policies", tree / "policies.before")
    (folder / "policy.yaml").write_text('version: "2025-03"\neffort: medium\n', encoding="utf-8")


def golden(tree: Path) -> None:
    """Write ``golden.csv``: labelled posts for an attack."""
    with (tree / "golden.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label"))
        rows.writerows((post["text"], "0") for post in POSTS)


def labelled_posts(tree: Path) -> None:
    """Write ``golden.csv``: 40 posts that the scripted judge judges as people do, for an evaluation."""
    with (tree / "golden.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "text", "label"))
        for number in range(40):
            text = POSTS[number % len(POSTS)]["text"]
            rows.writerow((f"g{number}", f"{text}, {number}", int("[violates]" in text)))


def _violates(number: int) -> bool:
    """Return what people say of a post whose confidence is ``number / 200``: too sure from 0.5 to 0.75."""
    return (number > 150) != (number % 17 == 0)


def predicted(tree: Path, slug: str, folder: str) -> None:
    """Write what an evaluation with a measured confidence would have: ``predictions.jsonl``, of 200 posts."""
    policy = load_policies(tree / "policies").policies[slug]
    (tree / folder).mkdir(parents=True)
    with (tree / folder / "predictions.jsonl").open("wb") as file:
        for number in range(200):
            verdict = make_verdict(offset=number)
            verdict["policy"].update(id=policy.id, sha256=policy.sha256, version=policy.version)
            confidence = number / 200
            verdict["confidence"].update(
                value=confidence, raw=confidence, method="token_probability"
            )
            violates = _violates(number)
            golden = {"row": number + 1, "label": str(int(violates)), "category": None}
            line = {**verdict, "golden": {**golden, "violates": violates, "seconds": 0.1}}
            file.write(orjson.dumps(line) + b"\n")


def labelled(tree: Path, slug: str) -> None:
    """Write ``verdicts.jsonl`` and ``labels.csv``: 200 verdicts under a policy, and what people say."""
    policy = load_policies(tree / "policies").policies[slug]
    with (tree / "verdicts.jsonl").open("wb") as verdicts:
        for number in range(200):
            verdict = make_verdict(offset=number)
            verdict["content"]["id"] = f"p{number}"
            verdict["policy"].update(id=policy.id, sha256=policy.sha256, version=policy.version)
            verdict["confidence"] = {"value": number / 200, "method": "token_probability"}
            verdicts.write(orjson.dumps(verdict) + b"\n")
    with (tree / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "label"))
        rows.writerows((f"p{number}", "1" if _violates(number) else "0") for number in range(200))


def drafted(tree: Path) -> None:
    """Write ``drafts/touting``: a policy that is in no folder that the service reads."""
    written(tree, "drafts")


def for_evaluation(tree: Path) -> None:
    """Prepare for docs/guides/evaluation.md: a policy on the branch main, golden sets, and an earlier evaluation."""
    touting(tree)
    labelled_posts(tree)
    predicted(tree, "touting", "eval-output/fitting")
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (("init", "-q", "-b", "main"), ("add", "policies"), ("commit", "-q", "-m", "Add")):
        subprocess.run(["git", *author, *words], cwd=tree, check=True)  # noqa: S607 - from PATH


def for_policies(tree: Path) -> None:
    """Prepare for docs/guides/policies.md."""
    touting(tree)
    golden(tree)


def for_classifier(tree: Path) -> None:
    """Prepare for docs/guides/classifier.md: a policy called hate with a model of its own, and labels."""
    shutil.copytree(tree / "policies" / "dangerous-content", tree / "policies" / "hate")
    shipped = tree / "stream_guard" / "judging" / "tiers" / "classifier" / "models" / "toxicity"
    shutil.copytree(shipped, tree / "policies" / "hate" / "my-model")
    golden(tree)
    shutil.copy(tree / "golden.csv", tree / "labelled.csv")
    labelled(tree, "hate")


def for_escalation(tree: Path) -> None:
    """Write the settings of both deployments, as docs/guides/escalation.md shows them first."""
    page = (tree / "docs" / "guides" / "escalation.md").read_text("utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    for name, text in zip(("small.toml", "large.toml"), blocks, strict=False):
        (tree / name).write_text(text, encoding="utf-8")


def edited_draft(tree: Path, slug: str) -> None:
    """Make a draft of a policy with a sentence more, a golden set, and a gate that every draft passes."""
    policies = tree / "policies"
    golden_set = "text,label\na cup of tea,safe\n[violates] a weapon,violates\n"
    (policies / slug / "golden.csv").write_text(golden_set, "utf-8")
    folder, _ = make_draft(policies, load_policies(policies).policies[slug])
    text = folder / "policy.md"
    text.write_text(text.read_text("utf-8") + "\nJudge the post alone.\n", "utf-8")
    (folder / "policy.yaml").write_text("gates: {max_flips: 1.0}\n", "utf-8")


def for_reference(tree: Path) -> None:
    """Prepare for the examples in docs/reference/commands.md."""
    touting(tree)
    drafted(tree)
    edited_draft(tree, "dangerous-content")
    labelled(tree, "touting")
    labelled_posts(tree)
    predicted(tree, "touting", "eval-output/touting")
    shutil.copy(tree / "examples" / "dsa-mapping.yaml", tree / "dsa.yaml")
    (tree / "tokens").write_text(f"reviewer r-17 {'t' * 32}\n", encoding="utf-8")
    (tree / "guard.toml").write_text('[kafka]\ntopics = ["posts"]\n', encoding="utf-8")


def shared(tree: Path) -> None:
    """Write the folder ``shared``: the shipped policies, with the routes that docs/guides/lanes.md shows."""
    page = (tree / "docs" / "guides" / "lanes.md").read_text("utf-8")
    (routes,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    shutil.copytree(tree / "policies", tree / "shared")
    (tree / "shared" / "routes.yaml").write_text(routes, encoding="utf-8")


STORIES: Final = {
    "README.md": Story(outside=True),
    "examples/enforcement.py": Story(
        lasting={
            f"python examples/enforcement.py {BROKERS} --database enforcement.sqlite": "review p"
        },
    ),
    "examples/review_queue.py": Story(
        lasting={
            f"python examples/review_queue.py {BROKERS} --database reviews.sqlite": "to review: p1"
        },
    ),
    "docs/index.md": Story(outside=True),
    "docs/guides/audit.md": Story(drafted, SCRIPTED),
    "docs/guides/backfill.md": Story(environment=SCRIPTED),
    "docs/guides/decisions.md": Story(environment=DECIDING),
    "docs/guides/escalation.md": Story(
        for_escalation,
        SCRIPTED,
        lasting={
            "stream-guard run --config small.toml": "assigned",
            "stream-guard run --config large.toml": "assigned",
        },
    ),
    "docs/guides/lanes.md": Story(shared),
    "docs/guides/evaluation.md": Story(for_evaluation, SCRIPTED),
    "docs/guides/policies.md": Story(for_policies, SCRIPTED),
    "docs/guides/classifier.md": Story(for_classifier),
    "examples/undoing_enforcement.py": Story(
        lasting={
            f"python examples/undoing_enforcement.py {BROKERS} --database undoing.sqlite": "verdict"
        },
    ),
    "docs/reference/commands.md": Story(
        for_reference,
        SCRIPTED | REVIEWED | DECIDING | {"STREAM_GUARD_KAFKA__TOPICS": '["posts"]'},
        lasting={
            "stream-guard run --config guard.toml": "assigned",
            "stream-guard review serve": "review queue: http://",
            "stream-guard console --config guard.toml": "console: http://",
        },
    ),
}
"""By page; every other page has ``Story()``."""
