"""Picks sentences at random from pages, docstrings, comments, messages and help texts, to be read aloud.

``python -m tools.sentences 10 --seed 1`` prints ten, each with its place. ``--long`` lists sentences of more than 25
words instead, and ``--banned`` the words that this project does not use, counted by room.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from markdown_it import MarkdownIt

from tools.syntax_tree import syntax_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
WORDS_MAX = 25
BANNED = re.compile(
    r"\b("
    r"mend(?:s|ed|ing)?|heirs?|bequeath\w*|guilty|(?:bear|bears|borne|bearing) out|anew|in truth"
    r"|save (?:where|when|for|that)|of late|hangs? on|told of|stands elsewhere|the one that"
    r"|what was|whoever|(?:passes|passed|passing|to pass|and pass) over|for ever"
    r")\b",
    re.IGNORECASE,
)
"""Words and phrases for which there is a plainer one."""
_PLACES = (
    ("stream_guard", "*.py"),
    ("tools", "*.py"),
    ("benchmarks", "*.py"),
    ("examples", "*.py"),
    ("docs", "*.md"),
    ("helm", "*.md"),
    ("stream_guard", "*.md"),
)
_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=`|[\"'(]*[A-Z])")
_DIRECTIVE = re.compile(r"^(?:noqa|type: ignore|pragma|fmt)\b[^-]*(?:- |$)")
_WORD = re.compile(r"[A-Za-z][\w'-]*")


class Sentence(NamedTuple):
    """One sentence: where its paragraph begins, what kind of text it stands in, and its text on one line."""

    file: str
    line: int
    kind: str
    text: str

    @property
    def place(self) -> str:
        """``file:line``, as editors take it."""
        return f"{self.file}:{self.line}"

    @property
    def room(self) -> str:
        """The first two folders, or the first where there is one only."""
        parts = self.file.split("/")
        return "/".join(parts[: 2 if parts[0] in ("stream_guard", "docs") else 1][:2])


def files() -> list[Path]:
    """Return the files whose prose counts, README and changelog among them."""
    found = {ROOT / "README.md", ROOT / "CHANGELOG.md"}
    for folder, pattern in _PLACES:
        found.update((ROOT / folder).rglob(pattern))
    # The words that are searched for stand in this file.
    return sorted(file for file in found if file != Path(__file__).resolve())


def sentences(file: Path) -> Iterator[Sentence]:
    """Yield the sentences of a file of this project."""
    yield from read_sentences(str(file.relative_to(ROOT)), file.read_text("utf-8"))


def read_sentences(name: str, text: str) -> Iterator[Sentence]:
    """Yield the sentences of a Python file or a page, by its name."""
    for line, kind, paragraph in _python(text) if name.endswith(".py") else _markdown(text):
        words = " ".join(paragraph.split())
        if words:
            yield from (Sentence(name, line, kind, sentence) for sentence in _END.split(words))


def _markdown(text: str) -> Iterator[tuple[int, str, str]]:
    line = 1
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else line
        if token.type == "inline":
            words = "".join(
                {"softbreak": " ", "hardbreak": " ", "code_inline": f"`{child.content}`"}.get(
                    child.type, child.content
                )
                for child in token.children or ()
            )
            yield line, "page", words


def _python(text: str) -> Iterator[tuple[int, str, str]]:
    tree = syntax_tree(text)
    docstrings = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inside = {
        part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            if node in docstrings:
                yield from ((node.lineno, "docstring", part) for part in _paragraphs(node.value))
            elif len(_WORD.findall(node.value)) > 3 and " " in node.value:  # noqa: PLR2004 - shorter ones are names
                yield node.lineno, "text", node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield node.lineno, "text", "".join(map(str, parts))
    yield from _comments(text)


def _paragraphs(docstring: str) -> Iterator[str]:
    """Yield a docstring's paragraphs, and each of its arguments as one; examples are code."""
    for block in re.split(r"\n\s*\n|\n(?=\s+[\w, *]+: )", docstring):
        if not block.lstrip().startswith((">>>", "::", "|")):
            yield re.sub(
                r"^\s*(?:Args|Returns|Raises|Attributes|Yields):\s*$", "", block, flags=re.MULTILINE
            )


def _comments(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield comments; lines of comments that follow each other are one."""
    begun, last, words = 0, 0, ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, said = token.start[0], _DIRECTIVE.sub("", token.string.lstrip("# "))
        if line == last + 1 and token.line.lstrip().startswith("#"):
            words, last = f"{words} {said}", line
            continue
        if words:
            yield begun, "comment", words
        begun, last, words = line, line, said
    if words:
        yield begun, "comment", words


def every_sentence() -> list[Sentence]:
    """Return every sentence of four words and more."""
    return [s for file in files() for s in sentences(file) if len(_WORD.findall(s.text)) > 3]  # noqa: PLR2004 - as above


def banned() -> list[tuple[Sentence, str]]:
    """Return each sentence with a word that this project does not use, and the word."""
    return [
        (s, found[0])
        for file in files()
        for s in sentences(file)
        if (found := BANNED.search(s.text))
    ]


def too_long() -> list[tuple[Sentence, int]]:
    """Return each sentence of over 25 words, and how many it has."""
    counted = [(s, len(s.text.split())) for s in every_sentence()]
    return sorted(((s, n) for s, n in counted if n > WORDS_MAX), key=lambda one: -one[1])


def main() -> int:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("count", type=int, nargs="?", default=10, help="sentences to pick")
    parser.add_argument(
        "--seed", type=int, default=1, help="the same seed picks the same sentences"
    )
    parser.add_argument("--long", action="store_true", help="list sentences of over 25 words")
    parser.add_argument("--banned", action="store_true", help="list words that are not used here")
    arguments = parser.parse_args()
    if arguments.banned or arguments.long:
        rows = [(s, word) for s, word in banned()] if arguments.banned else too_long()
        for sentence, why in rows:
            print(f"{sentence.place}: {why}: {sentence.text}")
        for room, count in sorted(Counter(sentence.room for sentence, _ in rows).items()):
            print(f"{room}: {count}", file=sys.stderr)
        return 0
    for sentence in random.Random(arguments.seed).sample(every_sentence(), arguments.count):  # noqa: S311 - repeatable
        print(f"{sentence.place} ({sentence.kind})\n  {sentence.text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
