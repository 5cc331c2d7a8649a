"""Builds the CPU image a second time, without a cached layer, and compares it with the first; prints a table.

    make image
    make image-reproducible
    IMAGE=registry/guard:1.0 make image-reproducible

Both builds must be of the same commit with the same variables. Files are compared by their type, mode, owner, time and
content. A file that differs and that ``MAY_DIFFER`` does not name fails the check.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tools.machines import image
from tools.machines.containers import program, revision
from tools.machines.steps import Steps, execute, need

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader

MAY_DIFFER = (
    "opt/venv/lib/python3.*/site-packages/stream_guard-*.dist-info/uv_cache.json",
    "opt/venv/lib/python3.*/site-packages/stream_guard-*.dist-info/RECORD",
)
"""Patterns of paths that may differ, without the first slash. uv writes when it saw the source, and its digest."""


class Entry(NamedTuple):
    """One file of a layer, as it is compared."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    time_s: float
    link: str
    digest: str


def entries(layer: tarfile.TarFile) -> dict[str, Entry]:
    """Return the files of a layer, by path."""
    found = {}
    for member in layer:
        file = layer.extractfile(member) if member.isfile() else None
        digest = ""
        if file is not None:
            digest = hashlib.file_digest(cast("BufferedReader", file), "sha256").hexdigest()
        owner = (member.uid, member.gid)
        found[member.name] = Entry(
            member.type, member.mode, owner, member.mtime, member.linkname, digest
        )
    return found


def differences(first: Mapping[str, Entry], second: Mapping[str, Entry]) -> list[str]:
    """Return the paths that differ, each with what differs about it."""
    found = []
    for path in sorted(first.keys() | second.keys()):
        one, two = first.get(path), second.get(path)
        if one is None or two is None:
            found.append(f"{path} (only in the {'first' if two is None else 'second'})")
        elif one != two:
            what = [name for name in Entry._fields if getattr(one, name) != getattr(two, name)]
            found.append(f"{path} ({', '.join(what)})")
    return found


def unnamed(found: list[str], named: tuple[str, ...] = MAY_DIFFER) -> list[str]:
    """Return the differences that no pattern names."""
    paths = {line: line.rpartition(" (")[0] for line in found}
    return [line for line, path in paths.items() if not any(fnmatch(path, p) for p in named)]


def saved_layers(archive: Path, wanted: list[int]) -> Iterator[dict[str, Entry]]:
    """Yield the files of some layers of a saved image.

    Args:
        archive: made by ``podman save`` or ``docker save``.
        wanted: the layers' places, from 0.
    """
    with tarfile.open(archive) as outer:
        manifest = outer.extractfile("manifest.json")
        paths = json.load(manifest)[0]["Layers"] if manifest else []
        for place in wanted:
            with tarfile.open(fileobj=outer.extractfile(paths[place])) as layer:
                yield entries(layer)


def inspect(engine: str, name: str) -> Any:
    """Return what the engine knows of an image."""
    return json.loads(execute(engine, "image", "inspect", name).stdout)[0]


def compare(steps: Steps, engine: str, names: tuple[str, str]) -> None:
    """Compare the layers of two images, and the files of those that differ."""
    with steps.step("layers") as row:
        first, second = (inspect(engine, name)["RootFS"]["Layers"] for name in names)
        need(len(first) == len(second), f"{len(first)} layers, then {len(second)}")
        pairs = enumerate(zip(first, second, strict=True))
        other = [place for place, (one, two) in pairs if one != two]
        row.seen = f"{len(first) - len(other)} of {len(first)} have the same digest"
    if not other:
        return
    with steps.step("files of the other layers") as row, tempfile.TemporaryDirectory() as folder:
        archives = []
        for number, name in enumerate(names):
            archives.append(Path(folder) / f"{number}.tar")
            execute(engine, "save", "--output", archives[-1], name)
        layers = zip(*(saved_layers(archive, other) for archive in archives), strict=True)
        found = [line for one, two in layers for line in differences(one, two)]
        bad = unnamed(found)
        need(not bad, f"{len(bad)} files differ: {'; '.join(bad[:20])}")
        row.seen = f"differ, as documented: {', '.join(found) or 'no file'}"


def main() -> None:
    """Run all steps; print the table."""
    engine = program(runs=True)
    name = os.environ.get("IMAGE") or "stream-guard:cpu"
    again = "stream-guard-again:cpu"
    version = execute(engine, "--version").stdout.split("version")[-1].split(",")[0].strip()
    steps = Steps("`make image-reproducible`", {engine: version})
    with steps.step("the first image is of this commit") as row:
        said = inspect(engine, name)["Config"]["Labels"]["org.opencontainers.image.revision"]
        need(said == revision(), f"it is of {said}, and this is {revision()}: run make image")
        row.seen = said[:12] + said[40:]
    try:
        with steps.step("a second build, without a cached layer") as row:
            # The builder's output is its own; the table goes to stdout alone.
            code = image.build(engine, "cpu", again, "--no-cache")
            need(code == 0, f"{engine} ended with {code}")
            row.seen = "built"
        compare(steps, engine, (name, again))
        with steps.step("ids") as row:
            ids = [
                inspect(engine, each)["Id"].removeprefix("sha256:")[:12] for each in (name, again)
            ]
            row.seen = f"the same: {ids[0]}" if ids[0] == ids[1] else f"{ids[0]}, {ids[1]}"
    finally:
        execute(engine, "rmi", again, check=False)
    steps.show()


if __name__ == "__main__":
    main()
