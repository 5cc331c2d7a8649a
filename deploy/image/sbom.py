"""Prints what is installed in the image, as CycloneDX 1.6 JSON; run while the image is built.

Debian's packages come from dpkg, Python's from the metadata of the virtual environment. The order and the serial
number depend on the content alone, so two builds of the same image give the same file.

    python -I sbom.py > /usr/share/sbom/stream-guard.cdx.json
"""

import hashlib
import importlib.metadata
import json
import pathlib
import subprocess
import sys
import uuid
from typing import Any


def debian() -> list[dict[str, Any]]:
    """Return a component for each of Debian's packages; none on another system."""
    if not pathlib.Path("/usr/bin/dpkg-query").exists():
        return []
    form = "${Package}\t${Version}\t${Architecture}\n"
    command = ["/usr/bin/dpkg-query", "--show", f"--showformat={form}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    return [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version}?arch={architecture}",
        }
        for name, version, architecture in rows
    ]


def python() -> list[dict[str, Any]]:
    """Return a component for each of Python's packages, with its licence where the package names one."""
    found = []
    for distribution in importlib.metadata.distributions():
        name, version = distribution.name, distribution.version
        component: dict[str, Any] = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
        }
        licence = distribution.metadata.get("License-Expression")
        if licence:
            component["licenses"] = [{"expression": licence}]
        found.append(component)
    return found


def main() -> None:
    """Write the document to stdout."""
    components = sorted([*debian(), *python()], key=lambda found: str(found["purl"]))
    digest = hashlib.sha256(json.dumps(components).encode()).digest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.UUID(bytes=digest[:16], version=5).urn,
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": "stream-guard",
                "version": importlib.metadata.version("stream-guard"),
            }
        },
        "components": components,
    }
    json.dump(document, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
