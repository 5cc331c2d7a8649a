"""Writes the JSON Schemas of custom resources that the chart's tests check against.

Run it by hand to support a newer release of an operator. It needs Go: Go's module proxy has the operators' sources,
with a checksum for each (``go.sum`` database). Descriptions are dropped and unknown fields rejected, as the API
server's strict field validation does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests" / "helm" / "schemas"

# Module and version, the folder of its definitions, and what of them the chart makes.
SOURCES = (
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
        ("monitoring.coreos.com_podmonitors", "monitoring.coreos.com_prometheusrules"),
    ),
    (
        "github.com/kedacore/keda/v2@v2.21.0",
        "config/crd/bases",
        ("keda.sh_scaledobjects", "keda.sh_triggerauthentications"),
    ),
    (
        "github.com/ray-project/kuberay/ray-operator@v1.5.1",
        "config/crd/bases",
        ("ray.io_rayclusters", "ray.io_rayjobs"),
    ),
)


def strict(node: Any) -> Any:
    """Return a schema without descriptions, in which an object has no other fields than those named."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {
        key: {name: strict(child) for name, child in value.items()}
        if key == "properties"
        else strict(value)
        for key, value in node.items()
        if key not in {"description", "format"} and not key.startswith("x-kubernetes-")
    }
    if node.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    open_ended = node.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in made and "additionalProperties" not in made and not open_ended:
        made["additionalProperties"] = False
    return made


def envelope(spec: dict[str, Any], kind: str, api_version: str) -> dict[str, Any]:
    """Return a resource's schema: what every object has, around its ``spec`` (and, unused by us, its status)."""
    made: dict[str, Any] = strict(spec)
    made["properties"] |= {
        "apiVersion": {"const": api_version},
        "kind": {"const": kind},
        "metadata": {"type": "object", "required": ["name"]},
    }
    made["required"] = sorted({*made.get("required", []), "apiVersion", "kind", "metadata"})
    return made


def main() -> None:
    """Fetch each module and write the schemas of its definitions."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for module, folder, names in SOURCES:
        fetched = subprocess.run(
            ["go", "mod", "download", "-json", module],  # noqa: S607 - the operator's own Go
            check=True,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        base = Path(json.loads(fetched.stdout)["Dir"]) / folder
        for name in names:
            crd = yaml.safe_load((base / f"{name}.yaml").read_text("utf-8"))
            group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
            for version in crd["spec"]["versions"]:
                if not version["storage"]:
                    continue  # an older form of the same
                schema = {
                    "$comment": f"made by tools/vendor_crds.py from {module} {folder}/{name}.yaml (Apache-2.0)",
                    **envelope(
                        version["schema"]["openAPIV3Schema"], kind, f"{group}/{version['name']}"
                    ),
                }
                target = TARGET / f"{kind.lower()}-{group}-{version['name']}.json"
                target.write_text(json.dumps(schema, separators=(",", ":")) + "\n", "utf-8")
                print(target.relative_to(ROOT), file=sys.stderr)


if __name__ == "__main__":
    main()
