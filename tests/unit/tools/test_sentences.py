"""Sentences are found where people read them, and words that this project does not use are noticed."""

from __future__ import annotations

import pytest

from tools.sentences import BANNED, every_sentence, read_sentences

CODE = '''"""What it does. And `code` too.

Args:
    name: whoever calls.
"""
# A comment that
# goes on.
raise ValueError(f"kafka.topics: {name} does not exist; create it")
'''
PAGE = "# Title\n\nOne sentence. `two` is another.\n\n| a | b |\n|---|---|\n| c | d e |\n\n```sh\nnot this\n```\n"


def test_a_python_file_has_docstrings_comments_and_messages() -> None:
    found = [(s.place, s.kind, s.text) for s in read_sentences("a.py", CODE)]
    assert found == [
        ("a.py:1", "docstring", "What it does."),
        ("a.py:1", "docstring", "And `code` too."),
        ("a.py:1", "docstring", "name: whoever calls."),
        ("a.py:8", "text", "kafka.topics: {} does not exist; create it"),
        ("a.py:6", "comment", "A comment that goes on."),
    ]


def test_a_page_has_prose_and_tables_and_no_code() -> None:
    found = [(s.line, s.text) for s in read_sentences("a.md", PAGE)]
    assert found == [
        (1, "Title"),
        (3, "One sentence."),
        (3, "`two` is another."),
        (5, "a"),
        (5, "b"),
        (7, "c"),
        (7, "d e"),
    ]


@pytest.mark.parametrize(
    "text", ["whoever calls", "Made anew.", "is passed over", "borne out by", "it hangs on"]
)
def test_a_word_that_has_a_plainer_one_is_noticed(text: str) -> None:
    assert BANNED.search(text)


@pytest.mark.parametrize(
    "text", ["one pass over the text", "the engine hung", "recommended", "renewed"]
)
def test_a_plain_word_is_not(text: str) -> None:
    assert not BANNED.search(text)


def test_there_are_sentences_of_each_kind() -> None:
    assert {s.kind for s in every_sentence()} == {"page", "docstring", "comment", "text"}
