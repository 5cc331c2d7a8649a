"""What is wrong with a policy's rules is named with its file, line and remedy, and never goes live."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_guard.cli.main import app
from stream_guard.core.errors import PolicyError
from stream_guard.policies.describe import describe_policy, show_lines
from stream_guard.policies.diff import diff_lines, diff_policies
from stream_guard.policies.lint import CODES, Finding, lint_policy
from stream_guard.policies.policy import make_policy
from stream_guard.policies.reload import PolicyReloader, ReloadOutcome
from stream_guard.policies.rules import compile as rules_build
from stream_guard.policies.rules.ruleset import hash_text
from stream_guard.policies.rules.spec import RULES_BYTES_MAX, RULES_MAX, named_files
from stream_guard.policies.store import load_policies, read_policy_files

TEXT = (
    b"# Spam\n\n## Safe (S0 - clean)\n\n## Banned (S1 - adverts)\n- S1.a bulk\n\n"
    b"## Banned (S2 - fraud)\n- S2.a forged\n\nAnswer `BAD` or `GOOD`.\n"
)
ONE = "rules:\n  - id: one\n    outcome: violates\n    category: S1\n    %s\n"


def said(yaml: str, metadata: bytes | None = None, **banks: str) -> list[Finding]:
    """Return what the linter says of rules."""
    files = {f"{name}.txt": content.encode() for name, content in banks.items()}
    rules = {"rules.yaml": yaml.encode(), **files}
    policy = make_policy("spam", TEXT, rules=rules, metadata=metadata)
    return [finding for finding in lint_policy(policy) if finding.code.startswith("SG3")]


def brief(findings: list[Finding]) -> list[tuple[str, str, int, int]]:
    return [(f.code, f.file, f.line, f.column) for f in findings]


def test_good_rules_have_nothing_said_against_them() -> None:
    assert said(ONE % "patterns: ['fr[e3]e']\n    terms: [cheap pills]\n    rule_ids: [S1.a]") == []


def test_a_bad_pattern_is_named_with_its_place_and_in_re2s_words() -> None:
    found = said(ONE % "patterns:\n      - 'fine'\n      - '(a'\n      - 'b{2000}'")
    assert brief(found) == [("SG301", "spam/rules.yaml", 7, 9), ("SG301", "spam/rules.yaml", 8, 9)]
    assert "missing ): (a" in found[0].message
    assert "invalid repetition size: {2000}" in found[1].message
    assert found[0].severity == "error"


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)b", "(?!a)b", "(?<=a)b", "(?<!a)b", "(?>a)b", "(a)\\1", "(?P<x>a)(?P=x)", "a++b", "(?<x>a)\\k<x>"],
)  # fmt: skip
def test_what_needs_backtracking_has_a_remedy_of_its_own(pattern: str) -> None:
    (found,) = said(ONE % f"patterns: ['{pattern}']")
    assert found.code == "SG302"
    assert "except" in found.remedy


@pytest.mark.parametrize("pattern", ["a*", "", "x|", "^", "\\b|y", ".", "\\S", "(?s).+", "[^q]"])
def test_a_pattern_that_hits_every_post_is_an_error(pattern: str) -> None:
    (found,) = said(ONE % f"patterns: ['{pattern}']")
    assert (found.code, found.severity) == ("SG303", "error")


def test_a_pattern_that_is_too_long_is_an_error() -> None:
    (found,) = said(ONE % f"patterns: ['{'ab' * 501}']")
    assert found.code == "SG301"
    assert "1,002 characters, over 1,000" in found.message


def test_two_rules_of_one_id_are_an_error() -> None:
    rule = "  - {id: one, outcome: safe, terms: [%s]}\n"
    (found,) = said("rules:\n" + rule % "tea" + rule % "rum")
    assert brief([found]) == [("SG304", "spam/rules.yaml", 3, 6)]
    assert "line 2" in found.message


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("outcome: violates, category: S9", "no category 'S9'"),
        (
            "outcome: violates, category: S0",
            "no category 'S0' with the outcome 'violates'",
        ),
        ("outcome: safe, category: S1", "no category 'S1' with the outcome 'safe'"),
        ("outcome: violates", "names no category; use one of: S1, S2"),
        ("outcome: escalate, category: S1", "have no effect"),
    ],
)
def test_a_category_fits_the_policy_and_the_outcome(rule: str, told: str) -> None:
    (found,) = said(f"rules:\n  - {{id: one, {rule}, terms: [tea]}}\n")
    assert (found.code, found.line) == ("SG305", 2)
    assert told in found.message


@pytest.mark.parametrize("ids", ["S1.z", "S2.a"])
def test_rule_ids_are_those_of_the_category(ids: str) -> None:
    (found,) = said(ONE % f"terms: [tea]\n    rule_ids: [{ids}]")
    assert (found.code, found.line) == ("SG306", 6)


def test_an_empty_bank_is_named() -> None:
    found = said(ONE % "terms_files: [a.txt]\n    hashes_files: [b.txt]", a="# none yet\n\n", b="")
    assert [(f.code, f.line) for f in found] == [("SG307", 5), ("SG307", 6)]


def test_terms_that_cannot_be_found_or_are_there_twice_are_named_with_their_line() -> None:
    found = said(
        ONE % "terms_files: [a.txt]",
        a=f"# shops\npills\n\n\u200b\u0301\nPILL\u200bS\n{'x y ' * 51}\n",
    )
    assert brief(found) == [
        ("SG308", "spam/a.txt", 4, 1),
        ("SG309", "spam/a.txt", 5, 1),
        ("SG308", "spam/a.txt", 6, 1),
    ]
    (found,) = said(ONE % "terms:\n      - Tea\n      - t\u0435a")
    assert brief([found]) == [("SG309", "spam/rules.yaml", 7, 9)]


def test_a_term_of_two_outcomes_is_named() -> None:
    rules = (
        "rules:\n  - {id: fine, outcome: safe, terms: [Tea]%s}\n"
        "  - {id: bad, outcome: violates, category: S1, terms: [tea, rum]%s}\n"
    )
    (found,) = said(rules % ("", ""))
    assert (found.code, found.line) == ("SG310", 3)
    assert "'tea' is safe by the earlier rule 'fine', and violates here" in found.message
    assert said(rules % (", languages: [en]", ", languages: [de]")) == []
    assert [f.code for f in said(rules % (", languages: [de]", ", languages: [de-AT]"))] == [
        "SG310"
    ]


def test_what_is_no_hash_is_named_with_its_line() -> None:
    good = hash_text("x")
    found = said(
        ONE % "hashes_files: [h.txt]",
        h=f"# list\n{good}\n{good[:-1]}\n{good[:-1]}g\n{good.upper()}\n",
    )
    assert brief(found) == [
        ("SG311", "spam/h.txt", 3, 1),
        ("SG311", "spam/h.txt", 4, 1),
        ("SG309", "spam/h.txt", 5, 1),
    ]


@pytest.mark.parametrize(
    "pattern",
    ["fuuuck", "a  b", "a\\tb", "[\u0430-\u044f]+", "\u200bx", "[\u2026]", "[\u00c4-\u00d6]x"],
)
def test_a_pattern_of_what_is_never_there_is_named(pattern: str) -> None:
    (found,) = {f.code: f for f in said(ONE % f"patterns: ['{pattern}']")}.values()
    assert (found.code, found.severity) == ("SG312", "warning")
    assert said(ONE % f"raw: true\n    patterns: ['{pattern}x']") == []


@pytest.mark.parametrize(
    "pattern", ["Fu+ck", "\u0436[\u0436\u0448]", "www", "x{3}y", "[a-z]\\wu{3,}", "a b"]
)
def test_a_pattern_of_what_is_there_is_not(pattern: str) -> None:
    assert said(ONE % f"patterns: ['{pattern}']") == []


def test_short_terms_within_words_are_named() -> None:
    assert [f.code for f in said(ONE % "terms: [ass]\n    whole_words: false")] == ["SG313"]
    assert said(ONE % "terms: [ass]") == []


def test_rules_that_the_tiers_leave_out_are_named() -> None:
    yaml = ONE % "terms: [tea]"
    assert [f.code for f in said(yaml, b"tiers: [classifier, safeguard]")] == ["SG314"]
    assert said(yaml, b"tiers: [rules, safeguard]") == []


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        ("", "rules.yaml:1: must be a mapping"),
        ("rules: []", "rules.yaml:1: rules: "),
        ("rules:\n  - {id: A b, outcome: safe, terms: [x]}", "rules.yaml:2: rules.0.id"),
        ("rules:\n  - {id: a, outcome: bad, terms: [x]}", "rules.yaml:2: rules.0.outcome"),
        ("rules:\n  - {id: a, outcome: safe}", "rules.yaml:2: rules.0: has nothing to look for"),
        ("rules:\n  - id: a\n    outcome: safe\n    term: [x]", "rules.yaml:4: rules.0.term: unknown key"),
        ("rules:\n  - id: a\n    outcome: safe\n    terms: [no]", "is False to YAML, not text; put it in quotes"),
        ("rules:\n  - id: a\n    outcome: safe\n    terms: [x]\n    except: {}", "rules.yaml:5: "),
        ("rules:\n  - id: a\n    outcome: safe\n    terms_files: [../a.txt]", "rules.yaml:4: "),
        ("rules:\n  - id: a\n    outcome: safe\n    terms_files: [/etc/passwd]", "without a path"),
        ("rules:\n  - id: a\n    outcome: safe\n    terms_files: [a.txt]", "rules.0.terms_files.0: no file"),
        ("rules: [", "rules.yaml:1: not valid YAML"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_line(yaml: str, told: str) -> None:
    with pytest.raises(PolicyError) as refused:
        make_policy("spam", TEXT, rules={"rules.yaml": yaml.encode()})
    assert told in str(refused.value)


def test_a_bank_that_is_not_utf8_is_refused_with_its_line() -> None:
    rules = {"rules.yaml": (ONE % "terms_files: [a.txt]").encode(), "a.txt": b"tea\n\xff\n"}
    with pytest.raises(PolicyError, match=r"spam/a\.txt:2: "):
        make_policy("spam", TEXT, rules=rules)


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("PATTERNS_MAX", "2 patterns, over the limit of 1"),
        ("TERMS_MAX", "2 terms, over the limit of 1"),
        ("TERMS_CHARACTERS_MAX", "3 characters of terms, over the limit of 1"),
        ("HASHES_MAX", "2 hashes, over the limit of 1"),
        ("BANK_BYTES_MAX", r"spam/h.txt: over 1 bytes"),
    ],
)
def test_limits_are_kept(monkeypatch: pytest.MonkeyPatch, limit: str, told: str) -> None:
    yaml = (
        ONE
        % "patterns: [ab, cd]\n    terms: [tea]\n    hashes_files: [h.txt]\n    except: {terms: [rum]}"
    )
    hashes = {"h": f"{hash_text('x')}\n{hash_text('y')}\n"}
    assert said(yaml, **hashes) == []
    monkeypatch.setattr(rules_build, limit, 1)
    with pytest.raises(PolicyError, match=told):
        said(yaml, **hashes)


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        ("#" * (RULES_BYTES_MAX + 1), "rules.yaml: 262,145 bytes, over 262,144 bytes; move long lists"),
        (ONE % f"terms: [{'a,' * 100_000}]", "rules.yaml:5: over 20,000 keys and values"),
        (ONE % f"terms: [{'1,' * 10_000}]", "rules.yaml: 9,950 more faults"),
        (ONE % f"patterns: [{'a,' * 1_001}]", "1,001 patterns, over the limit of 1,000"),
        (ONE % "patterns: [a]\n    terms_files: [many.txt]", "100,001 terms, over the limit of 100,000"),
        (ONE % "patterns: [a]\n    hashes_files: [big.txt, big.txt, big.txt]", "files of 90,000,000 bytes together"),
    ],
    ids=["bytes", "values", "faults", "patterns", "terms", "files"],
)  # fmt: skip
def test_sizes_and_counts_are_refused_before_anything_is_compiled(
    monkeypatch: pytest.MonkeyPatch, yaml: str, told: str
) -> None:
    def compiled(*_: object, **__: object) -> None:
        pytest.fail("a pattern or a term was compiled")

    monkeypatch.setattr(rules_build, "compile_pattern", compiled)
    monkeypatch.setattr(rules_build, "normalise", compiled)
    with pytest.raises(PolicyError) as refused:
        said(yaml, many="a\n" * 100_001, big="#" * 30_000_000)
    assert told in str(refused.value)


def test_patterns_that_compile_to_too_much_are_refused_at_the_one_that_exceeds_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []
    compile_pattern = rules_build.compile_pattern

    def count(pattern: str, *, fold_case: bool) -> object:
        compiled.append(pattern)
        return compile_pattern(pattern, fold_case=fold_case)

    monkeypatch.setattr(rules_build, "compile_pattern", count)
    patterns = ", ".join(rf"'a{number}\pL{{400}}'" for number in range(100))
    told = r"rules\.0\.patterns\.2: the patterns up to here compile to more than 1,000,000 instructions"
    with pytest.raises(PolicyError, match=told):
        said(ONE % f"patterns: [{patterns}]")
    assert len(compiled) == 3


def test_too_many_rules_are_refused() -> None:
    rules = "".join(
        f"  - {{id: r{n}, outcome: safe, terms: [t{n}]}}\n" for n in range(RULES_MAX + 1)
    )
    with pytest.raises(PolicyError, match="at most 500"):
        said("rules:\n" + rules)


def test_only_proper_names_of_files_are_read() -> None:
    yaml = b"rules:\n - {terms_files: [b.txt, ../x, 7], except: {hashes_files: [a.txt]}}\n - 3\nmore: [c.txt]\n"
    assert named_files(yaml) == ("a.txt", "b.txt")
    assert named_files(b"rules: [") == named_files(b"\xff") == named_files(b"rules: 1") == ()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one policy and its rules."""
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam" / "policy.md").write_bytes(TEXT)
    (tmp_path / "spam" / "rules.yaml").write_text(ONE % "terms_files: [a.txt]")
    (tmp_path / "spam" / "a.txt").write_text("tea\n")
    (tmp_path / "spam" / "other.txt").write_text("not named\n")
    return tmp_path


def test_what_is_named_is_part_of_the_reading_and_nothing_else_is(folder: Path) -> None:
    before = read_policy_files(folder)
    assert list(before.rules["spam"]) == ["rules.yaml", "a.txt"]
    (folder / "spam" / "other.txt").write_text("changed\n")
    assert read_policy_files(folder).sha256 == before.sha256
    (folder / "spam" / "a.txt").write_text("rum\n")
    assert read_policy_files(folder).sha256 != before.sha256


def test_an_error_stops_a_start(folder: Path) -> None:
    assert load_policies(folder).policies["spam"].rules is not None
    (folder / "spam" / "rules.yaml").write_text(ONE % "patterns: ['(?=x)a']")
    with pytest.raises(
        PolicyError, match=r"spam/rules\.yaml:5: SG302: .*invalid perl operator.* Write out the"
    ):
        load_policies(folder)


async def test_a_bad_edit_keeps_the_last_good_rules_and_a_good_one_replaces_them(
    folder: Path,
) -> None:
    live = load_policies(folder)
    outcomes: list[ReloadOutcome] = []

    async def prepare(_: object) -> None: ...

    reloader = PolicyReloader(
        folder, live, prepare=prepare, switch=lambda _: None, report=outcomes.append
    )
    (folder / "spam" / "rules.yaml").write_text(ONE % "patterns: ['a*']")
    await reloader.check()
    assert reloader.live is live
    assert "SG303" in (reloader.refused or "")
    (folder / "spam" / "rules.yaml").write_text(ONE % "terms_files: [a.txt]")
    await reloader.check()
    (folder / "spam" / "a.txt").write_text("tea\nrum\n")
    await reloader.check()
    assert [outcome.kind for outcome in outcomes] == ["refused", "restored", "switched"]
    rules = reloader.live.policies["spam"].rules
    assert rules is not None
    assert rules.first("rum") is not None


def test_show_names_the_rules_and_diff_what_changed(folder: Path) -> None:
    before = load_policies(folder)
    assert list(diff_lines(diff_policies(before, load_policies(folder)))) == ["no difference"]
    described = describe_policy(before.policies["spam"])["rules"]["rules"]
    assert (described[0]["id"], described[0]["terms"], described[0]["line"]) == ("one", 1, 2)
    shown = "\n".join(show_lines(before.policies["spam"]))
    assert "one          violates S1: 1 terms (rules.yaml:2)" in shown
    (folder / "spam" / "a.txt").write_text("tea\nrum\n")
    told = "\n".join(diff_lines(diff_policies(before, load_policies(folder))))
    assert "rules.one.terms: 1 -> 2" in told
    assert "rules.sha256: " in told


def test_lint_tells_programs_of_it(folder: Path) -> None:
    from typer.testing import CliRunner

    (folder / "spam" / "a.txt").write_text("tea\nTEA\n")
    (folder / "spam" / "rules.yaml").write_text(ONE % "terms_files: [a.txt]\n    patterns: ['(a']")
    made = CliRunner().invoke(app, ["policies", "lint", "--path", str(folder), "--format", "sarif"])
    assert made.exit_code == 2
    assert '"ruleId": "SG301"' in made.stdout.replace('":"', '": "')
    assert '"ruleId": "SG309"' in made.stdout.replace('":"', '": "')


def test_no_code_of_rules_is_without_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert {code for code in CODES if code.startswith("SG3")} <= set(
        source.replace('"', " ").split()
    )
