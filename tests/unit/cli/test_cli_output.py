"""What a command prints is its result: complete in a pipe, and without what the libraries under it print."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final

import pytest
import typer
from typer import rich_utils
from typer.testing import CliRunner

from stream_guard.cli.help_texts import show_help_whole
from stream_guard.cli.main import app
from stream_guard.cli.views.verdict_line import verdict_line
from tests.verdicts import make_verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[3]

COMMAND: Final = """
    import asyncio, os, subprocess, sys
    from stream_guard.cli.terminal import run_quietly

    async def work():
        print("from Python")
        os.write(1, b"from C\\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        return "result"

    print(run_quietly(work()))
"""


def test_what_an_engine_prints_is_not_part_of_a_commands_result() -> None:
    """As vLLM does: from Python, from C, and from the process that it starts."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(COMMAND)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "result\n"
    assert {"from Python", "from C", "from a child"} <= set(done.stderr.splitlines())


@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_a_table_in_a_pipe_has_a_line_for_each_row_whatever_the_columns(
    forced: dict[str, str],
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "stream_guard",
            "policies",
            "list",
            "--path",
            str(ROOT / "policies"),
        ],
        env={**os.environ, "COLUMNS": "40", **forced},
        capture_output=True,
        text=True,
        check=True,
    )
    _, first, second = done.stdout.splitlines()
    assert first.startswith("age-restricted-goods-and-services ")
    assert "posts.teen, forum.posts, chat.messages, (default)" in first
    assert second.startswith("dangerous-content ")
    assert done.stderr == ""


def helps(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401
    """Yield the words of each command, and the command."""
    yield path, command
    for name, found in getattr(command, "commands", {}).items():
        yield from helps(found, (*path, name))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help texts at a terminal of 80 columns."""
    monkeypatch.setattr(rich_utils, "highlighter", rich_utils.highlighter)
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", rich_utils.MAX_WIDTH)
    show_help_whole()
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", 80)


@pytest.mark.usefixtures("narrow")
def test_help_cuts_no_name_and_shows_no_type_of_python() -> None:
    for words, _ in helps(typer.main.get_command(app)):
        shown = CliRunner().invoke(app, [*words, "--help"]).stdout
        assert "\u2026" not in shown, words
        for kind in ("<str>", "<int", "<bool>", "<float", "<path>", "list["):
            assert kind not in shown, words


@pytest.mark.usefixtures("narrow")
def test_help_without_a_terminal_names_each_option_on_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    show_help_whole()
    for words, command in helps(typer.main.get_command(app)):
        shown = CliRunner().invoke(app, [*words, "--help"]).stdout
        for parameter in command.params:
            for name in (*parameter.opts, *parameter.secondary_opts):
                assert name in shown or not name.startswith("-"), (words, name)


def test_a_verdicts_line_is_cut_at_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = make_verdict()
    verdict["content"]["id"] = (
        "at://did:plc:z72i7hdynmk6r22z27h6tvur/app.bsky.feed.post/3l6oveex3ii2l"
    )
    assert verdict_line(verdict).plain.endswith(f"ms  {verdict['content']['id']}")
    monkeypatch.setattr("stream_guard.cli.terminal.at_terminal", lambda: True)
    assert verdict_line(verdict).plain.endswith("\u2026")


SHOW: Final = ("policies", "show", "dangerous-content", "--path", str(ROOT / "policies"))


@pytest.mark.parametrize("words", [SHOW, ("config", "--schema"), (*SHOW, "--json")])
def test_a_reader_that_goes_is_no_failure(words: tuple[str, ...]) -> None:
    """As ``| head -1`` does: the pipe has no reader any more when the command writes."""
    with subprocess.Popen(
        [sys.executable, "-m", "stream_guard", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate()
    assert (process.returncode, said) == (0, b"")


@pytest.mark.parametrize("words", [SHOW, ("config", "--schema")])
def test_a_full_disk_is_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stream_guard", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == (
        "stream-guard: the output cannot be written: No space left on device; free space, or write elsewhere\n"
    )


def test_what_an_encoding_cannot_hold_is_written_out() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stream_guard", "classify", "h\u00e9 \u65e5", "--no-studio"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "STREAM_GUARD_ENGINE__KIND": "scripted"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert r": h\xe9 \u65e5" in done.stdout
    assert done.stderr == ""
