"""Pointers follow RFC 6901, and the lookup finds what the library finds."""

from __future__ import annotations

from typing import Any

import jsonpointer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_guard.core.json_pointer import JsonPointer, find

# The document and the pointers of RFC 6901, section 5.
DOCUMENT = {
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8,
}  # fmt: skip
POINTERS = {
    "": DOCUMENT, "/foo": ["bar", "baz"], "/foo/0": "bar", "/": 0, "/a~1b": 1, "/c%d": 2, "/e^f": 3, "/g|h": 4,
    "/i\\j": 5, '/k"l': 6, "/ ": 7, "/m~0n": 8,
}  # fmt: skip


@pytest.mark.parametrize(("pointer", "value"), POINTERS.items(), ids=POINTERS)
def test_the_examples_of_the_rfc_are_found(pointer: str, value: object) -> None:
    assert find(DOCUMENT, pointer) == value


@pytest.mark.parametrize(
    "pointer", ["/foo/2", "/foo/01", "/foo/-", "/foo/²", "/foo/0/x", "/nope/x", "/foo/x"]
)
def test_a_pointer_to_nothing_finds_none(pointer: str) -> None:
    assert find(DOCUMENT, pointer) is None


@pytest.mark.parametrize("text", ["foo", "/a~2", "/~", "#/foo"])
def test_a_malformed_pointer_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a JSON pointer"):
        JsonPointer(text)


def test_only_one_part_is_single() -> None:
    assert JsonPointer("/a~1b").single == "a/b"
    assert JsonPointer("/a/b").single is None
    assert JsonPointer("").single is None


_names = st.sampled_from(["a", "b", "0", "1", "~", "/", ""])
_documents = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner),
)


@given(_documents, st.lists(_names, max_size=4))
def test_the_lookup_agrees_with_the_library(document: Any, parts: list[str]) -> None:  # noqa: ANN401
    pointer = jsonpointer.JsonPointer.from_parts(parts)
    assert JsonPointer(pointer.path).find(document) == pointer.resolve(document, None)
