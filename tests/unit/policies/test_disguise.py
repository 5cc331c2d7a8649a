"""Disguises are undone for rules that escalate, and no rule that decides uses that."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_guard.judging.tiers.rules import RulesTier
from stream_guard.policies.policy import Policy, make_policy
from stream_guard.policies.rules.disguise import unmask
from stream_guard.records.post import Post
from tools.disguise_hits import hits

TEXT = b"# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n- S1.a bulk\n\nAnswer `BAD` or `GOOD`.\n"
ESCALATES = "rules:\n  - {id: one, outcome: escalate, %s}\n"
DECIDES = "rules:\n  - {id: one, outcome: violates, category: S1, %s}\n"
TERMS = "terms: [buy pills, pills, evil.com]"
TAGGED = "".join(chr(0xE0000 + ord(letter)) for letter in "pills")
SELECTED = "".join(chr(0xE0100 + ord(letter) - 16) for letter in "pills")
FLAGS = "".join(chr(0x1F1E6 + ord(letter) - ord("a")) for letter in "pills")

DISGUISED = [
    "p1lls", "PI11S", "p!lls", "p!ll$", "cheap p1ll5!", "p i l l s", "b u y p i l l s", "p.i.l.l.s", "pi.lls",
    "pi**ll**s",
    "||pi||lls", "pi_lls", "pi-lls now", "p\\ills", "(pi)lls", "evil[.]com", "evil(dot)com", "evil[.]c0m", FLAGS,
    f"nice weather{TAGGED}", f"nice weather {TAGGED}", "b\nu\ny\np\ni\nl\nl\ns", "p i1l s p.i.l.l.s",
    # Leet that mixes i and l, with other signs, and built of several.
    "p!!ls", "p1|ls", "pi||s", "pi1|\u00a7", "|>ills", "p\u00a1lls", "evil.c()m", "e\\/il.com", "\u20acvil.com",
    # Signs of other kinds, and letters and signs in turn.
    "p\u2192i\u2192l\u2192l\u2192s", "p\U0001f600i\U0001f600l\U0001f600l\U0001f600s", "p\u2605i\u2605l\u2605l\u2605s",
    "p\u2014i\u2014lls",
    "p?i?l?l?s", "p%i&l%l%s", "p\u30fbi\u30fbl\u30fbl\u30fbs", "p\u3002i\u3002lls",
    "p@i@l@l@s", "p$i$l$l$s", "p!i!l!l!s", "p0i0l0l0s",
    "p\u2764\ufe0fi\u2764\ufe0flls", "p\u200b.i\u200b.l\u200d.ls",
    # Letters apart with signs, digits and marks of markup.
    "p. i. l. l. s.", "p, i, l, l, s", "p - i - l - l - s", "p 1 l l $", "p ! l l s", "*p* *i* *l* *l* *s*",
    "||p|| ||i|| ||l|| ||l|| ||s||", "(p) (i) (l) (l) (s)", "\u24df \u24d8 \u24db \u24db \u24e2",
    # Dots as words and in brackets, also in addresses.
    "evil [.] com", "evil (dot) com", "evil dot com", "evil DOT com", "evil[d0t]com", "evil[ . ]com", "evil . com",
    "evil-dot-com", "hxxps://evil[.]com/buy", "see evil[.]com.", "ev1l [dot] c0m", "evil{{.}}com",
    # Spoiler marks of other platforms.
    "pi>!ll!<s", ">!p1lls!<", "p||1||lls",
    # Hidden letters as a part of a word, and in variation selectors.
    FLAGS[:2] + "lls",
    f"p{FLAGS[1]}lls", FLAGS[:2] + TAGGED[2:], f"pi{TAGGED[2:]}", SELECTED, f"\U0001f600{SELECTED}",
    "\u200b".join(FLAGS),
]  # fmt: skip


def ruled(yaml: str) -> Policy:
    return make_policy("spam", TEXT, rules={"rules.yaml": yaml.encode()})


def reason(policy: Policy, text: str, *, title: str | None = None) -> str:
    post = Post("1", text, "", len(text), title=title)
    (found,) = RulesTier().screen([post], policy)
    return found.reason


@pytest.mark.parametrize("text", DISGUISED)
def test_a_disguised_word_is_found_by_a_rule_that_escalates(text: str) -> None:
    assert reason(ruled(ESCALATES % TERMS), text) == "rule:one:disguised"
    assert reason(ruled(ESCALATES % TERMS), "fine", title=text) == "rule:one:disguised"


@pytest.mark.parametrize("text", DISGUISED)
def test_no_rule_that_decides_uses_the_form_without_disguises(text: str) -> None:
    assert reason(ruled(DECIDES % TERMS), text) == "no_hit"
    safe = "rules:\n  - {id: one, outcome: safe, category: S0, %s}\n"
    assert reason(ruled(safe % TERMS), text) == "no_hit"


@pytest.mark.parametrize(
    "text",
    ["spills", "1 in 5", "up 11 s", "a b c", "I a m", "pi lls", "he p.s. ills", "ap1llsb", "555-1115", "pi\nlls",
     "pils", "p1ls", "1 1 1 1", "$ 5 and $ 10", "a polka dot dress", "evil, dot and com", "wir trinken Pils!",
     "\U0001f1f5\U0001f1f1 lls", "plis", "p-ils",
     "(i) one (l) two", "a.k.a. b.c.", "Kafka 4.1.1", "1.11. Claims", "| 2 | 35.9 |", "http://example.org/pil/ls"],
)  # fmt: skip
def test_other_texts_are_not_found(text: str) -> None:
    assert (
        reason(ruled(ESCALATES % "terms: [buy pills, pills, evil.com, ill, all]"), text) == "no_hit"
    )


def test_a_plain_hit_is_not_called_disguised_and_patterns_and_exceptions_count() -> None:
    assert reason(ruled(ESCALATES % TERMS), "pills, p1lls") == "rule:one"
    assert reason(ruled(ESCALATES % r"patterns: ['\bbuy \w+s\b']"), "b.u.y p1lls") == "rule:one:disguised"  # fmt: skip
    excepted = ruled(ESCALATES % "terms: [pills], except: {terms: [p1lls club]}")
    assert reason(excepted, "p1lls club") == "no_hit"
    assert reason(excepted, "p1lls club sells p1lls") == "rule:one:disguised"
    raw = ruled(ESCALATES % "terms: [pills], raw: true")
    assert reason(raw, "p1lls") == "no_hit"


def test_a_disguised_hit_before_a_safe_rule_keeps_it_from_deciding() -> None:
    policy = ruled(
        "rules:\n  - {id: one, outcome: escalate, terms: [pills]}\n"
        "  - {id: two, outcome: safe, category: S0, terms: [hello]}\n"
    )
    assert reason(policy, "hello") == "rule:two"
    assert reason(policy, "hello p1lls") == "rule:one:disguised"


@given(st.text())
def test_any_text_has_a_few_forms(text: str) -> None:
    forms = unmask(text)
    assert 1 <= len(forms) <= 16
    for form in forms:
        assert form.apart.count("\n") <= len(form.text) or not form.text


HOSTILE = """
import resource
from stream_guard.policies.rules.disguise import unmask

resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
UNITS = (
    "_", "<", "p i ", "a.b", "|", "p@i@", "(.)", " dot ",
    "1", "\U0001f1e6", "[( . )]", "a_", ">!", "\\\\/", "[", "(. ", "- ",
)
for unit in UNITS:
    unmask((unit * 262_144)[:262_144])
print("done")
"""


def test_256_kib_of_hostile_signs_take_bounded_time() -> None:
    # Processor time of all together; work that grows with the square of the size needs minutes for one.
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


SEPARATED = {
    word: ruled(ESCALATES % f"terms: [{word}]") for word in ("pills", "buypills", "evilcom")
}
SIGNS = st.sampled_from(["", ".", "*", "**", "_", "||", "-", "~~", "`", "[]", "\u200b", "\u00b7"])


@given(st.sampled_from(sorted(SEPARATED)), st.lists(SIGNS, min_size=8, max_size=8))
def test_signs_between_letters_never_hide_a_word(word: str, signs: list[str]) -> None:
    text = "".join(map("".join, zip(word, signs, strict=False)))
    assert reason(SEPARATED[word], f"a {text} b").startswith("rule:one")


def test_the_command_counts_plain_and_disguised_hits_apart() -> None:
    texts = ["see tools/gun.py", "a g.u.n", "the shotgun", "p1ll counter", "fine"]
    assert hits(texts) == (1, ["a g.u.n"])
