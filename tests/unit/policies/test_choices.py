"""The answers that a text offers: what each means, and what is no answer."""

from __future__ import annotations

import pytest

from stream_guard.policies.answer_format import infer_format
from stream_guard.policies.lint import lint_policy
from stream_guard.policies.policy import make_policy
from stream_guard.policies.taxonomy import infer_taxonomy


def outcomes(text: str) -> dict[str, str]:
    """Return the decision of each label of a text."""
    return {outcome.word: outcome.decision for outcome in infer_taxonomy(text).outcomes}


@pytest.mark.parametrize(
    ("text", "violates", "safe"),
    [
        ("Return 1 if the post violates this policy, otherwise 0.", "1", "0"),
        ("Return `1` if the content violates this policy, `0` if it does not.", "1", "0"),
        ("Return 0 if the post violates this policy, else 1.", "0", "1"),
        ("If the post violates the policy, return 0. Otherwise return 1.", "0", "1"),
        ("Return 1 unless the post violates these rules; in that case return 0.", "0", "1"),
        ("Output only 0 or 1.\n- 1: the post is acceptable\n- 0: the post violates", "0", "1"),
        ('Answer "Yes" if it is suitable, "No" if it is not suitable.', "No", "Yes"),
        ("Answer yes if it is appropriate for children and no if it is not.", "no", "yes"),
        ("Return false when the post is inappropriate, true otherwise.", "false", "true"),
        ('Return {"flagged": false} when acceptable, {"flagged": true} else.', "true", "false"),
        (
            'Return {"safe": true} if the post is fine, {"safe": false} if it is not.',
            "false",
            "true",
        ),
        # The law is not the policy, so nothing is clear, and custom decides.
        ("Return 1 if the post is allowed by law but violates our policy, otherwise 0.", "1", "0"),
    ],
)
def test_conditions_decide_what_a_word_means(text: str, violates: str, safe: str) -> None:
    taxonomy = infer_taxonomy(f"# Rules\n\n{text}\n")
    assert (taxonomy.violates_label, taxonomy.safe_label) == (violates, safe)


@pytest.mark.parametrize(
    ("text", "violating", "safe"),
    [
        ("Return approve or reject.", {"reject"}, {"approve"}),
        ("Respond with exactly one word: Violating or Non-violating.", {"Violating"}, {"Non-violating"}),
        ("Use one of these labels: toxic, threat, insult, none.", {"toxic", "threat", "insult"}, {"none"}),
        ("Output one of ALLOW / LABEL / REMOVE.", {"LABEL", "REMOVE"}, {"ALLOW"}),
        ("Decide whether the comment is TOXIC or NOT_TOXIC.", {"TOXIC"}, {"NOT_TOXIC"}),
        ("Output: `fraud`, `not_fraud` or `needs_info`.", {"fraud"}, {"not_fraud"}),
        ("Classify it as fraud / legitimate / uncertain.", {"fraud"}, {"legitimate"}),
        ('The decision must be:\n- `"denied"` if a category applies.\n- `"allow"` otherwise.', {"denied"}, {"allow"}),
        ("Answer HARASS-1, HARASS-2 or NONE.", {"HARASS-1", "HARASS-2"}, {"NONE"}),
        ("Label it as follows:\n- `Spam`: x\n- `Phishing`: y\n- `Normal`: allowed", {"Spam", "Phishing"}, {"Normal"}),
        ("Responda com VIOLA ou PERMITIDO.", {"VIOLA"}, {"PERMITIDO"}),
        ("Odpowiedz jednym słowem: NARUSZA albo DOZWOLONE.", {"NARUSZA"}, {"DOZWOLONE"}),
        ("投稿が違反なら「違反」、そうでなければ「問題なし」と答えてください。", {"違反"}, {"問題なし"}),
        ('أجب بكلمة "مخالف" أو "مسموح" فقط.', {"مخالف"}, {"مسموح"}),
    ],
)  # fmt: skip
def test_lists_of_labels_are_read_whole(text: str, violating: set[str], safe: set[str]) -> None:
    found = outcomes(f"# Rules\n\n{text}\n")
    assert {word for word, decision in found.items() if decision == "violates"} == violating
    assert {word for word, decision in found.items() if decision == "safe"} == safe


@pytest.mark.parametrize(
    "text",
    [
        "Label posts as SPAM, ADS or NSFW.",  # none of them is known to be safe
        "Answer in ENGLISH or GERMAN.",
        "Return the result as JSON or YAML.",
        "Answer for users in FRANCE, SPAIN or ITALY.",
        "Rate it from 1 to 5.\n1 = dull\n2 = fair\n3 = good",  # nothing says what violates
    ],
)
def test_what_is_no_list_of_labels(text: str) -> None:
    assert outcomes(f"# Rules\n\n{text}\n") == {"violates": "violates", "safe": "safe"}


def test_a_scale_says_from_where_on_it_violates() -> None:
    text = (
        "Give a risk score from 1 to 5.\n1 = benign\n2 = low\n3 = medium, send to human review\n"
        "4 = high, remove\n5 = critical"
    )
    decisions = {
        "1": "safe",
        "2": "violates",
        "3": "undetermined",
        "4": "violates",
        "5": "violates",
    }
    assert outcomes(f"# Risk\n\n{text}\n") == decisions


def test_a_label_of_unknown_meaning_is_reported() -> None:
    policy = make_policy("abuse", b"# Abuse\n\nAnswer with one of: SPAM, SATIRE, NONE.\n")
    found = [finding for finding in lint_policy(policy) if finding.code == "SG125"]
    assert [finding.message for finding in found] == [
        "the text does not say whether SATIRE violates; it counts as violating"
    ]


def test_listed_codes_are_the_answers_of_a_native_policy() -> None:
    text = (
        "# Nudity\n\n- **N0**: allowed\n- **N1**: forbidden\n\nReply with N0 or N1, nothing else.\n"
    )
    found = infer_format(text, infer_taxonomy(text))
    assert not isinstance(found, str)
    assert (found.kind, set(found.choices)) == ("codes", {"N0", "N1"})


def test_the_acronym_of_the_title_is_no_category_beside_its_own_codes() -> None:
    text = "# Drugs (DRG)\n\n## Violating (DRG1)\n\n## Not violating (DRG0)\n"
    assert [category.code for category in infer_taxonomy(text).categories] == ["DRG1", "DRG0"]


def test_codes_in_brackets_after_the_names_of_items_are_categories() -> None:
    text = (
        "# Rules\n\n## Categories\n\n- hate (H): hatred\n- hate/threatening (H2): threats as well\n"
    )
    found = [(category.code, category.title) for category in infer_taxonomy(text).categories]
    assert found == [("H", "hate"), ("H2", "hate/threatening")]


def test_a_row_for_everything_else_is_safe() -> None:
    text = "# R\n\n| Label | Meaning |\n|---|---|\n| HARM | must be removed |\n| OTHER | everything else |\n"
    found = {category.code: category.violates for category in infer_taxonomy(text).categories}
    assert found == {"HARM": True, "OTHER": False}


@pytest.mark.parametrize(
    "text",
    [
        "**SC1 - Solicitation**: x\n**Grooming**: y\n**SC2 - Nudity**: z\n",
        "1. **Weapons (WPN)** - x\n2. **Drugs (DRG)** - y\n3. **Tobacco** - z\n",
        "- M1: x\n- M2: y\n- Deepfakes\n",
        "1. M1: x\n2. M2: y\n3. Deepfakes\n",
    ],
)
def test_an_item_without_a_code_beside_items_with_codes_leaves_the_category_open(text: str) -> None:
    taxonomy = infer_taxonomy(f"# Rules\n\nAnswer VIOLATES or SAFE.\n\n{text}")
    assert len(taxonomy.categories) == 2
    assert not taxonomy.complete


def test_a_note_beside_items_with_codes_is_no_category() -> None:
    text = (
        "**SC1 - Solicitation**: x\n**Note**: read on\n**Exceptions**: art\n**SC2 - Nudity**: z\n"
    )
    assert infer_taxonomy(f"# Rules\n\nAnswer VIOLATES or SAFE.\n\n{text}").complete
