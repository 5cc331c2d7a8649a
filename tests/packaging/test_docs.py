"""The documentation builds strictly, its reference is the code's, and its commands exist and are run, or say why not.

That they run is the business of ``tests/integration/test_commands_in_docs.py``.
"""

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

from stream_guard.cli.main import app
from stream_guard.settings import load_settings
from tests.commands.lines import ROOT, Command, commands, mentions, pages, strays
from tools import reference


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


@pytest.mark.parametrize("name", sorted(reference.PAGES))
@pytest.mark.parametrize(
    "internals",
    [
        r"\b(?:Args|Attributes|Returns|Raises|Yields|Note):",
        r"(?<!`)``(?!`)|:(?:class|func|meth|mod|data):",
        # Types of Python, and typer's own notation.
        r"<(?:class|str|path|int|float|bool)\b|\b(?:Annotated|NoneType|None)\b|\btyping\.|\bpydantic\.",
        r"x>=|\]\.\.\.\]",
        # Sentences that were cut. Usage lines end so as well: a list of names.
        r"(?<!\[ARGS\])(?<!\[VERDICT-ID\])(?:\.\.\.|…)$",
    ],
)
def test_the_reference_has_nothing_of_the_inside(name: str, internals: str) -> None:
    text = (reference.REFERENCE / name).read_text("utf-8")
    found = [line for line in text.splitlines() if re.search(internals, line)]
    assert not found


def words(command: str) -> tuple[str, ...]:
    """Return what a command line runs: ``stream-guard policies lint``, ``make soak``, ``python -m tests.soak``."""
    program, *rest = shlex.split(re.sub(r"^(?:[A-Z_]+=\S* +)+", "", command)) or [""]
    if program == "stream-guard":
        found: Any = typer.main.get_command(app)
        names = []
        for word in rest:
            if not hasattr(found, "commands") or word not in found.commands:
                break
            names.append(word)
            found = found.commands[word]
        return (program, *names)
    if program == "make":
        return (program, *(word for word in rest if "=" not in word))
    if program.startswith("python") and rest:
        return ("python", *rest[: 2 if rest[0] == "-m" else 1])
    return (program,)


def parts(command: str) -> list[str]:
    """Return the commands of a line between its pipes and ampersands, without what follows ``>``."""
    bare = re.sub(r" \d?>{1,2} ?\S+", "", command)
    return [part for part in re.split(r" (?:\|\|?|&&|;) | &$", bare) if part]


ALL = [command for page in pages() for command in commands(page)]
SHOWN = {words(part) for command in ALL for part in parts(command.bare)}
"""What each of these commands runs is run by tests/integration/test_commands_in_docs.py, or says why not."""


def test_there_are_commands_to_look_at() -> None:
    assert len(ALL) > 60
    assert sum(command.mark is None for command in ALL) > 40


def test_no_command_hides_in_code_of_another_kind() -> None:
    assert [complaint for page in pages() for complaint in strays(page)] == []


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.place)
def test_every_command_in_the_documentation_exists(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in parts(command.bare):
        program, *named = words(part)
        if program == "stream-guard":
            parse(shlex.split(part.partition("stream-guard ")[2]))
        elif program == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(named) <= set(targets), command.place
        elif program == "export":
            for name, _, value in (word.partition("=") for word in shlex.split(part)[1:]):
                monkeypatch.setenv(name, value)
            load_settings()  # which refuses what is no setting


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.place)
def test_what_keeps_a_command_from_being_run_is_so(command: Command) -> None:
    mark = command.mark
    if mark is not None and mark.test is not None:
        assert (ROOT / mark.test).is_file(), f"{command.place}: there is no {mark.test}"
    for part in parts(command.bare):
        program = words(part)[0]
        if needed := {"docker": "Docker", "kubectl": "a cluster", "helm": "a cluster"}.get(program):
            assert mark is not None, f"{command.place}: write '# needs {needed}' behind it"
            text = (ROOT / command.page).read_text("utf-8")
            honest = re.search(
                r"(not|nobody of us has)\s+(been\s+|yet\s+)?(run|built|tried|installed)"
                r"|what\s+of\s+it\s+was\s+run|## Not run by us",
                text,
            )
            assert honest, f"{command.page} names {program} and does not say what was run"


@pytest.mark.parametrize("page", [page for page in pages() if page != "docs/reference/commands.md"])
def test_every_command_named_in_prose_is_shown_to_be_run_somewhere(page: str) -> None:
    ours = re.compile(
        r"(?:stream-guard|make|python3? -m (?:stream_guard|tests|tools|benchmarks)\S*)(?= |$)"
    )
    for number, code in mentions(page, (ROOT / page).read_text("utf-8")):
        if not ours.match(code) or " " not in code:
            continue
        named = words(code)
        if named == ("stream-guard",):
            assert code.split()[1].startswith("-"), f"{page}:{number}: there is no `{code}`"
        found = any(shown[: len(named)] == named for shown in SHOWN)
        assert found, f"{page}:{number}: no shell block of any page runs `{' '.join(named)}`"


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


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="no command"):
        parse(["frobnicate"])
    with pytest.raises(AssertionError, match="no option"):
        parse(["tail", "--frobnicate"])
