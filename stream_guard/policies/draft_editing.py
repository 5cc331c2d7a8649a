"""Replaces the texts of a draft, unless somebody else changed them in the meantime.

An editor shows texts and the digest of what it shows. The digest comes back with the edit, and must still be that of
the files. A draft may be unfinished: nothing here reads a policy out of it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_guard.core.errors import EditConflictError, PolicyError
from stream_guard.core.whole_files import write_whole
from stream_guard.policies.drafts import draft_folder, make_draft
from stream_guard.policies.files import read_policy_file
from stream_guard.policies.policy import POLICY_BYTES_MAX
from stream_guard.policies.replacing import locked
from stream_guard.policies.rules.spec import RULES_BYTES_MAX, RULES_FILE
from stream_guard.policies.text import decode_utf8
from stream_guard.policies.yaml_document import YAML_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_guard.policies.policy import Policy

__all__ = ["TEXTS", "Texts", "read_texts", "save_texts", "start_again", "texts_of"]

TEXTS: Final[Mapping[str, int]] = {
    "policy.md": POLICY_BYTES_MAX,
    "policy.yaml": YAML_BYTES_MAX,
    RULES_FILE: RULES_BYTES_MAX,
}
"""The files that people edit, with their largest size in bytes."""


class Texts(NamedTuple):
    """The texts of a version.

    Attributes:
        folder: where they are.
        files: each text by the file's name; a file that does not exist is empty.
        digest: of the files' bytes.
        drafted: whether they are those of a draft, and not of the live version.
    """

    folder: Path
    files: Mapping[str, str]
    digest: str
    drafted: bool


def read_texts(path: Path, slug: str) -> Texts:
    """Return the texts of a policy's draft, or of the live version if there is no draft.

    Args:
        path: the folder of policies.
        slug: the policy's id.

    Raises:
        PolicyError: a file is too large, no regular file, unreadable, or not UTF-8.
    """
    folder = draft_folder(path, slug)
    drafted = folder.exists()
    if not drafted:
        folder = path / slug
    contents = {
        name: read_policy_file(folder / name, folder, bytes_max)
        for name, bytes_max in TEXTS.items()
    }
    return texts_of(folder, contents, drafted=drafted)


def texts_of(folder: Path, contents: Mapping[str, bytes | None], *, drafted: bool) -> Texts:
    """Return the texts of a version that was read already: of the same bytes, whatever the folder has by now.

    Args:
        folder: where the files are.
        contents: bytes of the version's files, by name; others than :data:`TEXTS` are ignored.
        drafted: whether it is a draft.

    Raises:
        PolicyError: a file is not UTF-8.
    """
    files: dict[str, str] = {}
    digest = hashlib.sha256(b"draft" if drafted else b"live")
    for name in TEXTS:
        content = contents.get(name)
        digest.update(b"-" if content is None else b"%d:%s" % (len(content), content))
        files[name] = "" if content is None else decode_utf8(content, str(folder / name))
    return Texts(folder, files, digest.hexdigest(), drafted)


def save_texts(path: Path, live: Policy, files: Mapping[str, str], seen: str) -> Texts:
    """Replace the texts of a policy's draft, which is made if there is none.

    Args:
        path: the folder of policies.
        live: the live version, of which a draft is made.
        files: each text by the file's name, with the line ends of a browser or any others; an empty one removes its
            file.
        seen: digest of the texts that were shown.

    Returns:
        The texts as they are now.

    Raises:
        EditConflictError: the texts changed since.
        PolicyError: a text is too large, or a file cannot be written.
    """
    with locked(path):
        before = read_texts(path, live.id)
        _refuse_changed(before, live.id, seen)
        contents = {name: _bytes(name, files[name], before.files[name]) for name in TEXTS}
        folder, _ = make_draft(path, live)
        for name, content in contents.items():
            if files[name] != before.files[name] or not before.drafted:
                _replace(folder / name, content)
        return read_texts(path, live.id)


def _refuse_changed(now: Texts, slug: str, seen: str) -> None:
    if now.digest != seen:
        what = "the draft" if now.drafted else "the live version"
        raise EditConflictError(f"{slug}: {what} was changed in the meantime; nothing was saved")


def _bytes(name: str, text: str, before: str) -> bytes:
    """Return the bytes of an edited text, with the line ends that its file had."""
    text = text.replace("\r\n", "\n")
    if "\r\n" in before:
        text = text.replace("\n", "\r\n")
    content = text.encode("utf-8", "replace")
    if len(content) > TEXTS[name]:
        message = f"{name}: {len(content):,} bytes, over {TEXTS[name]:,} bytes; shorten it"
        raise PolicyError(message)
    return content


def _replace(file: Path, content: bytes) -> None:
    """Replace a file in one step, or remove it where there is nothing to write."""
    try:
        if not content:
            file.unlink(missing_ok=True)
            return
        write_whole(file, content)
    except OSError as error:
        message = (
            f"{file}: cannot be written ({error.strerror}); make its folder writable for this user"
        )
        raise PolicyError(message) from error


def start_again(path: Path, live: Policy, seen: str) -> None:
    """Replace a draft by a copy of the live version. Raises as :func:`save_texts`."""
    with locked(path):
        _refuse_changed(read_texts(path, live.id), live.id, seen)
        make_draft(path, live, fresh=True)
