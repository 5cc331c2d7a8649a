"""Builds one of the images.

    python -m tools.machines.image cpu

It reads ``CONTAINER_ENGINE``, ``IMAGE``, ``PYTHON_IMAGE``, ``INDEX_URL``, ``TORCH_INDEX_URL``, ``CA_CERT``,
``BUILD_FLAGS`` and ``SOURCE_DATE_EPOCH`` from the environment; ``docs/guides/containers.md`` says what each means.
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.machines.containers import ROOT, git, program, revision, version


def arguments(engine: str, target: str, name: str, epoch_s: int, secrets: Path) -> list[str]:
    """Return the builder's arguments.

    Args:
        engine: podman, docker or buildah.
        target: ``cpu`` or ``gpu``.
        name: of the image.
        epoch_s: time of every file, in seconds since 1970.
        secrets: a folder for what must not stay in a layer.
    """
    created = dt.datetime.fromtimestamp(epoch_s, dt.UTC).isoformat()
    build = {
        "VERSION": version(),
        "REVISION": revision(),
        "CREATED": created,
        "SOURCE_DATE_EPOCH": str(epoch_s),
    }
    for variable in ("PYTHON_IMAGE", "TORCH_INDEX_URL"):
        if os.environ.get(variable):
            build[variable] = os.environ[variable]
    if engine == "docker":
        made = ["buildx", "build", "--output", f"type=docker,name={name},rewrite-timestamp=true"]
    else:
        # Docker's format: OCI's has no HEALTHCHECK.
        made = ["build", "--format", "docker", "--timestamp", str(epoch_s), "--tag", name]
    made += ["--target", target]
    for variable, value in build.items():
        made += ["--build-arg", f"{variable}={value}"]
    if os.environ.get("CA_CERT"):
        made += ["--secret", f"id=ca,src={Path(os.environ['CA_CERT']).resolve()}"]
    if os.environ.get("INDEX_URL"):
        index = secrets / "index"
        index.write_text(os.environ["INDEX_URL"])
        made += ["--secret", f"id=index,src={index}"]
    return [*made, *os.environ.get("BUILD_FLAGS", "").split(), str(ROOT)]


def epoch() -> int:
    """Return the time of every file in the image, in seconds since 1970: as set, or the commit's."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or 0)


def build(engine: str, target: str, name: str, *flags: str) -> int:
    """Build an image; return the builder's exit code.

    Args:
        engine: podman, docker or buildah.
        target: ``cpu`` or ``gpu``.
        name: of the image.
        flags: further flags of the builder.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = arguments(engine, target, name, epoch(), Path(folder))
        # The last argument is the folder that is built.
        return subprocess.run([engine, *made[:-1], *flags, made[-1]], check=False).returncode


def main(target: str) -> None:
    """Build, and say how long it took."""
    engine = program(runs=False)
    name = os.environ.get("IMAGE") or f"stream-guard:{target}"
    begun_s = time.monotonic()
    if build(engine, target, name):
        sys.exit(f"{engine} could not build {name}; see above")
    print(f"{name} built with {engine} in {(time.monotonic() - begun_s) / 60:.1f} minutes")


if __name__ == "__main__":
    main(sys.argv[1])
