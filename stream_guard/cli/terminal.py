"""Prints what commands say. No other module of the command line writes to stdout or stderr.

Text may come from a record, a file or a folder name. Each line and each cell is made visible before it is printed, so
no such text can steer the terminal or start a line of its own. Rich markup is never read.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import orjson
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stream_guard.core.english import count_of
from stream_guard.core.exit_codes import ExitCode
from stream_guard.core.secrets import mask_text
from stream_guard.core.visible_text import visible_line

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from rich.console import RenderableType

__all__ = [
    "at_terminal",
    "count_of",
    "live_view",
    "near_terminal",
    "run_quietly",
    "say",
    "say_error",
    "say_in_place",
    "say_unfinished",
    "shorten",
    "show_progress",
    "show_status",
    "stderr_without",
    "stdout_kept_clean",
    "styled",
    "table_of",
    "visible",
    "warn",
    "write_json",
    "write_json_line",
    "write_table",
    "write_what_can_be_shown",
]

Line: TypeAlias = str | Text
_UNBOUNDED: Final = 1_000_000
"""A table's width in a pipe or a file: no row is wrapped or cut there."""
_FRAMES_PER_S: Final = 4
_FORWARD_S: Final = 1.0
# JSON escapes C0 by itself. These are legal in a JSON string, and steer or confuse a terminal: DEL, C1, separators of
# lines, marks of direction, characters without width, tags.
_UNSAFE_IN_JSON: Final = re.compile(
    "[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


class _Console(Console):
    """A console that ends the program without a word once nobody reads its output, as ``head`` does."""

    def on_broken_pipe(self) -> None:
        _end_unread()


_out = _Console(highlight=False, markup=False, emoji=False)
# Rich bounds a table's width by that of its console, which is 80 columns where there is no terminal.
_wide = _Console(highlight=False, markup=False, emoji=False, width=_UNBOUNDED, height=25)
_err = _Console(stderr=True, highlight=False, markup=False, emoji=False)


def visible(line: Line) -> Text:
    """Return a line for printing: control characters and line ends in it are written out, styles stay."""
    if isinstance(line, str):
        return Text(visible_line(line))
    shown = Text(style=line.style)
    for part in line.divide(sorted({at for span in line.spans for at in (span.start, span.end)})):
        plain = Text(visible_line(part.plain))
        for span in part.spans:
            plain.stylize(span.style)
        shown.append_text(plain)
    return shown


def styled(*parts: tuple[str, str]) -> Text:
    """Return a line of parts, each with its rich style. Parts are made visible before rich can drop a character."""
    line = Text()
    for text, style in parts:
        line.append(visible_line(text), style=style)
    return line


def say(line: Line = "", style: str = "") -> None:
    """Print one line to stdout, complete and unwrapped."""
    _out.print(visible(line), style=style, soft_wrap=True)


def warn(line: Line, style: str = "") -> None:
    """Print one line to stderr, complete and unwrapped."""
    _err.print(visible(line), style=style, soft_wrap=True)


def say_error(message: str) -> None:
    """Print an error to stderr. Its further lines are indented: none can pass for a message of its own."""
    for number, line in enumerate(mask_text(message).split("\n")):
        warn(f"  {line}" if number else f"stream-guard: {line}")


def say_in_place(line: str) -> None:
    """Print a line that the next one overwrites, at a terminal; print nothing elsewhere."""
    if at_terminal():
        sys.stdout.write(f"\r{visible_line(line)}\r")
        sys.stdout.flush()


def say_unfinished(text: str) -> None:
    """Print text to stdout without ending the line."""
    _out.print(visible(text), end="", soft_wrap=True)


def shorten(text: str, characters: int) -> str:
    """Return a text on one line: cut to so many characters at a terminal, and whole in a pipe or a file."""
    line = " ".join(text.split())
    if len(line) <= characters or not at_terminal():
        return line
    return line[: characters - 1] + "…"


def table_of(
    columns: Iterable[str], rows: Iterable[Sequence[Line]], *, right: Iterable[str] = ()
) -> Table:
    """Return a table without borders.

    Args:
        columns: the heads.
        rows: the cells; each is made visible.
        right: the columns whose cells are aligned right.
    """
    table = Table(box=None, pad_edge=False)
    aligned = frozenset(right)
    for name in columns:
        justify: Any = "right" if name in aligned else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(visible(cell) for cell in row))
    return table


def write_table(
    columns: Iterable[str], rows: Iterable[Sequence[Line]], *, right: Iterable[str] = ()
) -> None:
    """Print a table: at a terminal it folds long cells, in a pipe or a file each row is one line."""
    table = table_of(columns, rows, right=right)
    (_out if at_terminal() else _wide).print(table)


def write_json(document: object) -> None:
    """Print a document as indented JSON."""
    _write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def write_json_line(document: object, *, to_stderr: bool = False) -> None:
    """Print a document as JSON on one line."""
    _write(orjson.dumps(document).decode(), to_stderr=to_stderr)


def _write(text: str, *, to_stderr: bool = False) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    try:
        stream.write(_UNSAFE_IN_JSON.sub(lambda found: _json_escape(found[0]), text) + "\n")
        stream.flush()
    except BrokenPipeError:
        _end_unread()


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _end_unread() -> NoReturn:
    """End with exit code 0: the reader of standard output has what it wanted, and has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(ExitCode.CLEAN)


def write_what_can_be_shown() -> None:
    r"""Let output hold what its encoding cannot: such characters are written out, as in ``\xe9``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def at_terminal() -> bool:
    """Return whether stdout is a terminal, whatever FORCE_COLOR says."""
    return sys.stdout.isatty()


def near_terminal() -> bool:
    """Return whether any standard stream is a terminal, as in ``--help | less``."""
    return any(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


@contextlib.contextmanager
def live_view(render: Callable[[], RenderableType]) -> Iterator[None]:
    """Show what ``render`` returns, several times a second, until the block ends."""
    with Live(console=_out, refresh_per_second=_FRAMES_PER_S, get_renderable=render):
        yield


@contextlib.contextmanager
def show_status(text: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr what the command does now; yields a function that changes the text."""
    if not sys.stderr.isatty():
        yield lambda _changed: None
        return
    with _err.status(visible(text)) as status:
        yield lambda changed: status.update(visible(changed))


@contextlib.contextmanager
def show_progress(what: str) -> Iterator[Progressed]:
    """Show a bar on stderr where that is a terminal; yields a function that moves it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_err, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(visible_line(what), total=None)

        def move(done: int, total: int, changed: str = what) -> None:
            bar.update(task, description=visible_line(changed), completed=done, total=total)

        yield move


Progressed: TypeAlias = "Callable[..., None]"
"""Called with how many of how many are done, and what is being done where that has changed."""


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send what libraries in C print to stdout to stderr instead, so that a result can be piped."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def stderr_without(dropped: re.Pattern[bytes]) -> Iterator[None]:
    """Drop lines that libraries in C++ write to stderr; what this program writes there itself is not looked at."""
    sys.stderr.flush()
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    ours, sys.stderr = (
        sys.stderr,
        os.fdopen(kept, "w", encoding="utf-8", errors="backslashreplace", closefd=False),
    )

    def forward() -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if not dropped.match(line):
                    os.write(kept, line)

    thread = threading.Thread(target=forward, name="stderr", daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = ours
        os.dup2(kept, 2)
        thread.join(_FORWARD_S)  # a process that is left may hold the pipe open
        if not thread.is_alive():
            os.close(kept)


def run_quietly(work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - the type of the result
    """Run a coroutine and return its result. Nothing that a library prints or logs gets into the result.

    vLLM prints to stdout in this process and in its children. aiokafka logs what our own error already says.
    """
    log = logging.getLogger("aiokafka")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with stdout_kept_clean(), asyncio.Runner() as runner:
            return runner.run(work)
    finally:
        log.setLevel(level)
