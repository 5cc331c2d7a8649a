"""The words of synthetic policies and posts, and the words that training never puts into a policy.

There are three kinds. Plain words carry no topic. English nouns and adjectives (package wonderwords, MIT licence) are
topics. Invented words are unlimited, so there is always a topic that no policy had before.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from random import Random

Split = Literal["train", "held_out"]

HELD_OUT_PERCENT: Final = 12
PSEUDO_SHARE: Final = 0.45
"""Share of topics that are invented, in training; held-out policies take real words only."""

PLAIN: Final = tuple(
    dict.fromkeys(
        """
a about above actually after again all almost also always am an and any anybody anyone anything are around as ask
asked at away back bad be because been before behind being best better between big both bought bring but buy buying by
call came can cannot come comes coming could day days did different do does doing done down each early easy else end
enough even ever every everybody everyone everything far feel few find first for forget found friend friends from
fun gave get gets getting give gives giving go goes going gone good got great had half happy hard has have having he
hear heard help her here him his home hour hours how i idea if in into is it its just keep kept kind knew know last
late later least leave left less let like liked little long look looked looking lot love loved made make makes making
many may maybe me mean meant might minute minutes mine month months more morning most much must my name near need
needed never new next nice night no nobody none not nothing now of off often oh ok old on once one only open or other
our out over own part people person place please point put quite rather read ready real really right said same saw say
saying says see seem seems seen sell selling send she should show shows side since small so some somebody someone
something sometimes soon still stop such sure take taken takes talk talking tell than thank thanks that the their them
then there these they thing things think this those though thought through time times to today together told tomorrow
tonight too took tried try trying turn two under until up upon us use used using usually very wait want wanted was way
we week weekend weeks well went were what when where which while who whole why will with without won word words work
works world would write writing wrong year years yes yesterday yet you your
""".split()
    )
)
VERBS: Final = tuple(
    """
selling buying promoting praising sharing requesting offering describing encouraging advertising trading recommending
arranging demanding inviting mentioning discussing celebrating
""".split()
)
_ONSETS: Final = "b c d f g h j k l m n p r s t v w z br cl dr fl gr pl sk st tr th sh ch".split()
_VOWELS: Final = "a e i o u a e i o ai ea oo ou".split()
_CODAS: Final = "n r l s t m k p d ng nd rt st ck x sh".split() + [""] * 8
_WORD: Final = re.compile(r"[a-z]{3,11}")


@dataclass(slots=True, frozen=True)
class Pool:
    """Topic words of one split: nouns and adjectives; ``invents`` says whether made-up ones come too."""

    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    invents: bool

    def word(self, random: Random) -> str:
        """Return one topic word."""
        if self.invents and random.random() < PSEUDO_SHARE:
            return invented(random)
        return random.choice(self.nouns)

    def term(self, random: Random) -> str:
        """Return a topic: a word, or two."""
        kind = random.random()
        if kind < 0.72:
            return self.word(random)
        first = random.choice(self.adjectives) if kind < 0.86 else self.word(random)
        return f"{first} {self.word(random)}"


@cache
def pool(split: Split) -> Pool:
    """Return the topic words of training, or those that no training policy names."""
    held_out = split == "held_out"
    nouns, adjectives = (
        tuple(word for word in listed(name) if is_held_out(word) == held_out)
        for name in ("nounlist.txt", "adjectivelist.txt")
    )
    return Pool(nouns, adjectives, invents=not held_out)


def is_held_out(word: str) -> bool:
    """Return whether a word is one that training keeps out of its policies; its plural goes with it."""
    return zlib.crc32(word.rstrip("s").encode()) % 100 < HELD_OUT_PERCENT


def listed(name: str) -> list[str]:
    """Return a list of wonderwords in lower case, without plain words and their plurals."""
    text = (files("wonderwords") / "assets" / name).read_text(encoding="utf-8")
    plain = {*PLAIN, *VERBS}
    return [
        word
        for word in dict.fromkeys(text.split("\n"))
        if _WORD.fullmatch(word) and word not in plain and word.rstrip("s") not in plain
    ]


def invented(random: Random) -> str:
    """Return a made-up word that can be spoken; never one that is held out."""
    while True:
        word = "".join(
            random.choice(_ONSETS) + random.choice(_VOWELS) + random.choice(_CODAS)
            for _ in range(random.choice((1, 2, 2, 2, 3)))
        )
        if 4 <= len(word) <= 11 and not is_held_out(word):
            return word
