"""What the checks on real machines conclude from what they see, and what the builder is told."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from tools.machines import compose_check, image, image_reproducible
from tools.machines.cluster import KILL_CONTAINER, changed_files
from tools.machines.records import Out, account
from tools.machines.steps import Steps, need, not_json, until

if TYPE_CHECKING:
    from pathlib import Path


def test_an_account_tells_missing_repeated_and_the_longest_gap_of_a_partition() -> None:
    posts = [(0, 0), (0, 1), (1, 0), (1, 1)]
    found = [
        Out((0, 0), "spam", 101.0),
        Out((0, 0), "scams", 101.5),
        Out((0, 1), "spam", 109.0),
        Out((0, 1), "spam", 110.0),
        Out((1, 0), "", 102.0),
        Out((7, 9), "spam", 500.0),
    ]
    made = account(posts, found, begun_s=100.0)
    assert (made.posts, made.missing, made.repeated, made.gap_s) == (4, 1, 1, 7.5)
    assert "4 posts, 3 judged, 1 repeated, gap 7.5 s" in str(made)
    nothing = account([], [], begun_s=0)
    assert (nothing.posts, nothing.missing) == (0, 0)
    assert math.isnan(nothing.gap_s)


def test_a_step_that_fails_ends_the_program_with_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = Steps("`make x`", {"podman": "4.3"})
    with steps.step("first") as row:
        row.seen = "fine"
    with pytest.raises(SystemExit) as ended, steps.step("second"):
        need(condition=False, message="it is\nbroken")
    assert ended.value.code == 1
    table = capsys.readouterr().out
    assert "podman 4.3" in table
    assert "| first | fine | 0 |" in table
    assert "| second | FAILED: it is broken | 0 |" in table


def test_what_does_not_happen_in_time_is_named() -> None:
    with pytest.raises(TimeoutError, match="readiness did not happen within 0 s"):
        until("readiness", lambda: False, 0)
    assert until("readiness", lambda: "yes", 1) == "yes"


def test_lines_that_are_no_object_are_found() -> None:
    assert not_json('{"a": 1}\n\nlibnuma: x\n[1]\n') == ["libnuma: x", "[1]"]


@pytest.mark.parametrize("engine", ["podman", "buildah", "docker"])
def test_a_mirrors_address_is_a_secret_of_the_build(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INDEX_URL", "https://user:hunter2@mirror.example.com/simple")
    monkeypatch.setenv("PYTHON_IMAGE", "mirror.example.com/python:3.12")
    monkeypatch.setenv("CA_CERT", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("BUILD_FLAGS", "--network=host --no-cache")
    monkeypatch.delenv("TORCH_INDEX_URL", raising=False)
    made = image.arguments(engine, "cpu", "guard:1", 1_700_000_000, tmp_path)
    assert "hunter2" not in " ".join(made)
    assert f"id=index,src={tmp_path / 'index'}" in made
    assert "hunter2" in (tmp_path / "index").read_text()
    assert f"id=ca,src={tmp_path / 'ca.pem'}" in made
    assert "PYTHON_IMAGE=mirror.example.com/python:3.12" in made
    assert {"--network=host", "--no-cache"} <= set(made)
    assert "CREATED=2023-11-14T22:13:20+00:00" in made
    timed = (
        "type=docker,name=guard:1,rewrite-timestamp=true" if engine == "docker" else "1700000000"
    )
    assert timed in made


def packed(files: dict[str, bytes], time_s: int = 0) -> bytes:
    """Return a tar archive of some files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), time_s
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def saved(path: Path, layers: list[bytes]) -> Path:
    """Write an image as `podman save` and `docker save` do."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Layers": names}]).encode()
    content = {**dict(zip(names, layers, strict=True)), "manifest.json": manifest}
    path.write_bytes(packed(content))
    return path


def test_two_builds_are_compared_by_content_time_and_presence_of_each_file(tmp_path: Path) -> None:
    same = packed({"etc/passwd": b"root"})
    one = saved(tmp_path / "1.tar", [same, packed({"a": b"1", "b": b"1", "c": b"1"})])
    two = saved(tmp_path / "2.tar", [same, packed({"a": b"2", "b": b"1"}, time_s=9)])
    (first,) = image_reproducible.saved_layers(one, [1])
    (second,) = image_reproducible.saved_layers(two, [1])
    found = image_reproducible.differences(first, second)
    assert found == ["a (time_s, digest)", "b (time_s)", "c (only in the first)"]
    assert image_reproducible.differences(first, first) == []
    assert image_reproducible.unnamed(found, ("a", "[c-d]")) == ["b (time_s)"]
    ours = "opt/venv/lib/python3.12/site-packages/stream_guard-0.1.0.dist-info/"
    seen = [f"{ours}uv_cache.json (digest)", f"{ours}METADATA (digest)"]
    assert image_reproducible.unnamed(seen) == seen[1:]


def test_the_second_build_has_the_flags_of_the_first_and_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    engine = tmp_path / "podman"
    engine.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\nexit 3\n')
    engine.chmod(0o755)
    monkeypatch.setenv("BUILD_FLAGS", "--network=host")
    assert image.build(str(engine), "cpu", "again:1", "--no-cache") == 3
    told = seen.read_text().split()
    assert {"--network=host", "--no-cache", "again:1"} <= set(told)
    assert told[-1] == str(image.ROOT)


def test_only_the_first_process_of_the_container_is_killed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As a node sees them: a process outside, the container's first, its child, and another container's first.
    processes = {
        "7": ("0::/system.slice", "NSpid:\t7\n"),
        "8": ("0::/kubepods/pod1/cri-containerd-abc.scope", "NSpid:\t8\t1\n"),
        "9": ("0::/kubepods/pod1/cri-containerd-abc.scope", "NSpid:\t9\t12\n"),
        "10": ("0::/kubepods/pod2/def", "NSpid:\t10\t1\n"),
    }

    def look(path: str) -> io.StringIO:
        _, _, pid, name = path.split("/")
        if pid not in processes:
            raise FileNotFoundError(path)
        return io.StringIO(processes[pid][name == "status"])

    killed = []
    monkeypatch.setattr(os, "listdir", lambda _: [*processes, "11", "self"])
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    monkeypatch.setattr(sys, "argv", ["-c", "abc"])
    exec(KILL_CONTAINER, {"open": look})  # noqa: S102 - the program that the pod runs
    assert killed == [(8, signal.SIGKILL)]
    assert float(capsys.readouterr().out) > 0


def test_the_files_that_differ_between_two_charts_are_named(tmp_path: Path) -> None:
    for folder, files in (("a", {"x": "1", "y": "1"}), ("b", {"x": "1", "y": "2", "z": "1"})):
        (tmp_path / folder / "templates").mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / folder / "templates" / name).write_text(text)
    assert changed_files(tmp_path / "a", tmp_path / "b") == ["templates/y", "templates/z"]
    assert changed_files(tmp_path / "a", tmp_path / "a") == []


def test_a_docker_without_its_compose_plugin_is_not_taken_for_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMPOSE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 125\n", "utf-8")
    docker.chmod(0o755)
    with pytest.raises(SystemExit, match="podman-compose is here; install one"):
        compose_check.compose_program()
    (tmp_path / "podman-compose").symlink_to(docker)
    assert compose_check.compose_program() == ["podman-compose"]
    docker.write_text("#!/bin/sh\nexit 0\n", "utf-8")
    assert compose_check.compose_program() == ["docker", "compose"]
