"""Statements of reasons have what the DSA Transparency Database asks for; what cannot be mapped is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from stream_guard.cli.main import app
from stream_guard.core.errors import PolicyError
from stream_guard.judging.contract import Answer
from stream_guard.judging.verdict import recommended_action
from stream_guard.offline.export.dsa import EEA, EU, Statements, UnmappableError, statement_schema
from stream_guard.offline.export.dsa_run import export
from stream_guard.policies.store import load_policies
from tests.verdicts import make_verdict

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = Draft202012Validator(statement_schema())
MAPPING = """\
defaults:
  content_type: [CONTENT_TYPE_TEXT]
  territorial_scope: EU
  decision_ground: DECISION_GROUND_INCOMPATIBLE_CONTENT
  incompatible_content_ground: Terms, section 4
  source_type: SOURCE_VOLUNTARY
  automated_detection: Yes
  automated_decision: AUTOMATED_DECISION_FULLY
actions:
  remove: {decision_visibility: [DECISION_VISIBILITY_CONTENT_REMOVED]}
  review: null
policies:
  spam:
    categories:
      S1: {category: STATEMENT_CATEGORY_SCAMS_AND_FRAUD}
"""
# The example of the database's documentation, word for word.
OFFICIAL = {
    "decision_visibility": ["DECISION_VISIBILITY_CONTENT_DISABLED"],
    "decision_monetary": "DECISION_MONETARY_TERMINATION",
    "end_date_monetary_restriction": "2023-08-08",
    "decision_provision": "DECISION_PROVISION_TOTAL_SUSPENSION",
    "decision_account": "DECISION_ACCOUNT_SUSPENDED",
    "account_type": "ACCOUNT_TYPE_BUSINESS",
    "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
    "decision_ground_reference_url": "https://www.anurl.com",
    "content_type": ["CONTENT_TYPE_VIDEO", "CONTENT_TYPE_AUDIO", "CONTENT_TYPE_SYNTHETIC_MEDIA"],
    "category": "STATEMENT_CATEGORY_CYBER_VIOLENCE_AGAINST_WOMEN",
    "illegal_content_legal_ground": "illegal content legal grounds",
    "illegal_content_explanation": "illegal content explanation",
    "incompatible_content_ground": "incompatible content grounds",
    "incompatible_content_explanation": "incompatible content explanation",
    "incompatible_content_illegal": "Yes",
    "territorial_scope": ["PT", "ES", "DE"],
    "content_language": "EN",
    "content_date": "2023-08-08",
    "content_id": {"EAN-13": "0123456789123"},
    "application_date": "2023-08-08",
    "decision_facts": "facts about the decision",
    "source_type": "SOURCE_TRUSTED_FLAGGER",
    "automated_detection": "No",
    "automated_decision": "AUTOMATED_DECISION_PARTIALLY",
    "puid": "TK421",
}


def violating(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any field's value
    verdict = make_verdict(decision="violates", category="S1")
    for path, value in changes.items():
        part, _, field = path.partition("__")
        if field:
            verdict[part][field] = value
        else:
            verdict[part] = value
    return verdict


def statements(mapping: str = MAPPING) -> Statements:
    return Statements(mapping.encode(), "dsa.yaml")


def test_the_schema_takes_the_official_example_and_nothing_less() -> None:
    Draft202012Validator.check_schema(statement_schema())
    assert list(SCHEMA.iter_errors(OFFICIAL)) == []
    for name in (
        *("decision_ground", "content_type", "category", "content_date", "application_date"),
        *("decision_facts", "source_type", "automated_detection", "automated_decision", "puid"),
        *("incompatible_content_ground", "incompatible_content_explanation"),
    ):
        assert not SCHEMA.is_valid({k: v for k, v in OFFICIAL.items() if k != name}), name
    restrictions = ("visibility", "monetary", "provision", "account")
    none = {k: v for k, v in OFFICIAL.items() if k not in {f"decision_{n}" for n in restrictions}}
    assert not SCHEMA.is_valid(none)
    for change in (
        {"puid": "with space"},
        {"content_date": "1999-12-31"},
        {"application_date": "2023-13-01"},
        {"category": "STATEMENT_CATEGORY_PORNOGRAPHY_OR_SEXUALIZED_CONTENT"},
        {"decision_visibility": "DECISION_VISIBILITY_CONTENT_DISABLED"},
        {"decision_visibility": ["DECISION_VISIBILITY_OTHER"]},
        {"decision_monetary": "DECISION_MONETARY_OTHER"},
        {"content_type": ["CONTENT_TYPE_OTHER"]},
        {"territorial_scope": ["US"]},
        {"decision_facts": "x" * 5_001},
        {"surprise": 1},
    ):
        assert not SCHEMA.is_valid(OFFICIAL | change), change


def test_a_violating_verdict_becomes_a_valid_statement() -> None:
    verdict = violating(content__language="de-AT", timing__event=1_699_999_999_999)
    made = statements().make(verdict)
    assert made is not None
    SCHEMA.validate(made)
    assert made["puid"] == verdict["id"]
    assert made["category"] == "STATEMENT_CATEGORY_SCAMS_AND_FRAUD"
    assert made["decision_visibility"] == ["DECISION_VISIBILITY_CONTENT_REMOVED"]
    assert (made["content_date"], made["application_date"]) == ("2023-11-14", "2023-11-14")
    assert made["content_language"] == "DE"
    assert made["territorial_scope"] == list(EU)
    assert made["automated_detection"] == "Yes"
    assert "policy spam" in made["decision_facts"]
    assert {"IS", "LI", "NO"} == set(EEA) - set(EU)


def test_words_of_a_post_come_in_only_where_the_mapping_asks_for_them() -> None:
    verdict = violating(policy__rationale="Call {policy} at 555 0100")
    plain = statements().make(verdict)
    assert plain is not None
    assert b"555" not in orjson.dumps(plain)
    asked = statements(MAPPING + "    fields: {decision_facts: '{rationale}'}\n").make(verdict)
    assert asked is not None
    assert asked["decision_facts"] == "Call {policy} at 555 0100", (
        "what is put in is not read again"
    )


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        (violating(policy__id="other"), "policies: no entry 'other'"),
        (violating(action="demote"), "actions: no entry 'demote'"),
        (violating(policy__category="S2"), "policies.spam: no entry categories.S2"),
        (violating(policy__category=None), "policies.spam: no entry no_category"),
        (violating(timing__event=10**18), "is out of range"),
        (violating(timing__event=0), "content_date: '1970-01-01' does not match"),
    ],
)
def test_what_cannot_be_mapped_is_an_error_line(verdict: dict[str, Any], says: str) -> None:
    with pytest.raises(UnmappableError, match=says.replace(".", r"\.")):
        statements().make(verdict)
    made = export(statements(), [verdict])
    assert (made.statements, made.not_owed) == ([], 0)
    assert made.errors[0]["verdict_id"] == verdict["id"]
    assert says in made.errors[0]["error"]


def test_each_violating_verdict_is_somewhere_and_no_other_is() -> None:
    good = violating()
    wanted = [
        good,
        good,  # a repeat has the same id
        {**violating(action="review"), "id": "1" * 32},
        {**violating(action="demote"), "id": "2" * 32},
        {**violating(provenance__route_mode="shadow"), "id": "3" * 32},
        {**make_verdict(decision="safe"), "id": "4" * 32},
    ]
    made = export(statements(), wanted)
    assert [one["puid"] for one in made.statements] == [good["id"]]
    assert [one["verdict_id"] for one in made.errors] == ["2" * 32]
    assert made.not_owed == 1


def by_person(decision: str, supersedes: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the verdict of a person about an earlier one, in the shape that is published."""
    made = violating(
        id=f"{number:032x}",
        supersedes=supersedes["id"],
        decision=decision,
        action="remove" if decision == "violates" else "none",
        needs_review=False,
        provenance__tier="human",
        provenance__model="person",
        timing__event=1_800_000_000_000,  # when the person decided
    )
    made["policy"]["category"] = "S1" if decision == "violates" else None
    return made


def test_a_post_that_is_left_to_people_has_a_statement_once_a_person_has_decided() -> None:
    left = {**make_verdict(decision="undetermined"), "needs_review": True, "action": "review"}
    waiting = export(statements(), [left])
    assert (waiting.statements, waiting.errors, waiting.undecided) == ([], [], 1)
    decided = export(statements(), [by_person("violates", left, 1), left])
    (statement,) = decided.statements
    assert decided.undecided == 0
    SCHEMA.validate(statement)
    # The mapping says fully; a person took part.
    assert statement["automated_decision"] == "AUTOMATED_DECISION_PARTIALLY"
    assert "A person reviewed it" in statement["decision_facts"]
    assert statement["content_date"] == "2023-11-14"
    cleared = export(statements(), [left, by_person("safe", left, 1)])
    assert (cleared.statements, cleared.not_owed, cleared.undecided) == ([], 0, 0)


def test_a_verdict_that_a_person_confirms_has_one_statement_and_one_that_is_overruled_keeps_it() -> (
    None
):
    machine = violating()
    confirmed = export(statements(), [by_person("violates", machine, 1), machine])
    assert [one["puid"] for one in confirmed.statements] == [machine["id"]]
    assert confirmed.not_owed == 1
    assert confirmed.statements[0]["automated_decision"] == "AUTOMATED_DECISION_FULLY"
    overruled = export(statements(), [machine, by_person("safe", machine, 1)])
    assert [one["puid"] for one in overruled.statements] == [machine["id"]]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            "defaults: {colour: red}\nactions: {}\npolicies: {}\n",
            "dsa.yaml:1: defaults.colour: not a field",
        ),
        ("defaults: {puid: x}\nactions: {}\npolicies: {}\n", "this field comes from the verdict"),
        ("defaults: {territorial_scope: US}\nactions: {}\npolicies: {}\n", "'US' is not one of"),
        (MAPPING.replace("SCAMS_AND_FRAUD", "SCAMS"), "policies.spam.categories.S1.category"),
        ("actions: {}\n", "policies"),
        ("- a list\n", "must be a mapping"),
        ("a: [\n", "dsa.yaml"),
    ],
)
def test_a_mapping_that_the_database_would_not_take_is_refused_with_its_line(
    wrong: str, says: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        statements(wrong)
    assert says in str(caught.value)


def test_the_example_maps_every_category_of_the_shipped_policies() -> None:
    file = ROOT / "examples/dsa-mapping.yaml"
    mapped = Statements(file.read_bytes(), str(file))
    for policy in load_policies(ROOT / "policies").policies.values():
        for category in policy.taxonomy.categories:
            if category.violates:
                verdict = violating(policy__id=policy.id, policy__category=category.code)
                assert mapped.make({**verdict, "action": "remove"})


def test_the_command_writes_statements_and_errors_apart(tmp_path: Path) -> None:
    mapping, source = tmp_path / "dsa.yaml", tmp_path / "verdicts.jsonl"
    mapping.write_text(MAPPING)
    verdicts = [violating(), {**violating(policy__category="S9"), "id": "5" * 32}]
    source.write_bytes(b"\n".join(map(orjson.dumps, verdicts)))
    out, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    arguments = ["export", "dsa", "-m", str(mapping), "-i", str(source), "-o", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--errors", str(errors)])
    assert result.exit_code == 2
    assert "1 statement; 1 verdict could not be mapped" in result.stderr
    SCHEMA.validate(orjson.loads(out.read_bytes()))
    assert orjson.loads(errors.read_bytes())["verdict_id"] == "5" * 32
    source.write_bytes(orjson.dumps(verdicts[0]))
    kept = CliRunner().invoke(app, arguments)
    assert "the file exists" in str(kept.exception)
    assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 0
    for change, says in (
        (["-m", "/nowhere.yaml"], "--mapping /nowhere.yaml: No such file"),
        (["-i", "/nowhere.jsonl"], "--input /nowhere.jsonl: cannot be read (No such file"),
        (["-i", str(mapping)], "dsa.yaml:1: not a verdict"),
        (["-o", "/nowhere/out"], "--output /nowhere/out: there is no folder /nowhere; create it"),
        (["-o", str(tmp_path)], f"--output {tmp_path}: is a folder; name a file"),
        (["-o", str(source)], "--input and --output name one file"),
        (["--errors", str(out)], "--output and --errors name one file"),
    ):
        result = CliRunner().invoke(app, [*arguments, "--force", *change])
        assert says in str(result.exception)
        assert getattr(result.exception, "exit_code", None) == 2


def test_a_policy_that_removes_as_the_guide_shows_yields_valid_statements(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guides" / "audit.md").read_text()
    shown = page.partition("```yaml\n# policy.yaml\n")[2].partition("```")[0]
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    folder = tmp_path / "policies" / "dangerous-content"
    mapping = Statements((ROOT / "examples" / "dsa-mapping.yaml").read_bytes(), "dsa.yaml")
    found = []
    for _ in range(2):
        policy = load_policies(tmp_path / "policies").policies["dangerous-content"]
        verdict = violating(
            action=recommended_action(Answer("violates", "DC1"), policy),
            policy__id=policy.id,
            policy__category="DC1",
        )
        found.append(export(mapping, [verdict]))
        (folder / "policy.yaml").write_text(shown)
    assert (found[0].statements, found[0].not_owed) == ([], 1)
    [statement] = found[1].statements
    SCHEMA.validate(statement)
    assert statement["decision_visibility"] == ["DECISION_VISIBILITY_CONTENT_REMOVED"]
