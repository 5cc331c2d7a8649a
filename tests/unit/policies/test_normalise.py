"""What people write alike, and what they write to be read alike, becomes one form; and that form stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_guard.policies.rules.normalise import normalise, normalise_forms

# Mostly characters that change, or that change what stands beside them.
ANYTHING = st.text(st.characters(codec=None, categories=None), max_size=60) | st.text(
    st.sampled_from(
        "aeoAO\u00e9\u0301\u0300\u0336\u200d\u200b\u0430\u0451\u0410\u00df\u0130\u03c2\u03a3\u0345\u1100\u1161\u11a8"
        "\u3131\u304b\u3099\uff76\uff9e\u0915\u093c \u00a0\u2028\t\x00\x1c\ud800\udc00\ufb01\u2126\u2800\u0627\ufdfa"
    ),
    max_size=40,
)


@settings(max_examples=1_000)
@given(ANYTHING)
def test_it_is_idempotent(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


def test_it_is_idempotent_on_every_character_alone_and_beside_others() -> None:
    # Ideographs, syllables and private use are left to chance, above: there are too many, and nothing befalls them.
    plain = [*range(0x3400, 0xA000), *range(0xAC00, 0xD7A4), *range(0x17000, 0x18D00)]
    for code in sorted(set(range(0x20000)) - set(plain)) + list(range(0xE0000, 0xE0200)):
        character = chr(code)
        if unicodedata.category(character) == "Cn":
            continue
        for text in (character, f"e{character}\u0301", f"\u1100{character}aa{character}"):
            once = normalise(text)
            assert normalise(once) == once, hex(code)


@settings(max_examples=300)
@given(ANYTHING, ANYTHING)
def test_a_part_of_a_text_becomes_the_same_part(before: str, after: str) -> None:
    assert f" {normalise('term')} " in f" {normalise(f'{before}. term .{after}')} "


@given(ANYTHING)
def test_what_is_left_is_visible_and_in_normal_form(text: str) -> None:
    made = normalise(text)
    assert unicodedata.is_normalized("NFKC", made)
    assert not {unicodedata.category(character) for character in made} & {"Cs"}
    assert "  " not in made
    assert made == made.strip()


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("", ""),
        ("Free   PILLS\n\there ", "free pills here"),
        ("\uff26\uff52\uff45\uff45 \U0001d429\U0001d422\U0001d425\U0001d425\U0001d42c", "free pills"),  # wide, bold
        ("fr\u0435\u0435 \u0440ills", "free pills"),  # Cyrillic
        ("\u0395\u03a1\u0399\u03a7", "epix"),  # Greek capitals
        ("\ua730\u0280\u1d07\u1d07", "free"),  # small capitals
        ("\U0001f175\U0001f181\U0001f174\U0001f174", "free"),  # in filled squares
        ("f\u200br\u00ade\ufefe\ufeffe\u202e", "fre\ufefee"),  # zero width, soft hyphen; U+FEFE is a noncharacter
        ("f\u0336r\u0336e\u0336e\u0336", "free"),  # struck through
        ("z\u0351\u036b\u0343a\u030a\u0321lgo", "z\u00e5lgo"),
        ("an\u0303o a\u00f1o", "a\u00f1o a\u00f1o"),
        ("\u201cmom\u2019s\u201d \u2013 1m", "\"mom's\" - 1m"),
        ("\u0661\u0662\u0663 \u0967", "123 1"),  # digits by value
        ("Stra\u00dfe \ufb01x", "strasse fix"),
        ("noooo waaaay", "noo waay"),
        ("ass as", "ass as"),
        ("www.xxx.kkk 55555 $$$ !!!!", "www.xxx.kkk 55555 $$$ !!!!"),
        ("\u0627\u0644\u0644\u0647", "\u0627\u0644\u0644\u0647"),  # Arabic stays Arabic
        ("\u30d1\u30fc\u30c6\u30a3\u30fc \u30ab\u56d7", "\u30d1\u30fc\u30c6\u30a3\u30fc \u30ab\u56d7"),
        ("a\ud800b", "ab"),
        ("a\u2800b\u3000c", "a b c"),
    ],
)  # fmt: skip
def test_disguises_come_off(written: str, normal: str) -> None:
    assert normalise(written) == normal


def test_russian_in_capitals_is_that_in_small_letters() -> None:
    text = "\u0412\u043e\u0434\u0430, \u0421\u044a\u0435\u0448\u044c \u0401\u0436\u0438\u043a\u0430"
    assert normalise(text.upper()) == normalise(text.lower()) == normalise(text)


def test_stretched_letters_have_a_second_form_with_one_of_each() -> None:
    assert normalise_forms("Sooo coool www") == ("soo cool www", "so col www")
    assert normalise_forms("plain cool") == ("plain cool",)
    assert normalise_forms("\u0448\u0448\u0448\u0430") == ("\u0448\u0448a", "\u0448a")


def test_every_look_alike_becomes_ascii() -> None:
    made = normalise(
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0458\u0501\u051b\u051d\u0261\u0131"
    )
    assert made == "aeopcyxisjdqwgi"
