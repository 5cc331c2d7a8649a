"""Where the documentation's commands are run: a copy of the tree, a real broker, and a shell for each page.

Theory of operation. A page is a story: its commands run in one shell, in their order, so that what one exports or
writes is there for the next. Each has to exit with 0, or with the code that the page's story gives it. What runs until
it is told to stop goes into the background once it shows that it works, and at the end of the page has to stop in good
order, as by Ctrl-C.
What it must never do: change a command, write into the tree that is tested, or leave a process behind.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from tests.commands.lines import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.commands.lines import Command

PAGE_S_MAX: Final = 600
_STOPPED: Final = (0, 130, 143)
"""How what is told to stop may end: in good order, or with a shell's codes for SIGINT and SIGTERM."""


@dataclass(frozen=True)
class Story:
    """What a page's commands need beside what every page has.

    Attributes:
        prepare: called with the copy of the tree before the first command: what the page takes for granted.
        environment: the same, as variables.
        lasting: commands that run until they are told to stop, and what each prints once it works. By the command
            without its comment; for ``stream-guard run`` it need not be said, nor for what ends in ``&``.
        codes: exit codes that are meant, by the command without its comment.
        outside: the page begins beside the tree, and says ``cd stream-guard``.
    """

    prepare: Callable[[Path], None] = lambda _: None
    environment: Mapping[str, str] = field(default_factory=dict)
    lasting: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, int] = field(default_factory=dict)
    outside: bool = False


def copy_tree(folder: Path) -> Path:
    """Copy what git has, and what it would take, to ``folder/stream-guard``, with an environment that make takes."""
    tree = folder / "stream-guard"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - from PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    (tree / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith(".installed-"):
            (tree / ".venv" / entry.name).symlink_to(entry)
    # The stamp without which make would install everything again.
    shown = subprocess.run(
        ["make", "--print-data-base", "--dry-run", "help"],  # noqa: S607 - from PATH
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
    )
    (stamp,) = (
        line.split()[-1] for line in shown.stdout.splitlines() if line.startswith("STAMP :=")
    )
    (tree / stamp).touch()
    return tree


def run_page(
    commands: Sequence[Command], story: Story, tree: Path, environment: Mapping[str, str]
) -> str | None:
    """Run a page's commands that have no mark; return the complaint about the first that fails, or None.

    Args:
        commands: of one page, in their order.
        story: what they need.
        tree: a copy of the tree, of this page's own.
        environment: of the shell, beside the story's.
    """
    story.prepare(tree)
    runnable = [command for command in commands if command.mark is None]
    said, progress = tree.parent / "output.txt", tree.parent / "progress.txt"
    script = tree.parent / "commands.sh"
    script.write_text(_script(runnable, story), encoding="utf-8")
    theirs = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_GUARD_")}
    with said.open("wb") as output, progress.open("wb") as told:
        shell = subprocess.Popen(
            ["bash", str(script)],  # noqa: S607 - from PATH, as the reader's shell is
            cwd=tree.parent if story.outside else tree,
            env={
                **theirs,
                "PATH": f"{tree / '.venv' / 'bin'}{os.pathsep}{theirs['PATH']}",
                "PYTHONPATH": str(tree),
                **environment,
                **story.environment,
                "PROGRESS": f"/dev/fd/{told.fileno()}",
                "OUT": str(tree.parent),
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(told.fileno(),),
        )
        _wait(shell)
    return _complaint(runnable, progress.read_text().split("\n"), said)


def _script(commands: Sequence[Command], story: Story) -> str:
    lines = ["set -m", 'exec 9>"$PROGRESS"']
    for number, command in enumerate(commands):
        lines += [f"echo begin {number} >&9", f"echo '+ {command.place}'"]
        shows = {"stream-guard run": "assigned", **story.lasting}.get(command.bare)
        if shows is None:
            lines += ["{", command.text, "} 9>&-", "__code=$?"]
        else:
            printed, wanted_text = f'"$OUT/{number}.txt"', shlex.quote(shows)
            lines += ["{", command.text, f"}} >{printed} 2>&1 9>&- &"]
            lines += [
                f"until grep -qF -- {wanted_text} {printed}; do kill -0 $! || break; sleep 0.1; done"
            ]
            lines += [f"cat {printed}; grep -qF -- {wanted_text} {printed}", "__code=$?"]
        lines.append('[ "$!" = "$__last" ] || { __last=$!; __jobs="$__jobs $!"; }')
        wanted = story.codes.get(command.bare, 0)
        lines += [f'echo "end {number} $__code {wanted}" >&9', f"[ $__code -eq {wanted} ] || break"]
    # In a loop of one turn, so that a failure goes on to the end, where what runs in the background is stopped.
    head, body = lines[:2], lines[2:]
    return "\n".join([*head, "while :; do", *body, "break", "done", *_STOP, ""])


_STOP: Final = (
    "for __job in $__jobs; do",
    "kill -INT -- -$__job 2>/dev/null",
    "wait $__job",
    'echo "stopped $? $__job" >&9',
    "done",
)


def _wait(shell: subprocess.Popen[bytes]) -> None:
    """Return once the shell has ended, by itself or not; nothing that it began is left."""
    begun: dict[int, psutil.Process] = {}
    process = psutil.Process(shell.pid)
    try:
        shell.wait(PAGE_S_MAX)
    except subprocess.TimeoutExpired:
        begun = {child.pid: child for child in process.children(recursive=True)}
        shell.send_signal(signal.SIGKILL)
        shell.wait()
        for child in begun.values():
            child.kill()


def _complaint(commands: Sequence[Command], progress: Sequence[str], said: Path) -> str | None:
    begun = ended = -1
    why = ""
    for line in progress:
        word, *rest = line.split() or [""]
        if word == "begin":
            begun = int(rest[0])
        elif word == "end":
            ended = int(rest[0])
            if rest[1] != rest[2]:
                why = f"exit code {rest[1]}, and not {rest[2]}"
        elif word == "stopped" and int(rest[0]) not in _STOPPED and not why:
            why = f"what ran in the background ended with {rest[0]}"
    if begun != ended:
        why = f"ended the shell, or ran for more than {PAGE_S_MAX} s"
    elif begun != len(commands) - 1:
        why = why or "the shell ended"
    if not why:
        return None
    where = commands[max(begun, 0)]
    return f"{where.place}: {why}: {where.text}\n{said.read_text('utf-8', 'replace')[-4_000:]}"
