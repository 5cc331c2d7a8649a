"""Policies load from disk whole, or are refused with file, line and remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stream_guard.core.errors import PolicyError
from stream_guard.policies.policy import POLICY_BYTES_MAX
from stream_guard.policies.rules.compile import BANK_BYTES_MAX
from stream_guard.policies.store import (
    POLICIES_MAX,
    load_policies,
    load_policy,
    read_policy_folder,
)
from stream_guard.policies.yaml_document import YAML_BYTES_MAX, YAML_VALUES_MAX
from tests.hang import HANG_S

SHIPPED = Path(__file__).parents[3] / "policies"


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        load_policies(folder)
    return str(caught.value)


def test_shipped_policies_route_the_demo_topics() -> None:
    policies = load_policies(SHIPPED)
    routed = {t: [p.id for p in policies.route(t)] for t in ("forum.posts", "chat.messages", "any")}
    assert routed == {
        "forum.posts": ["age-restricted-goods-and-services"],
        "chat.messages": ["dangerous-content", "age-restricted-goods-and-services"],
        "any": ["age-restricted-goods-and-services", "dangerous-content"],
    }


def test_effort_and_budget_reach_every_policy() -> None:
    policies = load_policies(SHIPPED, effort="high", reasoning_tokens_max=99)
    assert {(p.effort, p.reasoning_tokens_max) for p in policies.policies.values()} == {
        ("high", 99)
    }


def test_version_follows_the_bytes(tmp_path: Path) -> None:
    first = load_policies(write(tmp_path, {"spam/policy.md": "No spam."})).policies["spam"]
    second = load_policies(write(tmp_path, {"spam/policy.md": "No spam!"})).policies["spam"]
    assert first.version == first.sha256[:12]
    assert first.version != second.version


def test_single_policy_without_routes_is_the_default(tmp_path: Path) -> None:
    policies = load_policies(write(tmp_path, {"spam/policy.md": "No spam."}))
    assert [p.id for p in policies.route("anything")] == ["spam"]


def test_files_of_other_names_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    write(
        tmp_path, {"spam/policy.md": "No spam.", "README.md": "x", ".git/a": "x", "_draft/b": "x"}
    )
    assert list(load_policies(tmp_path).policies) == ["spam"]


def test_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    policy = load_policies(write(tmp_path, {"spam/policy.md": b"\xef\xbb\xbfNo spam."})).policies[
        "spam"
    ]
    assert policy.text == "No spam."


ONE = {"spam/policy.md": "No spam."}


@pytest.mark.parametrize(
    ("files", "file", "wanted"),
    [
        ({}, "", "no policies; write one"),
        (
            {"spam/policy.md": "a\n\xff".encode("latin-1")},
            "spam/policy.md:2",
            "save the file as UTF-8",
        ),
        ({"spam/policy.md": "\n \n"}, "spam/policy.md", "empty; write the policy"),
        ({"spam/policy.md": "a\n\0"}, "spam/policy.md:2", "NUL"),
        ({"spam/policy.md": "a" * 5_000_000}, "spam/policy.md", f"over {POLICY_BYTES_MAX:,} bytes"),
        ({"spam/policy.md": "a\nb <|end|>"}, "spam/policy.md:2", "SG113: a control token"),
        ({"spam/notes.txt": "a"}, "spam", "policy.md is missing"),
        ({"sp am/policy.md": "a"}, "sp am", "rename the folder"),
        ({"spam/policy.md": "a", "Spam/policy.md": "b"}, "", "differ only in case"),
        ({**ONE, "rude/policy.md": "b"}, "routes.yaml", "name the policies of each topic"),
        (
            {**ONE, "routes.yaml": "topics:\n  a: [spam]\ndefault: [spma]"},
            "routes.yaml:3",
            "no policy 'spma'",
        ),
        (
            {**ONE, "routes.yaml": "topics:\n  a:\n    - spam\n    - lies"},
            "routes.yaml:4",
            "no policy 'lies'",
        ),
        (
            {**ONE, "routes.yaml": "default: [spam, spam]"},
            "routes.yaml:1",
            "duplicate policy 'spam'",
        ),
        (
            {**ONE, "routes.yaml": "topics:\n  a: [spam]\n  a: [spam]"},
            "routes.yaml:3",
            "duplicate key 'a'",
        ),
        ({**ONE, "routes.yaml": "default: [spam\ntopics: {}"}, "routes.yaml:2", "not valid YAML"),
        ({**ONE, "routes.yaml": "default: [spam]\ntopic: {}"}, "routes.yaml:2", "unknown key"),
        ({**ONE, "routes.yaml": "default: spam"}, "routes.yaml:1", "valid list"),
        ({**ONE, "routes.yaml": "default: []"}, "routes.yaml:1", "at least 1 item"),
        ({**ONE, "routes.yaml": "default:\n  - no"}, "routes.yaml:2", "put it in quotes"),
        ({**ONE, "routes.yaml": "topics:\n  1: [spam]"}, "routes.yaml:2", "put it in quotes"),
        ({**ONE, "routes.yaml": "topics:\n  'a b': [spam]"}, "routes.yaml:2", "not a topic's name"),
        ({**ONE, "routes.yaml": ""}, "routes.yaml:1", "must be a mapping"),
        ({**ONE, "routes.yaml": "topics: {}"}, "routes.yaml:1", "no routes"),
        ({**ONE, "routes.yaml": b"default: [spam]\n# \xff"}, "routes.yaml:2", "not UTF-8"),
        (
            {**ONE, "routes.yaml": "default: [spam]\n# \x01"},
            "routes.yaml:2",
            "U+0001, which YAML forbids",
        ),
        ({**ONE, "routes.yaml": "default: &a [spam]\ntopics: {x: *a}"}, "routes.yaml:2", "aliases"),
        ({**ONE, "routes.yaml": "default: !!python/name:os.system x"}, "routes.yaml:1", "tags"),
        ({**ONE, "routes.yaml": "default: " + "[" * 50_000}, "routes.yaml:1", "nested deeper"),
        ({**ONE, "routes.yaml": "? [a]\n: b"}, "routes.yaml:1", "key must be plain text"),
        ({**ONE, "routes.yaml": "default: [spam]\nx: 2024-99-99"}, "routes.yaml:2", "quote it"),
        ({**ONE, "routes.yaml": "#" * (YAML_BYTES_MAX + 1)}, "routes.yaml", "over 1,048,576 bytes"),
        (
            {**ONE, "routes.yaml": "default: [" + "a," * YAML_VALUES_MAX + "]"},
            "routes.yaml:1",
            "over 20,000 keys and values",
        ),
    ],
)
def test_bad_input_is_named_with_its_place_and_remedy(
    tmp_path: Path, files: dict[str, str | bytes], file: str, wanted: str
) -> None:
    message = refusal(write(tmp_path, files))
    assert message.startswith(str(tmp_path / file))
    assert wanted in message


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    assert re.search(
        r"nowhere: no such folder; give the folder that contains", refusal(tmp_path / "nowhere")
    )


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"file": "x"})
    assert "file: a file; set policies.path" in refusal(tmp_path / "file")


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"spam/policy.md/x": "x"})
    assert "policy.md: a directory; only regular files are read" in refusal(tmp_path)


NAMES = ["routes.yaml", *(f"spam/{n}" for n in ("policy.md", "policy.yaml", "calibration.json"))]
NAMES += ["spam/rules.yaml", "spam/shops.txt"]
RULES = "rules:\n  - {id: one, outcome: safe, terms_files: [shops.txt]}\n"
LOAD = """
import sys
from pathlib import Path
from stream_guard.policies.store import load_policies
try:
    load_policies(Path(sys.argv[1]))
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_named_pipe_is_refused_without_waiting_for_a_writer(
    tmp_path: Path, name: str, *, linked: bool
) -> None:
    folder = write(tmp_path / "policies", {**ONE, "spam/rules.yaml": RULES})
    file = folder / name
    file.unlink(missing_ok=True)
    os.mkfifo(folder / "_pipe" if linked else file)
    if linked:
        file.symlink_to(folder / "_pipe")
    # A process of its own, because a read that blocks cannot be ended from within.
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_S,
    )
    assert done.stdout.startswith(
        f"{file}: a named pipe (FIFO); only regular files are read: replace it"
    )


@pytest.mark.parametrize("name", NAMES)
def test_link_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "policies", {**ONE, "spam/rules.yaml": RULES})
    secret = tmp_path / "secret"
    secret.write_text("default: [spam]\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    message = refusal(folder)
    assert message.startswith(f"{folder / name}: a link to {secret}, which is outside")
    assert "replace the link with a copy" in message


def test_folder_of_a_policy_that_leads_out_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", ONE)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "spam").symlink_to(tmp_path / "elsewhere" / "spam")
    assert "which is outside the policies folder" in refusal(tmp_path / "policies")


def test_links_of_a_config_map_are_followed(tmp_path: Path) -> None:
    """The mount of a whole set, and the mount of each policy's own ConfigMap."""
    write(tmp_path / "set" / "..2024", ONE)
    (tmp_path / "set" / "..data").symlink_to("..2024")
    (tmp_path / "set" / "spam").symlink_to("..data/spam")
    write(tmp_path / "each" / "spam" / "..2024", {"policy.md": "No spam."})
    (tmp_path / "each" / "spam" / "..data").symlink_to("..2024")
    (tmp_path / "each" / "spam" / "policy.md").symlink_to("..data/policy.md")
    for name in ("set", "each"):
        (tmp_path / "linked").unlink(missing_ok=True)
        (tmp_path / "linked").symlink_to(name)
        for folder in (tmp_path / name, tmp_path / "linked"):
            assert load_policies(folder).policies["spam"].text == "No spam."


def test_one_policy_alone_is_read_by_the_same_rules(tmp_path: Path) -> None:
    folder = write(tmp_path / "policies", {**ONE, "secret": "x"})
    (folder / "spam" / "policy.yaml").symlink_to("/etc/hostname")
    with pytest.raises(PolicyError, match="outside the policies folder"):
        load_policy(folder / "spam")
    with pytest.raises(PolicyError, match="outside the policies folder"):
        read_policy_folder(folder / "spam", "other")


@pytest.mark.parametrize("name", NAMES)
def test_size_is_checked_before_reading(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, {**ONE, "spam/rules.yaml": RULES})
    with (folder / name).open("wb") as file:
        file.truncate(10 * 1_073_741_824)  # takes no space on the disk
    message = refusal(folder)
    assert message.startswith(f"{folder / name}: 10,737,418,240 bytes, over ")


def test_files_of_terms_have_a_limit_together(tmp_path: Path) -> None:
    names = [f"t{number}.txt" for number in range(3)]
    folder = write(
        tmp_path,
        {**ONE, "spam/rules.yaml": RULES.replace("shops.txt", ", ".join(names))},
    )
    for name in names:
        with (folder / "spam" / name).open("wb") as file:
            file.truncate(BANK_BYTES_MAX)
    assert "names files of more than 67,108,864 bytes together" in refusal(folder)


def test_too_many_policies_are_refused(tmp_path: Path) -> None:
    for number in range(POLICIES_MAX + 1):
        (tmp_path / f"p{number}").mkdir()
    assert f"over the limit of {POLICIES_MAX}" in refusal(tmp_path)


def test_every_fault_of_the_routes_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, {**ONE, "routes.yaml": "defualt: [spam]\ntopics: 3"})
    assert len(refusal(tmp_path).splitlines()) == 2


def test_topic_without_route_or_default_is_refused(tmp_path: Path) -> None:
    policies = load_policies(write(tmp_path, {**ONE, "routes.yaml": "topics: {a: [spam]}"}))
    with pytest.raises(PolicyError, match="no route and there is no default"):
        policies.route("b")


@pytest.mark.parametrize("module", ["store", "reload", "lint.output", "diff"])
def test_importing_policies_pulls_in_no_broker_engine_or_telemetry(module: str) -> None:
    code = (
        f"import sys, stream_guard.policies.{module}; "
        "print([m for m in ('aiokafka', 'vllm', 'torch', 'opentelemetry') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
