"""Copies the published JSON Schemas to where people look for them, docs/contracts. Run by ``make contracts``.

``--release`` also keeps them as those of the last release, by which compatibility is judged: run it once, when a
version is tagged.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "stream_guard" / "records" / "schemas"
CONTRACTS = ROOT / "docs" / "contracts"


def main():
    """Copy."""
    targets = [CONTRACTS, *([CONTRACTS / "released"] if "--release" in sys.argv[1:] else [])]
    for target in targets:
        target.mkdir(parents=True, exist_ok=True)
        for schema in sorted(SCHEMAS.glob("*.json")):
            shutil.copyfile(schema, target / schema.name)
            print(target.relative_to(ROOT) / schema.name)


if __name__ == "__main__":
    main()
