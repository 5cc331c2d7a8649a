"""A policy's files are replaced in one step: a reader finds one whole version or the other, whatever happens."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from stream_guard.core.errors import PolicyError
from stream_guard.policies import replacing
from stream_guard.policies.drafts import draft_folder, golden_file, make_draft, read_draft, rebase
from stream_guard.policies.policy import make_policy
from stream_guard.policies.reload import read_whole
from stream_guard.policies.replacing import locked, staged
from stream_guard.policies.store import load_policies
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_guard.policies.policy import Policy

ONE = {"policy.md": b"# One\n", "policy.yaml": b"version: one\n"}
TWO = {"policy.md": b"# Two\n", "rules.yaml": b"rules: []\n"}


@pytest.fixture
def live(tmp_path: Path) -> Path:
    write(folder := tmp_path / "policies" / "spam", ONE)
    (folder / "notes.txt").write_text("the author's own")
    return folder


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "notes.txt"}


@pytest.mark.parametrize(
    "new",
    [
        TWO,
        ONE | {"policy.md": b"# Two\n"},
        {"policy.md": ONE["policy.md"]},
        ONE | {"terms.txt": b"one\n"},
    ],
)
def test_the_new_files_are_live_after_the_step_and_not_before(
    live: Path, new: dict[str, bytes]
) -> None:
    (live / "policy.md").chmod(0o640)
    with staged(live, ONE, new) as make_live:
        assert content(live) == ONE
        make_live()
    assert content(live) == new
    assert (live / "notes.txt").read_text() == "the author's own"
    assert (live / "policy.md").stat().st_mode & 0o777 == 0o640
    assert [each.name for each in live.parent.iterdir()] == ["spam"]


def test_an_error_before_the_step_changes_nothing(live: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged(live, ONE, TWO):
        raise ZeroDivisionError
    assert content(live) == ONE
    assert [each.name for each in live.parent.iterdir()] == ["spam"]


def test_a_reader_never_finds_half_of_two_versions(live: Path) -> None:
    seen: set[str] = set()
    over, reading = threading.Event(), threading.Semaphore(0)

    def follow() -> None:
        while not over.is_set():
            files = read_whole(live.parent)
            if files is not None:
                seen.add(files.sha256)
            reading.release()

    reader = threading.Thread(target=follow)
    versions = {load_policies(live.parent).sha256}
    reader.start()
    old, new = ONE, ONE | {"policy.md": b"# Two\n", "policy.yaml": b"version: two\n"}
    for _ in range(60):
        with staged(live, old, new) as make_live:
            make_live()
        # A reader reads until two readings agree. Two exchanges within both of them could make halves agree.
        while reading.acquire(blocking=False):
            pass
        assert reading.acquire(timeout=HANG_S)
        old, new = new, old
        versions.add(load_policies(live.parent).sha256)
    over.set()
    reader.join()
    assert len(versions) == 2
    assert seen <= versions


def test_a_file_system_that_cannot_exchange_folders_is_named_before_anything_happens(
    live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(replacing, "_exchange", refuse)
    with (
        pytest.raises(PolicyError, match="cannot be replaced in one step"),
        staged(live, ONE, TWO),
    ):
        raise AssertionError
    with staged(live, ONE, ONE | {"policy.md": b"# Two\n"}) as make_live:
        make_live()  # one file needs no exchange
    assert content(live)["policy.md"] == b"# Two\n"


def test_a_folder_that_something_else_manages_is_refused(live: Path) -> None:
    (link := live.parent / "link").symlink_to(live)
    with pytest.raises(PolicyError, match="is a link"), staged(link, ONE, TWO):
        pass


def test_two_promotions_at_once_are_refused(live: Path) -> None:
    with (
        locked(live.parent),
        pytest.raises(PolicyError, match="another process"),
        locked(live.parent),
    ):
        pass
    with locked(live.parent):
        pass


def loaded(live: Path) -> Policy:
    return load_policies(live.parent).policies["spam"]


def test_a_draft_begins_as_the_live_version_and_no_service_reads_it(live: Path) -> None:
    (live / "golden.csv").write_text("text,label\na,violates\n")
    (live / "policy.yaml").write_text("golden_set: golden.csv\n")
    before = load_policies(live.parent)
    folder, made = make_draft(live.parent, before.policies["spam"])
    assert made
    assert load_policies(live.parent) == before
    draft = read_draft(live.parent, "spam")
    assert (draft.policy, draft.base) == (before.policies["spam"], before.policies["spam"].sha256)
    # Every command reads the folder of drafts like any other, golden set included.
    assert load_policies(folder.parent).policies["spam"].sha256 == draft.policy.sha256
    (live / "golden.csv").write_text("text,label\nb,violates\n")
    assert (folder / "golden.csv").read_text() == "text,label\nb,violates\n"


def test_a_draft_is_kept_until_it_is_thrown_away(live: Path) -> None:
    with pytest.raises(PolicyError, match="there is no draft; make one"):
        read_draft(live.parent, "spam")
    with pytest.raises(PolicyError, match="there is no draft"):
        rebase(live.parent, loaded(live))
    folder, _ = make_draft(live.parent, loaded(live))
    (folder / "policy.md").write_text("# Edited\n")
    (live / "policy.md").write_text("# Changed\n")
    assert make_draft(live.parent, loaded(live)) == (folder, False)
    assert read_draft(live.parent, "spam").policy.text == "# Edited\n"
    assert read_draft(live.parent, "spam").base != loaded(live).sha256
    rebase(live.parent, loaded(live))
    assert read_draft(live.parent, "spam").base == loaded(live).sha256
    make_draft(live.parent, loaded(live), fresh=True)
    assert read_draft(live.parent, "spam").policy.text == "# Changed\n"
    assert [each.name for each in folder.parent.iterdir()] == ["spam"]
    (folder / ".base").unlink()
    with pytest.raises(PolicyError, match="--rebase"):
        read_draft(live.parent, "spam")


def test_the_golden_set_is_the_drafts_then_the_live_versions_then_the_usual_one(
    tmp_path: Path,
) -> None:
    plain = make_policy("spam", b"# Spam\n")
    named = make_policy("spam", b"# Spam\n", metadata=b"golden_set: a.csv\n")
    other = make_policy("spam", b"# Spam\n", metadata=b"golden_set: b.csv\n")
    assert golden_file(tmp_path, plain).name == "golden.csv"
    assert golden_file(tmp_path, named, plain).name == "a.csv"
    assert golden_file(tmp_path, named, other) == tmp_path / "spam" / "b.csv"
    assert draft_folder(tmp_path, "spam") == tmp_path / "_drafts" / "spam"
