"""Counts how many innocent sentences the rules tier takes for disguised terms.

``python -m tools.disguise_hits`` reads sentences from the documentation strings of Python's standard library. They are
innocent, and full of code, paths, numbers and signs between letters. One rule that escalates is applied, and each hit
is printed. A hit settles nothing: the post goes to the next tier.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import sysconfig
import warnings
from pathlib import Path
from typing import Final

from stream_guard.policies.policy import make_policy
from tools.syntax_tree import syntax_tree

TERMS: Final = (
    "viagra", "cialis", "buy pills", "pills", "xanax", "cocaine", "heroin", "escort", "casino", "free money", "porn",
    "nudes", "onlyfans", "crypto giveaway", "fake id", "steroids", "meth", "weed", "gun", "kill yourself", "kys",
    "slut", "whore", "nazi",
)  # fmt: skip
_POLICY: Final = (
    b"# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n\nAnswer `BAD` or `GOOD`.\n"
)
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_CHARACTERS_MIN: Final = 20


def sentences(count: int, seed: int) -> list[str]:
    """Return sentences of the standard library's documentation, each once, in an order that the seed gives."""
    found: dict[str, None] = {}
    for file in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in file.parts or "test" in file.parts or "tests" in file.parts:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                tree = syntax_tree(file.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for sentence in _SENTENCE.split(ast.get_docstring(node) or ""):
                    if len(sentence) >= _CHARACTERS_MIN:
                        found[sentence] = None
    texts = list(found)
    random.Random(seed).shuffle(texts)  # noqa: S311 - a sample, no secret
    return texts[:count]


def hits(texts: list[str], terms: tuple[str, ...] = TERMS) -> tuple[int, list[str]]:
    """Return how many texts have a term as it is written, and the texts that only a disguise makes match."""
    rules = f"rules:\n- id: one\n  outcome: escalate\n  terms: [{', '.join(terms)}]\n"
    policy = make_policy("spam", _POLICY, rules={"rules.yaml": rules.encode()})
    assert policy.rules is not None
    found = [(policy.rules.first(text), text) for text in texts]
    plain = sum(hit is not None and not hit.disguised for hit, _ in found)
    return plain, [text for hit, text in found if hit is not None and hit.disguised]


def main() -> None:
    """Count, and print the hits."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--posts", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    texts = sentences(asked.posts, asked.seed)
    plain, disguised = hits(texts)
    for text in disguised:
        print(f"  {' '.join(text.split())[:150]}")
    print(f"{len(texts):,} innocent sentences, {len(TERMS)} terms")
    print(f"{len(disguised)} taken for disguised; {plain} have a term as it is written")


if __name__ == "__main__":
    main()
