"""The documentation builds strictly, its reference is the code's, and its commands are ones that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from stream_guard.cli import app
from stream_guard.settings import load_settings
from tools import reference

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NOT_RUN = ("docker", "helm", "kubectl")
"""Programs that need a Docker engine or a cluster: a page that names one says that we have not run it."""


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.prefix) / "bin" / "mkdocs", "build", "--strict", "-d", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "reference" / "settings" / "index.html").exists()


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_the_reference_is_that_of_the_code(name: str) -> None:
    written = (reference.REFERENCE / name).read_text("utf-8").partition("\n\n")[2]
    assert written == reference.PAGES[name](), "run: make reference"


def commands(page: Path) -> list[str]:
    """Return the command lines in a page's code: indented, fenced, and in backticks where a program is named."""
    text = page.read_text("utf-8")
    fenced = "\n".join(re.findall(r"```(?:sh|bash|console|shell)?\n(.*?)```", text, re.DOTALL))
    indented = "\n".join(line[4:] for line in text.splitlines() if re.match(r"    \S", line))
    spans = "\n".join(re.findall(r"`(stream-guard [^`]+)`", text))
    joined = re.sub(r"\\\n\s*", " ", f"{fenced}\n{indented}\n{spans}")
    found = []
    for line in joined.splitlines():
        bare = line.strip().removeprefix("$ ").partition(" #")[0].strip()
        if re.match(r"(?:[A-Z_]+=\S+ +)*(stream-guard|make|pip|export|docker|helm|kubectl) ", bare):
            found.append(bare)
    return found


def words(command: str) -> list[str]:
    """Return the names in a command line of ours: ``policies lint`` of ``stream-guard policies lint --strict``."""
    command = command.partition("stream-guard ")[2]
    found: Any = typer.main.get_command(app)
    names = []
    for word in shlex.split(command):
        if not hasattr(found, "commands") or word not in found.commands:
            break
        names.append(word)
        found = found.commands[word]
    return names


ALL = [
    (page, command)
    for page in PAGES
    if page.name != "commands.md"  # made from the commands themselves
    for command in commands(page)
]


def test_there_are_commands_to_look_at() -> None:
    assert len(ALL) > 25


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{p.stem}: {c[:50]}" for p, c in ALL])
def test_every_command_in_the_documentation_exists(
    page: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(re.split(r" [|>] ", command)[0])
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert all(word in targets for word in arguments if re.fullmatch(r"[a-z-]+", word)), command
    elif program == "export":
        monkeypatch.setenv(*arguments[0].split("=", 1))
        load_settings()
    elif program == "stream-guard":
        parse(arguments)
    elif program in NOT_RUN:
        assert re.search(
            r"not (been )?(run|built|tried)|nobody of us has", page.read_text("utf-8")
        ), f"{page.name} names {program} and does not say that it was not run"


def parse(arguments: list[str]) -> None:
    """Parse a command line of ours as the program would, and run nothing."""
    command: Any = typer.main.get_command(app)  # typer brings a click of its own
    rest = [a for a in arguments if a != "..."]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name, *rest = rest
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    if hasattr(command, "commands"):
        return
    for option in (word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"):
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        assert option in known | {"--help"}, f"{command.name} has no option {option}"


OURS = sorted({tuple(words(c)) for _, c in ALL if "stream-guard " in c} - {()})


@pytest.mark.parametrize("path", OURS, ids=" ".join)
def test_every_command_of_ours_in_the_documentation_is_executed_by_a_test(
    path: tuple[str, ...],
) -> None:
    spelt = re.compile(", ".join(f'"{word}"' for word in path))
    for file in (ROOT / "tests").rglob("*.py"):
        text = file.read_text("utf-8")
        # Or by the group's own app, or by a helper that puts the group's name first.
        group = f"cli_{path[0]}" in text or f'"{path[0]}"' in text
        alone = group and f'"{path[-1]}"' in text
        if file.name != "test_docs.py" and (alone or spelt.search(text)):
            return
    raise AssertionError(f"no test runs stream-guard {' '.join(path)}")


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="no command"):
        parse(["frobnicate"])
    with pytest.raises(AssertionError, match="no option"):
        parse(["tail", "--frobnicate"])
