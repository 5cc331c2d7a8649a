"""Reads the commands out of the documentation, and what is written beside them about who can run them.

Theory of operation. A command stands in a *shell block*: an indented block, or a fence of ``sh`` or ``console``; other
code is in a fence of its own language. In a block with a line that begins with ``$`` those lines are the commands and
the others what they print; elsewhere every line is a command. A command is run by the tests, as it is written, unless
a comment behind it, or on a line of its own above it in its block, says one of these, for people and for us alike::

    docker compose up       # needs Docker              (or: a GPU, a cluster)
    make demo               # minutes; run by tests/integration/test_demo.py           (or: in short by)
    make requirements       # not run by our tests: it asks a package index

What it must never do: take a line that it does not understand for prose.
"""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from markdown_it import MarkdownIt

from tools.syntax_tree import syntax_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

ROOT: Final = Path(__file__).resolve().parents[2]
REFERENCE: Final = "docs/reference/commands.md"
PROGRAMS: Final = (
    *("stream-guard", "make", "python", "python3", "pip", "uv", "git", "cd", "export", "source"),
    *("docker", "helm", "kubectl", "curl", "kcat", "echo", "cat", "bash", "sh"),
)
"""What a command begins with: a line in a block of another kind that begins so was put there by mistake."""
SHELLS: Final = ("sh", "bash", "shell", "console")

_MARKS: Final = re.compile(
    r"needs (?P<needs>a GPU|Docker|a cluster)\b"
    r"|.*\b(?:run|in short) by (?P<test>tests/[\w/]+\.py)"
    r"|not run by our tests: (?P<why>\S.*)"
)
_COMMAND: Final = re.compile(rf"\$ |(?:[A-Z_]+=\S+ +)*(?:\./\S|(?:{'|'.join(PROGRAMS)})(?: |$))")


@dataclass(frozen=True)
class Mark:
    """Why a command is not run; exactly one of the three is there.

    Attributes:
        needs: ``a GPU``, ``Docker`` or ``a cluster``.
        test: a file of tests, from the root of the tree, that runs it in its own way, or a shorter form of it.
        why: any other reason.
    """

    needs: str | None = None
    test: str | None = None
    why: str | None = None


@dataclass(frozen=True)
class Command:
    """A command as it is written, with its comment.

    Attributes:
        page: from the root of the tree.
        number: of its first line, from 1.
        text: one line, or several where each but the last ends in a backslash.
        mark: why it is not run; None where it is.
    """

    page: str
    number: int
    text: str
    mark: Mark | None

    @property
    def place(self) -> str:
        """Where it stands, as editors take it."""
        return f"{self.page}:{self.number}"

    @property
    def bare(self) -> str:
        """The command without its comment, on one line."""
        command = self.text[: len(self.text) - len(comment(self.text))]
        return re.sub(r"\s*\\\n\s*", " ", command).strip()


@dataclass(frozen=True)
class Block:
    """One piece of code: its language (``sh`` for an indented one), and its lines with their numbers."""

    page: str
    number: int
    language: str
    lines: tuple[tuple[int, str], ...]


def pages() -> list[str]:
    """Return the pages whose commands count, from the root of the tree."""
    found = [ROOT / "README.md", ROOT / "policies" / "README.md"]
    for folder, pattern in (
        ("docs", "*.md"),
        ("helm", "*.md"),
        ("examples", "*.py"),
        ("examples", "*.md"),
    ):
        found.extend((ROOT / folder).rglob(pattern))
    return sorted(str(page.relative_to(ROOT)) for page in found)


def comment(text: str) -> str:
    """Return the comment at a command's end, with what separates it; empty where there is none."""
    for found in re.finditer(r"(?:^|\s+)# ", text):
        try:
            shlex.split(text[: found.start()].replace("\\\n", " "))
        except ValueError:  # a quotation is still open: this # stands in it
            continue
        return text[found.start() :]
    return ""


def mark_of(words: str) -> Mark | None:
    """Return what a comment says about who can run a command; None where it is about something else."""
    found = _MARKS.match(words.strip().removeprefix("#").strip())
    return None if found is None else Mark(**found.groupdict())


def blocks(page: str, text: str) -> list[Block]:
    """Return the code of one page; a Python file's is that of its docstring."""
    if page.endswith(".py"):
        text = ast.get_docstring(syntax_tree(text), clean=False) or ""
    found = []
    for token in _parsed(text):
        if token.type in ("fence", "code_block") and token.map is not None:
            first = token.map[0] + (2 if token.type == "fence" else 1)
            language = (token.info.split() or [""])[0] if token.type == "fence" else "sh"
            code = textwrap.dedent(token.content).rstrip(
                "\n"
            )  # a list's item leaves a space before it
            lines = tuple(enumerate(code.split("\n"), first))
            found.append(Block(page, first, language, lines))
    return found


def mentions(page: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of the paragraph's line, and the text, of each piece of code within prose."""
    if page.endswith(".py"):
        return
    for token in _parsed(text):
        for child in token.children or ():
            if child.type == "code_inline" and token.map is not None:
                yield token.map[0] + 1, child.content


def commands(page: str, text: str | None = None) -> list[Command]:
    """Return the commands of one page, in their order."""
    text = (ROOT / page).read_text("utf-8") if text is None else text
    if page == REFERENCE:  # made from the code: usage, and an example of each command
        lines = enumerate(text.splitlines(), 1)
        examples = [
            (n, line.removeprefix("Example: ")) for n, line in lines if line.startswith("Example: ")
        ]
        return [Command(page, n, line, mark_of(comment(line))) for n, line in examples]
    return [
        found
        for block in blocks(page, text)
        if block.language in SHELLS
        for found in _commands(block)
    ]


def strays(page: str, text: str | None = None) -> list[str]:
    """Return complaints: code without a language, and what looks like a command in a block that is no shell's."""
    text = (ROOT / page).read_text("utf-8") if text is None else text
    said = [
        f"{page}:{number}: begin it with 'Example: ', and show one command"
        for number, line in enumerate(text.splitlines(), 1)
        if page == REFERENCE and line.startswith("Examples:")
    ]
    for block in blocks(page, text):
        if not block.language:
            said.append(
                f"{page}:{block.number}: a fence without a language: sh, console, text or another"
            )
        elif block.language == "text":
            said.extend(
                f"{page}:{number}: a command in a block of text: make the block sh or console"
                for number, line in block.lines
                if _COMMAND.match(line.strip())
            )
    return said


def _parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").parse(text)


def _commands(block: Block) -> Iterator[Command]:
    """Yield a block's commands; a comment on a line of its own is about all that follow it in the block."""
    prompted = block.language == "console" or any(line.startswith("$ ") for _, line in block.lines)
    whole: Mark | None = None
    begun: list[tuple[int, str]] = []
    for number, line in block.lines:
        if begun:
            begun.append((number, line))
        elif prompted:
            if line.startswith("$ "):
                begun.append((number, line.removeprefix("$ ")))
        elif line.lstrip().startswith("#"):
            whole = mark_of(line) or whole
        elif line.strip():
            begun.append((number, line))
        if begun and not begun[-1][1].endswith("\\"):
            text = "\n".join(line for _, line in begun)
            yield Command(block.page, begun[0][0], text, mark_of(comment(text)) or whole)
            begun = []
