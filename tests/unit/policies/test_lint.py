"""Each code of the linter is provoked by one change to a policy that it has nothing to say of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream_guard.policies.lint import (
    CODES,
    Code,
    Context,
    Finding,
    estimate_tokens,
    lint_policies,
    lint_policy,
)
from stream_guard.policies.lint.output import to_json, to_sarif
from stream_guard.policies.policy import PolicySet, make_policy
from stream_guard.policies.store import load_policies

SHIPPED = Path(__file__).parents[3] / "policies"
WRITTEN = Path(__file__).parents[2] / "data" / "policies"
JAPANESE = (
    "次のどちらかを出力する: 「違反」または「安全」。"
    "ユーザーの投稿を次の方針に従って分類してください。"
)
CLEAN = """\
# Spam

## Instructions

Judge the post. Answer `VIOLATES` or `SAFE`.

## Definitions

- Advert: a text that asks to buy.

## Violates (SP1 - Bulk adverts)

- SP1.a the same advert many times

## Safe (SP0 - Everything else)

- SP0.a news

## Examples

- "Buy now, buy now" -> `VIOLATES`
- "Cheap pills, link below" -> `VIOLATES`
- "I sold my old bicycle today" -> `SAFE`
- "Is this advert allowed here?" -> `SAFE`

SP1 takes precedence over SP0. Answer `VIOLATES` or `SAFE`, and nothing else.
"""


def lint(text: str, yaml: str | None = None, tokens: int = 500) -> list[Finding]:
    policy = make_policy("spam", text.encode(), metadata=yaml.encode() if yaml else None)
    return lint_policy(policy, count_tokens=lambda _: tokens)


def test_nothing_is_said_of_a_clean_policy() -> None:
    assert lint(CLEAN) == []


@pytest.mark.parametrize(
    ("code", "old", "new", "line", "column"),
    [
        ("SG103", "## Definitions\n\n- Advert: a text that asks to buy.\n", "", 1, 1),
        ("SG107", "`VIOLATES` or `SAFE`", "in one word", 1, 1),
        ("SG108", "and nothing else.", "and nothing else.\n\nOr return 1 or 0.", 28, 1),
        ("SG108", 'today" -> `SAFE`', 'today" -> `SP0`', 23, 1),
        ("SG109", "- SP0.a news", "- SP0.a news\n- SP0.a weather", 18, 1),
        ("SG110", "SP1 takes", "Rule SP7.b takes", 26, 6),
        ("SG110", "SP1 takes", "Rule SP7 takes", 26, 6),
        ("SG111", "SP1 takes", "SP1 generally takes", 26, 5),
        ("SG112", "Is this advert allowed here?", "cheap  PILLS, link below", 24, 1),
        ("SG113", "and nothing", "<|end|>and nothing", 26, 61),
        ("SG114", "VIOLATES", "UNSAFE", 5, 1),
        ("SG115", "# Spam\n", "# Spam\nReasoning effort: high\n", 2, 1),
        ("SG118", "the same", "the \u200bsame", 13, 13),
        ("SG120", "SP1 takes precedence over SP0. ", "", 1, 1),
    ],
)
def test_each_code_is_provoked_by_one_change(
    code: str, old: str, new: str, line: int, column: int
) -> None:
    assert old in CLEAN
    findings = lint(CLEAN.replace(old, new))
    assert [(f.code, f.line, f.column) for f in findings] == [(code, line, column)]


@pytest.mark.parametrize(
    ("code", "yaml", "line"),
    [
        ("SG116", "effort: low\ncategories:\n  SP9: {violates: true}\n", 3),
        ("SG121", "effort: low\nlabels:\n  violates: BAD\n  safe: SAFE\n", 3),
        (
            "SG114",
            "labels: {violates: VIOLATES, safe: SAFE}\ncategories: {safe: {violates: true}}",
            5,
        ),
    ],
)
def test_what_is_declared_must_agree_with_the_text(code: str, yaml: str, line: int) -> None:
    findings = [f for f in lint(CLEAN + "safe\n", yaml) if f.code == code]
    assert [(f.code, f.line) for f in findings] == [(code, line)]


@pytest.mark.parametrize(
    ("tokens", "codes"),
    [(10_001, ["SG101"]), (10_000, ["SG102"]), (601, ["SG102"]), (399, ["SG102"]), (400, [])],
)
def test_size_is_counted_in_tokens(tokens: int, codes: list[str]) -> None:
    assert [f.code for f in lint(CLEAN, tokens=tokens)] == codes


def test_missing_sections_and_examples_are_named() -> None:
    codes = {f.code for f in lint("Be good to one another.\n")}
    assert {"SG103", "SG104", "SG105", "SG106", "SG107", "SG120"} == codes


def test_category_of_which_nothing_says_that_it_violates_is_named() -> None:
    text = CLEAN.replace("## Examples", "## Categories\n\n- `ADS`: adverts\n\n## Examples")
    assert [(f.code, f.line) for f in lint(text)] == [("SG117", 21)]


def test_answer_stated_once_in_a_long_text_is_noted() -> None:
    text = CLEAN.replace(
        " Answer `VIOLATES` or `SAFE`, and nothing else.", "\n" + "Filler text.\n" * 300
    )
    assert [(f.code, f.line) for f in lint(text)] == [("SG119", 5)]


@pytest.mark.parametrize("example", ['- "It is usually fine" -> `SAFE`', "```\nusually\n```"])
def test_hedging_words_in_examples_are_the_posts_own(example: str) -> None:
    assert lint(CLEAN.replace("## Examples\n", f"## Examples\n\n{example}\n")) == []


def test_one_kind_is_one_finding_that_names_its_places() -> None:
    findings = lint(CLEAN + "usually\n" * 500 + "<|end|>" * 500)
    assert [f.code for f in findings] == ["SG111", "SG113"]
    text = CLEAN.replace("SP1 takes", "SP1 generally takes") + "Usually.\nNot often, not usually.\n"
    (finding,) = lint(text)
    assert (finding.line, finding.column) == (26, 5)
    assert finding.message == "a hedging word: generally, usually, often (also in lines 27, 28)"
    assert "and more)" in findings[0].message
    assert len(findings[0].message) < 120


@pytest.mark.parametrize(
    "word",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian
        "\u0d05\u0d35\u0d28\u0d4d\u200d is",  # Malayalam, a word that ends with a joiner
        "\u0915\u094d\u200d\u0937",  # Hindi
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family
        "\u2764\ufe0f\u200d\U0001f525",  # a heart on fire
    ],
)
def test_joiners_that_a_script_needs_are_part_of_its_words(word: str) -> None:
    assert lint(CLEAN.replace("the same", f"the {word} same")) == []


@pytest.mark.parametrize(
    "word", ["fr\u200cee", "fr\u200dee", "\u0645\u200cx", "\u0645\u200b\u0645"]
)
def test_joiners_elsewhere_are_told(word: str) -> None:
    assert [f.code for f in lint(CLEAN.replace("the same", f"the {word} same"))] == ["SG118"]


def test_published_policies_have_advice_and_no_error() -> None:
    findings = lint_policies(load_policies(SHIPPED))
    assert {f.severity for f in findings} == {"warning", "note"}
    told = {(f.file, f.code) for f in findings}
    assert {
        ("age-restricted-goods-and-services/policy.md", "SG111"),  # "typically"
        ("age-restricted-goods-and-services/policy.md", "SG108"),  # VALID, and codes in examples
        ("dangerous-content/policy.md", "SG108"),
        ("dangerous-content/policy.md", "SG114"),  # VALID is part of INVALID
    } <= told


@pytest.mark.parametrize("path", sorted(WRITTEN.iterdir()), ids=lambda path: path.name)
def test_no_well_meant_policy_is_an_error(path: Path) -> None:
    policy = make_policy(path.name, (path / "policy.md").read_bytes())
    assert [f for f in lint_policy(policy) if f.severity == "error"] == []


def test_routes_are_linted() -> None:
    policies = {slug: make_policy(slug, CLEAN.encode()) for slug in ("spam", "rude")}
    routed = PolicySet(policies, topics={"a": ("spam",)})
    found = [
        (f.code, f.file) for f in lint_policies(routed, folder="x", count_tokens=lambda _: 500)
    ]
    assert found == [("SG201", "x/routes.yaml"), ("SG202", "x/routes.yaml")]


@pytest.mark.parametrize(
    ("text", "tokens"),
    # Counted with the o200k_harmony vocabulary.
    [
        (
            JAPANESE,
            36,
        ),
        ((SHIPPED / "dangerous-content" / "policy.md").read_text(encoding="utf-8"), 1300),
        (
            (SHIPPED / "age-restricted-goods-and-services" / "policy.md").read_text(
                encoding="utf-8"
            ),
            896,
        ),
    ],
)
def test_estimate_of_tokens_is_near(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == pytest.approx(tokens, rel=0.4)


BAD = [CODES["SG113"].at("p q/policy.md", 3, 7), CODES["SG102"].at("policies/routes.yaml")]


def test_json_output_holds_every_field() -> None:
    (first, _) = json.loads(to_json(BAD))["findings"]
    assert first["code"] == "SG113"
    assert (first["file"], first["line"], first["column"]) == ("p q/policy.md", 3, 7)


def test_sarif_output_has_the_parts_that_viewers_require() -> None:
    log = json.loads(to_sarif(BAD, "1.2.3"))
    run = log["runs"][0]
    assert log["version"] == "2.1.0"
    assert run["tool"]["driver"]["semanticVersion"] == "1.2.3"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == list(CODES)
    result = run["results"][0]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "SG113"
    assert result["level"] == "error"
    location = result["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "p%20q/policy.md"
    assert location["region"] == {"startLine": 3, "startColumn": 7}


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.code)
def test_every_code_has_a_remedy_that_is_a_sentence(code: Code) -> None:
    assert code.remedy.endswith(".")
    assert not code.code.startswith("SG0")


def context_findings(tokens: int, *, policy_tokens: int = 500) -> list[Finding]:
    policies = PolicySet({"p": make_policy("p", b"No spam.")}, default=("p",))
    context = Context(tokens, 96, 65_536)
    found = lint_policies(policies, count_tokens=lambda _: policy_tokens, context=context)
    return [finding for finding in found if finding.code.startswith("SG5")]


def test_a_policy_that_leaves_no_room_for_a_post_is_an_error() -> None:
    (finding,) = context_findings(2_048, policy_tokens=900)
    assert (finding.code, finding.severity) == ("SG501", "error")
    assert "40 of 2,048 tokens" in finding.message
    assert "engine.max_model_len" in finding.remedy


def test_posts_that_need_windows_are_noted() -> None:
    (finding,) = context_findings(8_192)
    assert (finding.code, finding.severity) == ("SG502", "note")
    assert "posts over about 26,336 bytes" in finding.message
    assert context_findings(131_072) == []
