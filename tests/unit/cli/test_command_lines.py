"""What counts as a command of the documentation, and what a comment beside it says."""

from __future__ import annotations

import pytest

from tests.commands.lines import (
    REFERENCE,
    Mark,
    blocks,
    commands,
    comment,
    mark_of,
    mentions,
    strays,
)


def found(text: str) -> list[tuple[int, str, Mark | None]]:
    return [(c.number, c.bare, c.mark) for c in commands("page.md", text)]


def test_each_line_of_an_indented_block_and_of_a_fence_is_a_command() -> None:
    text = "Do:\n\n    one a  # why\n\n    two\n\n```sh\nthree \\\n  b\n```\n"
    assert found(text) == [(3, "one a", None), (5, "two", None), (8, "three b", None)]


def test_where_there_are_prompts_the_other_lines_are_what_is_printed() -> None:
    text = "Do:\n\n    $ one\n    printed\n\n```console\n$ two \\\n  b\n```\n"
    assert found(text) == [(3, "one", None), (7, "two b", None)]


def test_a_block_in_a_list_loses_what_the_list_puts_before_it() -> None:
    assert found("1. Do:\n\n        $ one\n        printed\n") == [(3, "one", None)]


def test_code_of_other_kinds_has_no_commands() -> None:
    assert found("```yaml\none: two\n```\n\n```text\nan -> arrow\n```\n") == []


def test_a_docstring_of_python_is_read_as_a_page() -> None:
    text = '"""Says.\n\n    python x.py\n\nMore.\n"""\nvalue = 1\n'
    assert [(c.place, c.bare) for c in commands("x.py", text)] == [("x.py:3", "python x.py")]


@pytest.mark.parametrize(
    ("words", "mark"),
    [
        ("# needs a GPU", Mark(needs="a GPU")),
        ("# needs Docker, and patience", Mark(needs="Docker")),
        ("# needs a cluster", Mark(needs="a cluster")),
        ("# hours; in short by tests/a/test_b.py", Mark(test="tests/a/test_b.py")),
        ("# minutes; run by tests/a/test_b.py", Mark(test="tests/a/test_b.py")),
        ("# not run by our tests: it uploads", Mark(why="it uploads")),
        ("# needs nothing", None),
        ("# not run by our tests", None),
        ("# not run by our tests: ", None),
        ("# what a GPU is for", None),
    ],
)
def test_a_comment_marks_a_command_only_in_these_words(words: str, mark: Mark | None) -> None:
    assert mark_of(words) == mark


def test_a_comment_on_a_line_of_its_own_is_about_all_that_follow_it_in_its_block() -> None:
    text = "    one\n    # needs Docker\n    two\n    three  # needs a GPU\n\nText.\n\n    four\n"
    docker, gpu = Mark(needs="Docker"), Mark(needs="a GPU")
    assert [mark for _, _, mark in found(text)] == [None, docker, gpu, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one  # two", "  # two"),
        ("one '# two'", ""),
        ("one '# two'  # three", "  # three"),
        ("one#two", ""),
        ("one", ""),
    ],
)
def test_what_stands_in_quotes_is_no_comment(text: str, said: str) -> None:
    assert comment(text) == said


@pytest.mark.parametrize("line", ["$ one", "make test", "A=1 B='' stream-guard run", "./one.sh"])
def test_a_command_in_a_block_of_text_is_named(line: str) -> None:
    assert strays("page.md", f"Do:\n\n```text\nx\n{line}\n```\n") == [
        "page.md:5: a command in a block of text: make the block sh or console"
    ]
    assert strays("page.md", f"Do:\n\n```sh\n{line}\n```\n") == []


def test_a_fence_has_to_say_its_language() -> None:
    (complaint,) = strays("page.md", "```\nx\n```\n")
    assert complaint.startswith("page.md:2: a fence without a language")
    assert [block.language for block in blocks("page.md", "    x\n")] == ["sh"]


def test_an_example_that_the_reference_hides_is_named() -> None:
    assert strays(REFERENCE, "Example: one\n") == []
    (complaint,) = strays(REFERENCE, "Examples: one; two\n")
    assert complaint.startswith("docs/reference/commands.md:1: begin it with")


def test_code_within_prose_is_found_with_its_line() -> None:
    assert list(mentions("page.md", "One.\n\nSay `make test` twice.\n")) == [(3, "make test")]
