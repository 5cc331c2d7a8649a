"""An archive's entry rebuilds the policy, and shows when it was altered; what it cannot hold, it says."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
import pytest
from pydantic import ValidationError

from stream_guard.core.errors import EvidenceError, PolicyError, SettingsError
from stream_guard.judging.archive.archive import FolderArchive
from stream_guard.judging.archive.entry import EntryName, Judging, read_entry, write_entry
from stream_guard.judging.families.harmony.family import HARMONY
from stream_guard.kafka.bounds import Bound, read_bound
from stream_guard.policies.policy import Policy, make_policy
from stream_guard.settings import KafkaSettings, PoliciesSettings

if TYPE_CHECKING:
    from pathlib import Path

JUDGING = Judging("vllm", "a/model", "main", "7" * 64, "2025-01-01", "harmony")
TEMPLATE = HARMONY.template
TEXT = b"# Touting\n\nAnswer `VIOLATES` or `SAFE`.\n\n## Violates (TT1 - Price)\n\n- TT1.a asks too much\n"
RULES = {
    "rules.yaml": b"rules: [{id: one, outcome: violates, category: TT1, terms_files: [terms.txt]}]\n",
    "terms.txt": b"cheap tickets\n",
}


def a_policy() -> Policy:
    return make_policy("touting", TEXT, metadata=b"version: v7\neffort: medium\n", rules=RULES)


def test_an_entry_rebuilds_its_policy_and_is_the_same_each_time() -> None:
    policy = a_policy()
    name, content = write_entry(policy, JUDGING, TEMPLATE)
    assert write_entry(a_policy(), JUDGING, TEMPLATE) == (name, content)
    assert name.policy_sha256 == policy.sha256
    entry = read_entry(name, content, "here")
    assert entry.policy() == policy
    assert entry.judging == JUDGING
    assert "Reasoning: medium" in entry.messages["system"]["medium"]
    assert policy.text in entry.messages["developer"]


def test_another_model_or_date_is_another_entry_of_the_same_policy() -> None:
    first, _ = write_entry(a_policy(), JUDGING, TEMPLATE)
    second, _ = write_entry(a_policy(), replace(JUDGING, prompt_date="2026-01-01"), TEMPLATE)
    assert first.policy_sha256 == second.policy_sha256
    assert first.entry_sha256 != second.entry_sha256


def test_rule_files_too_large_are_kept_by_their_digests_and_the_policy_is_still_borne_out() -> None:
    name, content = write_entry(a_policy(), JUDGING, TEMPLATE, rules_bytes_max=10)
    entry = read_entry(name, content, "here")
    assert entry.left_out == {"terms.txt": hashlib.sha256(RULES["terms.txt"]).hexdigest()}
    assert b"rules.yaml" in content
    with pytest.raises(EvidenceError, match=r"without terms\.txt"):
        entry.policy()


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda d: d["files"].update({"terms.txt": ""}), "holds another policy"),
        (lambda d: d["files"].update({"policy.yaml": ""}), "holds another policy"),
        (lambda d: d.update(format="other"), "is not an entry"),
        (lambda d: d.pop("prompt"), "is not an entry"),
    ],
)
def test_an_entry_that_was_put_there_by_hand_is_refused(alter: object, says: str) -> None:
    name, content = write_entry(a_policy(), JUDGING, TEMPLATE)
    document = orjson.loads(content)
    assert callable(alter)
    alter(document)
    forged = orjson.dumps(document)
    with pytest.raises(EvidenceError, match="was altered after it was archived"):
        read_entry(name, forged, "here")
    renamed = EntryName(name.policy_sha256, hashlib.sha256(forged).hexdigest())
    with pytest.raises(EvidenceError, match=f"here: {says}"):
        read_entry(renamed, forged, "here")


async def test_a_folder_keeps_each_entry_once_and_does_not_write_over_an_altered_one(
    tmp_path: Path,
) -> None:
    archive = FolderArchive(tmp_path / "archive")
    name, content = write_entry(a_policy(), JUDGING, TEMPLATE)
    for _ in range(2):
        await archive.keep({name: content})
    (kept,) = await archive.load()
    assert (kept.name, kept.content) == (name, content)
    assert await archive.load(frozenset(["0" * 64])) == []
    (file,) = (tmp_path / "archive").rglob("*.json")
    file.chmod(0o644)
    file.write_bytes(b"{}")
    with pytest.raises(PolicyError, match="was altered after it was archived"):
        await archive.keep({name: content})
    assert file.read_bytes() == b"{}", "it is evidence"
    with pytest.raises(EvidenceError, match="is not a folder"):
        await FolderArchive(tmp_path / "elsewhere").load()


def test_names_are_two_digests() -> None:
    name = EntryName("a" * 64, "0" * 64)
    assert EntryName.parse(str(name)) == name
    for wrong in ("", "a/b", "a" * 64, f"{'a' * 64}/{'g' * 64}", f"{'a' * 64}/{'0' * 64}/x"):
        assert EntryName.parse(wrong) is None


def test_bounds_are_offsets_or_times() -> None:
    assert read_bound(None, "--from") is None
    assert read_bound("12", "--from") == Bound(offset=12)
    assert read_bound("2026-01-01T00:00:00Z", "--from") == Bound(time_ms=1_767_225_600_000)
    with pytest.raises(SettingsError, match="--from -3: neither an offset nor a time"):
        read_bound("-3", "--from")


@pytest.mark.parametrize(
    "topics",
    [
        {"reasoning_topic": "stream-guard.verdicts"},
        {"reasoning_topic": "stream-guard.dead-letters"},
        {"reasoning_topic": "shadows", "shadow_topic": "shadows"},
        {"reasoning_topic": "stream-guard.policies"},
        {"audit_topic": "stream-guard.verdicts"},
        {"audit_topic": "stream-guard.decisions"},
        {"topics": ["posts"], "audit_topic": "posts"},
        {"archive_topic": "stream-guard.verdicts"},
        {"topics": ["posts"], "archive_topic": "posts"},
        {"topics": ["posts"], "reasoning_topic": "posts"},
    ],
)
def test_what_few_may_read_has_a_topic_of_its_own(topics: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        KafkaSettings.model_validate(topics)


def test_a_folder_archive_needs_its_path() -> None:
    with pytest.raises(ValidationError, match="archive_path is required"):
        PoliciesSettings(archive="folder")
