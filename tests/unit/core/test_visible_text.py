"""Untrusted text is shown so that nothing in it steers a terminal, hides, or reorders what is read."""

from __future__ import annotations

import unicodedata

import pytest

from stream_guard.core.visible_text import visible_line, visible_text

ATTACKS = {
    "colour": ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    "clear the screen": ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
    "8-bit CSI": ("\x9b31m", r"\x9b31m"),
    "OSC 8, a link": (
        "\x1b]8;;https://evil.example\x1b\\bank\x1b]8;;\x1b\\",
        "\\x1b]8;;https://evil.example\\x1b\\bank\\x1b]8;;\\x1b\\",
    ),
    "OSC 52, the clipboard": ("\x1b]52;c;cm0gLXJmIH4=\x07", r"\x1b]52;c;cm0gLXJmIH4=\x07"),
    "OSC 0 in 8 bits, the title": ("\x9d0;owned\x9c", r"\x9d0;owned\x9c"),
    "DCS": ("\x1bP+q\x1b\\", "\\x1bP+q\\x1b\\"),
    "backspace and delete": ("safe\x08\x7f", r"safe\x08\x7f"),
    "null and bell": ("\x00\x07", r"\x00\x07"),
    "next line, C1": ("a\x85b", r"a\x85b"),
    "right-to-left override": ("user\u202egnp.exe", r"user\u202egnp.exe"),
    "right-to-left isolate": ("\u2067abc\u2069", r"\u2067abc\u2069"),
    "direction marks": ("\u200ea\u200fb\u061c", r"\u200ea\u200fb\u061c"),
    "zero-width": ("a\u200bb\u200cc\u200dd\u2060e\ufeff", r"a\u200bb\u200cc\u200dd\u2060e\ufeff"),
    "tag characters": ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4" + r"\U000e0067\U000e007f"),
    "line and paragraph separators": ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
    "fillers": ("\u3164\u115f\u1160\uffa0\u2800", r"\u3164\u115f\u1160\uffa0\u2800"),
    "grapheme joiner": ("a\u034fb", r"a\u034fb"),
    "selectors that carry data": ("a\ufe00\U000e0100\ufe0f\ufe0f", r"a\ufe00\U000e0100" + "\ufe0f" + r"\ufe0f"),
    "lone surrogate": ("cheap pills \ud83d", r"cheap pills \ud83d"),
    "private use and unassigned": ("\ue000\U000fffff\u0378", r"\ue000\U000fffff\u0378"),
    "soft hyphen": ("pa\u00adss", r"pa\xadss"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), ATTACKS.values(), ids=ATTACKS)
def test_what_steers_or_hides_is_written_out(text: str, shown: str) -> None:
    assert visible_line(text) == shown
    assert visible_text(text) == shown


@pytest.mark.parametrize(
    "text", ["", "plain", r"C:\new \x1b", "grün 中文 עברית العربية", "\U0001f600 ❤\ufe0f", "a\u00a0b\u3000c"]
)  # fmt: skip
def test_readable_text_stays(text: str) -> None:
    assert visible_line(text) == text
    assert visible_text(text) == text


def test_one_line_stays_one_line() -> None:
    assert visible_line("a\nb\r\nc\td\x0b\x0c") == r"a\nb\r\nc\td\x0b\x0c"


def test_lines_and_tabs_stay_where_lines_are_wanted() -> None:
    assert visible_text("a\nb\r\nc\td") == "a\nb\nc\td"


def test_a_lone_carriage_return_cannot_overwrite_a_line() -> None:
    assert visible_text("violates\rsafe") == r"violates\rsafe"


def test_no_character_of_a_steering_category_passes() -> None:
    every = "".join(map(chr, range(0x110000)))
    steering = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    left = {one for one in visible_text(every) if unicodedata.category(one) in steering}
    assert left == {"\n", "\t"}
