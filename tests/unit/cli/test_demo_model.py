"""The demo model as it is shipped, its card, and the policies of the demo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from stream_guard.cli.demo import MODEL, POLICIES
from stream_guard.cli.demo.posts import CHAT, EDIT, FORUM, demo_posts
from stream_guard.judging.families.harmony.prompt import TEMPLATE_SHA256
from stream_guard.policies.lint import lint_policies
from stream_guard.policies.store import load_policies
from tools.demo_model.card import CARD, checksums, parts, write_card

ROOT = Path(__file__).resolve().parents[3]
BYTES_MAX = 8_000_000


def test_the_model_is_small_and_of_the_architecture_that_vllm_knows() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= BYTES_MAX
    config = json.loads((MODEL / "config.json").read_text())
    assert config["architectures"] == ["GptOssForCausalLM"]
    with safe_open(MODEL / "model.safetensors", "np") as weights:
        shapes = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 - no mapping
        assert {part.get_dtype() for part in shapes.values()} == {"BF16"}
        count = 0
        for part in shapes.values():
            size = 1
            for length in part.get_shape():
                size *= length
            count += size
    assert 1_000_000 <= count <= 3_000_000


def test_the_card_tells_of_the_files_that_are_there_and_of_the_prompt_that_is_used() -> None:
    card = (MODEL / CARD).read_text()
    assert checksums(MODEL) in card, "the model changed and its card did not: make demo-model"
    assert TEMPLATE_SHA256 in card, "the prompt's template changed: make demo-model trains anew"
    assert "It is no moderation model" in card
    assert "## What it gets wrong" in card


def measured(**changes: float) -> dict[str, Any]:
    values = {
        "accuracy": 0.97,
        "accuracy: structured": 0.97,
        "accuracy: native": 0.96,
        "flips right (both of a pair): structured": 0.93,
        "flips right (both of a pair): native": 0.92,
        "rule id right, of violations (structured)": 0.94,
        "escalations right": 0.9,
        "posts in a thread right": 0.95,
        "parse failures": 0.0,
        "baseline always safe: accuracy": 0.5,
        "baseline words alone: accuracy": 0.6,
        "output tokens: effort low": 40.0,
        **changes,
    }
    figures = [
        {"name": name, "value": value, "low": 0.4, "high": 0.99, "count": 200}
        for name, value in values.items()
    ]
    wrong = {
        "post": "a kettle",
        "policy": "# P",
        "effort": "low",
        "kind": "forbidden",
        "right": "violates",
        "answer": "native",
        "thread": ["a kettle"],
        "rule_id": "AB1.a",
        "decision": "safe",
        "rule_ids": [],
        "rationale": "Nothing that a rule names.",
    }
    return {"seed": 1, "policies": 25, "figures": figures, "wrong": [wrong]}


MADE = {"steps": 10, "tokens": 2_000_000, "spent_s": 3_600.0, "processes": 2, "weights": 1_500_000}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 1_000)
    return tmp_path


def test_a_card_has_the_figures_the_errors_and_the_checksums(folder: Path) -> None:
    write_card(folder, measured(), MADE)
    card = (folder / CARD).read_text()
    assert "| accuracy: native | 96.0 % | 40.0 to 99.0 | 200 | at least 95 % |" in card
    assert "Every target is reached." in card
    shown = (
        '"a kettle" (in a thread): right was violates by `AB1.a` (forbidden, native), it said safe'
    )
    assert shown in card
    assert "From nothing but the seed" in card
    assert "40 at low" in card
    assert [path.name for path in parts(folder)] == ["config.json", "model.safetensors"]
    assert checksums(folder) in card


def test_a_card_says_which_target_was_missed(folder: Path) -> None:
    write_card(folder, measured(**{"escalations right": 0.8}), MADE | {"started": True})
    card = (folder / CARD).read_text()
    assert "**Target missed:** escalations right is 0.8000, and has to be at least 0.85" in card
    assert "It began with the weights" in card
    assert "Every target" not in card


def test_a_card_sets_another_model_of_the_same_command_beside(folder: Path) -> None:
    within = {"accuracy": 0.95, "parse failures": 0.5, "output tokens: effort low": 60.0}
    write_card(folder, measured(), MADE, again=measured(**within))
    card = (folder / CARD).read_text()
    assert "each within its interval above: accuracy 95.0 %" in card
    assert "60 at low" in card
    write_card(folder, measured(), MADE, again=measured(**within | {"accuracy": 0.39}))
    card = (folder / CARD).read_text()
    assert "outside the intervals above: accuracy: accuracy 39.0 %" in card
    assert "each within" not in card


def test_the_demos_policies_have_no_errors_and_judge_its_topics() -> None:
    policies = load_policies(POLICIES)
    assert {topic: len(policies.route(topic)) for topic in (FORUM, CHAT)} == {FORUM: 1, CHAT: 2}
    assert {topic for topic, _, _ in demo_posts()} == {FORUM, CHAT}
    assert not [finding for finding in lint_policies(policies) if finding.severity == "error"]


def test_the_edit_changes_one_line_and_the_policys_version(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(POLICIES, folder)
    before = load_policies(folder)
    EDIT.apply(folder)
    after = load_policies(folder)
    changed = [slug for slug in before.policies if before.policies[slug] != after.policies[slug]]
    assert changed == [EDIT.policy]
    assert not list(folder.rglob("*.draft"))


def test_the_demo_model_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from stream_guard.settings import load_settings

    monkeypatch.setenv("STREAM_GUARD_ENGINE__MODEL", "demo")
    assert load_settings().engine.model == str(MODEL)
    assert (MODEL / "config.json").is_file()
