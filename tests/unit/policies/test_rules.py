"""A policy's own terms, patterns and hashes settle a post or hand it on, and say which of them did."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_guard.judging.tiers.rules import RulesTier
from stream_guard.judging.tiers.tier import Escalated, Settled
from stream_guard.policies.policy import Policy, make_policy
from stream_guard.policies.rules.matching import Matcher, Target, compile_pattern
from stream_guard.policies.rules.normalise import normalise
from stream_guard.policies.rules.ruleset import hash_text
from stream_guard.records.post import Post, PostParser, ThreadEntry
from stream_guard.settings import PostSettings

TEXT = (
    b"# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n- S1.a bulk\n\n"
    b"Answer `BAD` or `GOOD`.\n"
)
ONE = "rules:\n  - {id: one, outcome: violates, category: S1, %s}\n"


def ruled(yaml: str, **banks: str) -> Policy:
    files = {f"{name}.txt": content.encode() for name, content in banks.items()}
    policy = make_policy("spam", TEXT, rules={"rules.yaml": yaml.encode(), **files})
    assert policy.rules is not None
    assert [f for f in policy.rules.faults if f.code not in {"SG309", "SG310", "SG313"}] == []
    return policy


def outcome(
    policy: Policy, text: str, *, title: str | None = None, language: str | None = None
) -> str:
    parent = ThreadEntry("parent", "cheap pills")
    post = Post("1", text, "", len(text), title=title, context=(parent,), language=language)
    (found,) = RulesTier().screen([post], policy)
    return found.reason


def test_a_settled_post_says_what_decided_and_none_of_its_words() -> None:
    policy = ruled(
        ONE % "rule_ids: [S1.a], terms_files: [shops.txt]", shops="# shops\ncheap pills\n"
    )
    post = Post("1", "Buy CHEAP\u200b  pills!", "", 9)
    assert policy.rules is not None
    (found,) = RulesTier().screen([post], policy)
    assert isinstance(found, Settled)
    assert found.reason == "rule:one"
    assert found.model == f"rules@{policy.rules.sha256[:12]}"
    assert (found.answer.decision, found.answer.category, found.answer.rule_ids) == (
        "violates",
        "S1",
        ("S1.a",),
    )
    assert found.answer.rationale == "rule one: a term of shops.txt"
    assert found.answer.parse_status == "not_applicable"


def test_what_no_rule_hits_goes_on() -> None:
    policy = ruled(ONE % "terms: [cheap pills]")
    assert RulesTier().screen([Post("1", "hello", "", 5)], policy) == [Escalated("no_hit")]
    assert RulesTier().screen([Post("1", "hello", "", 5)], make_policy("spam", TEXT)) == [
        Escalated("no_rules")
    ]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("<p>cheap pi<b></b>lls</p>", "rule:one"),
        ("cheap&nbsp;pi&#x6c;ls", "rule:one"),
        ("cheap<br>pills", "rule:one"),
        ("a<!-- cheap pills -->b", "rule:one"),
        ("a<script>cheap pills</script>", "rule:one"),
        ('a<i style="display:none">cheap pills</i>', "rule:one"),
        ('<a href="https://x.example/?q=cheap pills">a</a>', "rule:one"),
        ("cheap <!-- pills -->", "no_hit"),
        ("<p>except cheap pills</p>", "no_hit"),
        ("<p>except cheap pills</p><!-- cheap pills -->", "rule:one"),
        ('<p class="cheap pills">x</p>', "no_hit"),
    ],
)
def test_markup_is_resolved_for_rules_and_its_hidden_text_is_matched(
    source: str, reason: str
) -> None:
    policy = ruled(ONE % "terms: [cheap pills], except: {terms: [except cheap pills]}")
    parser = PostParser(PostSettings(markup="html"))
    post = parser.finish(Post("1", source, "", len(source)))
    (found,) = RulesTier().screen([post], policy)
    assert found.reason == reason


def test_outcomes_come_in_the_order_of_the_posts() -> None:
    policy = ruled(ONE % "terms: [pills]")
    posts = [Post(t, t, "", 1) for t in ("pills", "tea", "pills")]
    assert [o.reason for o in RulesTier().screen(posts, policy)] == [
        "rule:one",
        "no_hit",
        "rule:one",
    ]


ORDER = """rules:
  - {id: first, outcome: %s, terms: [alpha]}
  - {id: second, outcome: %s, terms: [alpha, beta]}
"""


@pytest.mark.parametrize("outcomes", [("safe", "escalate"), ("escalate", "safe")])
def test_the_first_rule_in_the_file_decides_whatever_its_outcome(outcomes: tuple[str, str]) -> None:
    policy = ruled(ORDER % outcomes)
    assert outcome(policy, "beta and alpha") == "rule:first"
    assert outcome(policy, "beta") == "rule:second"


def test_a_rule_that_escalates_settles_nothing_and_names_itself() -> None:
    policy = ruled(ORDER % ("escalate", "safe"))
    assert RulesTier().screen([Post("1", "alpha", "", 5)], policy) == [Escalated("rule:first")]


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("buy rum now", True),
        ("RUM", True),
        ("r\u03c5m, please", True),  # a Greek upsilon
        ("r u m", False),
        ("drum", False),
        ("rumour", False),
        ("rum_bar", True),
        ("rum7", False),
        ("ruuuuum", True),
        ("ruum", False),
    ],
)
def test_terms_are_whole_words(text: str, hit: bool) -> None:  # noqa: FBT001 - a parameter
    assert (outcome(ruled(ONE % "terms: [rum]"), text) == "rule:one") is hit


def test_terms_are_parts_of_words_where_that_is_said() -> None:
    policy = ruled(ONE % "terms: [\u85ac\u7269], whole_words: false")
    assert outcome(policy, "\u3053\u306e\u85ac\u7269\u3092\u8cb7\u3046") == "rule:one"


def test_a_vowel_sign_goes_on_with_the_word() -> None:
    policy = ruled(ONE % "terms: ['\u0915\u0932']")
    assert outcome(policy, "\u0915\u0932") == "rule:one"
    assert outcome(policy, "\u0915\u0932\u093e") == "no_hit"


@pytest.mark.parametrize(
    ("pattern", "text", "hit"),
    [
        ("fr[e3]{2} +pills", "FR3E pills", True),
        ("BUY NOW", "buy now", True),
        ("^buy", "buy it", True),
        ("^buy", "do buy", False),
        ("\u043a\u0443\u043f(\u0438|\u043b\u044e) \u0441\u043e", "\u041a\u0443\u043f\u043b\u044e \u0421\u043e", True),
        ("don\u2019t|\u201cwe\u201d", "DON'T", True),
        ("\u2026$", "wait...", True),
        ("\u2026$", "waitabc", False),
        ("(^|a)\u2026{2}$", "a......", True),
        ("(^|a)\u2026{2}$", "a....", False),
        ("w{3}\\.spam", "www.spam.example", True),
        ("x{5,}", "xxxxxx", True),
        ("[\u0430-\u0431\u0448]{2}", "\u0448\u0448", True),
    ],
)  # fmt: skip
def test_patterns_match_normalised_text(pattern: str, text: str, hit: bool) -> None:  # noqa: FBT001
    quoted = pattern.replace("'", "''")
    yaml = f"rules:\n  - id: one\n    outcome: safe\n    patterns: ['{quoted}']\n"
    policy = make_policy("spam", TEXT, rules={"rules.yaml": yaml.encode()})
    assert (outcome(policy, text) == "rule:one") is hit


def test_a_raw_rule_sees_the_text_as_it_came() -> None:
    policy = ruled(ONE % "raw: true, patterns: ['\\x{202E}', '[A-Z]{6}']")
    assert outcome(policy, "a\u202eb") == "rule:one"
    assert outcome(policy, "SHOUTS") == "rule:one"
    assert outcome(policy, "shouts") == "no_hit"
    policy = ruled(ONE % "raw: true, terms: [ACME]")
    assert outcome(policy, "by ACME.") == "rule:one"
    assert outcome(policy, "by acme.") == "no_hit"
    assert outcome(policy, "see above", title="ACME") == "rule:one"


def test_hashes_are_of_the_normal_form_of_the_whole_text() -> None:
    policy = ruled(
        ONE % "hashes_files: [known.txt]", known=f"# known\n{hash_text('Cheap  PILLS')}\n"
    )
    assert outcome(policy, "che\u0430p pills") == "rule:one"
    assert outcome(policy, "cheap pills!") == "no_hit"


def test_the_title_is_looked_at_by_itself_and_the_parent_never() -> None:
    policy = ruled(ONE % "terms: [cheap pills], patterns: ['^only this$']")
    assert outcome(policy, "see above", title="Cheap pills") == "rule:one"
    assert outcome(policy, "see above", title="Only this") == "rule:one"
    assert outcome(policy, "pills", title="cheap") == "no_hit"


def test_a_rule_cannot_call_a_whole_thread_safe() -> None:
    rules = {
        "rules.yaml": b"rules: [{id: one, outcome: safe, terms: [hi]}, {id: two, outcome: violates, terms: [pills]}]"
    }
    metadata = b"judge: thread"
    policy = make_policy("p", b"No pills.", metadata=metadata, rules=rules)
    assert (outcome(policy, "hi"), outcome(policy, "pills")) == ("thread", "rule:two")
    (alone,) = RulesTier().screen([Post("1", "hi", "", 2)], policy)
    assert alone.reason == "rule:one"


def test_languages_take_regions_in_and_posts_without_one_out() -> None:
    policy = ruled(ONE % "languages: [de, pt-BR], terms: [gift]")
    assert [outcome(policy, "gift", language=tag) for tag in ("de", "DE-at", "pt_br")] == [
        "rule:one"
    ] * 3
    assert [outcome(policy, "gift", language=tag) for tag in ("den", "pt", None)] == ["no_hit"] * 3


class TestExceptions:
    """What a rule passes over."""

    YAML = ONE % (
        "terms: [cock, ass], whole_words: false, hashes_files: [bad.txt], "
        "except: {terms: [cockatoo, assassin], patterns: ['peacocks?'], hashes_files: [fine.txt]}"
    )
    BANKS = {"bad": f"{hash_text('a cockatoo')}\n", "fine": f"{hash_text('ass, says the bible')}\n"}  # noqa: RUF012

    @pytest.mark.parametrize(
        "text", ["my Cockatoo", "Peacocks and an assassin", "ASS, says the Bible"]
    )
    def test_it_passes_over(self, text: str) -> None:
        assert outcome(ruled(self.YAML, **self.BANKS), text) == "no_hit"

    @pytest.mark.parametrize("text", ["cockatoo, cock", "an assassin, you ass", "asssss peacock"])
    def test_what_else_there_is_still_hits(self, text: str) -> None:
        assert outcome(ruled(self.YAML, **self.BANKS), text) == "rule:one"

    def test_a_hash_of_the_rule_is_not_passed_over(self) -> None:
        assert outcome(ruled(self.YAML, **self.BANKS), "A cockatoo") == "rule:one"

    def test_the_next_rule_is_asked_where_one_passes_over(self) -> None:
        policy = ruled(
            "rules:\n  - {id: one, outcome: safe, terms: [tea], except: {terms: [green tea]}}\n"
            "  - {id: two, outcome: safe, patterns: [green]}\n"
        )
        assert outcome(policy, "green tea") == "rule:two"

    def test_nothing_is_joined_over_what_is_taken_out(self) -> None:
        policy = ruled(ONE % "patterns: ['free.*pills'], except: {terms: [vitamin]}")
        assert outcome(policy, "free vitamin pills") == "no_hit"


def test_what_a_bank_holds_is_part_of_the_versions() -> None:
    yaml = ONE % "terms_files: [a.txt]"
    one, two = ruled(yaml, a="alpha"), ruled(yaml, a="beta")
    assert one.sha256 != two.sha256
    assert one.rules != two.rules
    assert one.rules == ruled(yaml, a="alpha").rules
    assert hash(one.rules) == hash(ruled(yaml, a="alpha").rules)
    assert one.sha256 != make_policy("spam", TEXT).sha256


def test_hundreds_of_patterns_all_count() -> None:
    patterns = ", ".join(f"'word{number:03}+x'" for number in range(350))
    policy = ruled(ONE % f"patterns: [{patterns}]")
    assert {outcome(policy, f"a word{number:03}x") for number in range(350)} == {"rule:one"}
    assert outcome(policy, "a word350x") == "no_hit"


def test_patterns_that_are_too_much_together_count_each_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream_guard.policies.rules.matching._MEMORY_BYTES", 100_000)
    patterns = [(f"{c}[m-z]{{250}}!", Target(n, "p")) for n, c in enumerate("abcdefghijkl")]
    matcher = Matcher([], patterns, fold_case=True)
    assert [chunk.together for chunk in matcher._chunks] == [None]
    assert matcher.hits(f"c{'x' * 250}!") == {2: "p"}


def test_a_pattern_that_names_a_group_as_another_does_is_taken() -> None:
    patterns = [("(?P<n>tea)", Target(0, "p")), ("(?P<n>rum)", Target(1, "q"))]
    assert Matcher([], patterns, fold_case=True).hits("rum") == {1: "q"}


POLICY = ruled(
    "rules:\n"
    "  - id: one\n    outcome: violates\n    category: S1\n"
    "    patterns: ['(a+)+$', '(x|x)*y', '\\bfr[e3]+ (pi[l1]+s?|money)\\b', '(.*a){10}z']\n"
    "    terms: [cheap pills, '\u043a\u0443\u043f\u0438\u0442\u044c']\n    hashes_files: [h.txt]\n"
    "    except: {terms: [a free pill], patterns: ['a|a.*b', '[aeiou]+z']}\n"
    "  - {id: two, outcome: safe, raw: true, patterns: ['[\\x{202A}-\\x{202E}]'], terms: [OK], "
    "whole_words: false, except: {patterns: ['b+']}}\n",
    h=hash_text("known"),
)  # fmt: skip


@settings(max_examples=500)
@given(
    st.text(st.characters(codec=None, categories=None), max_size=80)
    | st.text(st.sampled_from("ax yzOK\u202e\ud800\U0001f600\u0430\x00fre3pils"), max_size=80),
    st.none() | st.text(max_size=10),
)
def test_no_text_makes_it_raise(text: str, title: str | None) -> None:
    (found,) = RulesTier().screen([Post("1", text, "", 1, title=title, language=title)], POLICY)
    assert found.reason in {"rule:one", "rule:two", "no_hit"}


@pytest.mark.parametrize(
    "unit",
    ["a", "ab", "x", "\ud800", "a\u0301", "\U0001f600", "\u0430 ", "a free pill ", "OKb", "\u202e"],
)
def test_a_megabyte_is_looked_at_whatever_it_holds(unit: str) -> None:
    text = unit * (1_000_000 // len(unit)) + "!"
    (found,) = RulesTier().screen([Post("1", text, "", 1)], POLICY)
    assert found.reason in {"rule:one", "rule:two", "no_hit"}


def test_a_pattern_that_explodes_when_backtracking_ends_here() -> None:
    # 2**50 steps to an engine that backtracks: this test would not come to its end.
    policy = ruled(ONE % "patterns: ['^(a+)+$', '^(\\w+\\s?)+$', '(x+x+)+y']")
    assert outcome(policy, "a a" * 20_000 + "!" + "x" * 50) == "no_hit"


@settings(max_examples=200)
@given(st.text(string.ascii_lowercase + "  ", min_size=1, max_size=20), st.text(max_size=30))
def test_a_term_is_found_wherever_its_normal_form_stands(term: str, around: str) -> None:
    wanted = normalise(term)
    if not wanted:
        return
    matcher = Matcher([(wanted, Target(0, "t"))], [], fold_case=True)
    assert matcher.hits(normalise(f"{around}. {term} .{around}")) == {0: "t"}


def test_compiled_patterns_tell_nothing_on_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="missing"):
        compile_pattern("(a", fold_case=True)
    assert capfd.readouterr().err == ""
