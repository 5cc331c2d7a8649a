"""Measures how well a classifier separates labelled texts: one line per file, and one row per pair of thresholds.

    python -m tools.classifier.evaluate builtin:toxicity posts.csv --text example --label classification --safe ARS0,DC0

Prints no text of a post.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from stream_guard.core.errors import PolicyError
from stream_guard.judging.tiers.classifier.files import classifier_folder
from stream_guard.judging.tiers.classifier.model import load_classifier

THRESHOLDS = ((0.01, 0.99), (0.02, 0.98), (0.03, 0.95), (0.05, 0.9), (0.5, 0.5))


def read(path: Path, text: str, label: str, safe: set[str]) -> list[tuple[str, bool]]:
    """Return texts, and whether each violates. Lines before the header are ignored."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    for at, row in enumerate(rows[:5]):
        names = [name.strip().casefold() for name in row]
        if text.casefold() in names and label.casefold() in names:
            t, v = names.index(text.casefold()), names.index(label.casefold())
            wanted = [row for row in rows[at + 1 :] if len(row) > max(t, v) and row[t].strip()]
            return [(row[t], row[v].strip() not in safe) for row in wanted]
    sys.exit(
        f"{path}: no columns {text!r} and {label!r} in its first lines; name them with --text and --label"
    )


def auc(scores: list[float], labels: list[bool]) -> float:
    """Return the chance that a violating text has a higher score than a safe one; ties count half."""
    pairs = [(s, t) for s, v in zip(scores, labels, strict=True) if v
             for t, w in zip(scores, labels, strict=True) if not w]  # fmt: skip
    if not pairs:
        return float("nan")
    return sum((s > t) + 0.5 * (s == t) for s, t in pairs) / len(pairs)


def main() -> None:
    """Score each file, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("classifier", help="builtin:NAME, or a folder")
    parser.add_argument(
        "files", nargs="+", type=Path, help="CSV with a column of texts and one of labels"
    )
    parser.add_argument("--text", default="text")
    parser.add_argument("--label", default="label")
    parser.add_argument(
        "--safe", default="0", help="labels that do not violate, with commas between them"
    )
    arguments = parser.parse_args()
    try:
        model = load_classifier(classifier_folder(arguments.classifier, Path()))
    except PolicyError as error:
        sys.exit(str(error))
    for path in arguments.files:
        posts = read(path, arguments.text, arguments.label, set(arguments.safe.split(",")))
        scored = [
            (s.probability, v)
            for s, (_, v) in zip(model.score([t for t, _ in posts]), posts, strict=True)
        ]
        known = [(s, v) for s, v in scored if s is not None]
        violating = sum(v for _, v in known)
        print(f"{path.name}: {len(known)} texts, {violating} violate, {model.label}")
        print(f"  AUC {auc([s for s, _ in known], [v for _, v in known]):.3f} (0.5 is chance)")
        for low, high in THRESHOLDS:
            safe = [v for s, v in known if s < low]
            above = [v for s, v in known if s > high]
            print(
                f"  below {low}: {len(safe)} of which {sum(safe)} violate; "
                f"above {high}: {len(above)} of which {sum(above)} violate"
            )


if __name__ == "__main__":
    main()
