"""Writes the published JSON Schemas and Avro schemas to docs/contracts. Run by ``make contracts``.

The schemas for readers are in docs/contracts, the strict ones of this version in docs/contracts/writer. ``--release``
also keeps the strict ones in docs/contracts/released, for comparison with later versions. Run it once per release,
when the version is tagged.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stream_guard.offline.review.api import openapi  # noqa: E402 - the path comes first
from stream_guard.records.avro_contract import (  # noqa: E402 - the path comes first
    CONTRACTS as CONTRACTS_IN_AVRO,
)
from stream_guard.records.avro_contract import contract_of  # noqa: E402 - the same
from stream_guard.records.contracts import reader_schema, schema_names  # noqa: E402 - the path comes first

SCHEMAS = ROOT / "stream_guard" / "records" / "schemas"
CONTRACTS = ROOT / "docs" / "contracts"


def main() -> None:
    """Write, and print each file's name."""
    for name in schema_names():
        file = CONTRACTS / name
        file.write_text(
            json.dumps(reader_schema(name), indent=2, ensure_ascii=False) + "\n", "utf-8"
        )
        print(file.relative_to(ROOT))
    api = CONTRACTS / "review-openapi.yaml"
    api.write_text(
        yaml.safe_dump(openapi(), sort_keys=False, allow_unicode=True, width=120), "utf-8"
    )
    print(api.relative_to(ROOT))
    write_avro(CONTRACTS)
    targets = [CONTRACTS / "writer"]
    if "--release" in sys.argv[1:]:
        targets.append(CONTRACTS / "released")
        write_avro(CONTRACTS / "released")
    for target in targets:
        target.mkdir(parents=True, exist_ok=True)
        for name in schema_names():
            shutil.copyfile(SCHEMAS / name, target / name)
            print((target / name).relative_to(ROOT))


def write_avro(folder: Path) -> None:
    """Write the Avro schemas."""
    for name in CONTRACTS_IN_AVRO:
        file = folder / name
        file.write_text(json.dumps(contract_of(name).schema, indent=2) + "\n", "utf-8")
        print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
