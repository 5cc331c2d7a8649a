"""A file is written whole or not at all, and a write that fails leaves nothing beside it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stream_guard.core.errors import StreamGuardError
from stream_guard.core.whole_files import write_whole
from stream_guard.judging.archive.archive import FolderArchive
from stream_guard.offline.improve.golden_rows import NewRow, add_rows
from stream_guard.policies.draft_editing import read_texts, save_texts
from stream_guard.policies.store import load_policies


def test_a_file_has_its_bytes_and_permissions(tmp_path: Path) -> None:
    file = tmp_path / "one"
    write_whole(file, b"old")
    write_whole(file, b"new", 0o400)
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o400
    assert list(tmp_path.iterdir()) == [file]


def files(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_write_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who write a file whole do it this way."""
    policy = tmp_path / "policies" / "spam"
    policy.mkdir(parents=True)
    for name in ("policy.md", "golden.csv"):
        (policy / name).write_text("text,label\nbuy,violates\n")
    live = load_policies(policy.parent).policies["spam"]
    shown = read_texts(policy.parent, "spam")
    save_texts(policy.parent, live, {**shown.files, "policy.md": "one"}, shown.digest)
    shown = read_texts(policy.parent, "spam")
    archive = FolderArchive(tmp_path / "archive")
    asyncio.run(archive.add_note("promotions/spam/one", b"one"))
    before = files(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StreamGuardError, match="No space left"):
        save_texts(policy.parent, live, {**shown.files, "policy.md": "two"}, shown.digest)
    with pytest.raises(StreamGuardError, match="No space left"):
        add_rows(policy / "golden.csv", [NewRow("1", "a", "safe")])
    with pytest.raises(StreamGuardError, match="No space left"):
        asyncio.run(archive.add_note("promotions/spam/two", b"two"))
    assert files(tmp_path) == before
