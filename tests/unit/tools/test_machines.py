"""What the checks on real machines conclude from what they see, and what the builder is told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from tools.machines import image
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
