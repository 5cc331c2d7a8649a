"""Drafts of policies: ``_drafts/SLUG`` in the folder of policies, which no service reads.

A draft holds the files of its policy, and the digest of the live version that it was made from. The golden set belongs
to the policy and not to a version, so that the draft has a link to it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError
from stream_guard.policies.store import read_policy_folder

if TYPE_CHECKING:
    from stream_guard.core.vocabulary import AnswerMode, Effort
    from stream_guard.policies.policy import Policy

__all__ = ["DRAFTS", "Draft", "draft_folder", "golden_file", "make_draft", "read_draft", "rebase"]

DRAFTS: Final = "_drafts"
"""The folder of all drafts; a name that begins with ``_`` is no policy."""
_BASE_FILE: Final = ".base"
_GOLDEN_FILE: Final = "golden.csv"


@dataclass(slots=True, frozen=True)
class Draft:
    """A draft as it was read.

    Attributes:
        folder: of its files.
        policy: made of its files, with the id of the live policy.
        base: digest of the live version that the draft was made from.
    """

    folder: Path
    policy: Policy
    base: str


def draft_folder(path: Path, slug: str) -> Path:
    """Return where a policy's draft is, or would be; ``path`` is the folder of policies."""
    return path / DRAFTS / slug


def golden_file(path: Path, live: Policy, draft: Policy | None = None) -> Path:
    """Return the golden set that the draft names, or else the live version, or else ``golden.csv``."""
    named = (draft.golden_set if draft else None) or live.golden_set
    return path / live.id / (named or _GOLDEN_FILE)


def make_draft(path: Path, live: Policy, *, fresh: bool = False) -> tuple[Path, bool]:
    """Make a draft of the live version, and return its folder and whether it is new.

    A draft that exists stays as it is. In any case its link to the golden set is made if it is missing.

    Args:
        path: the folder of policies.
        live: the version that the draft begins with.
        fresh: whether a draft that exists is thrown away.

    Raises:
        PolicyError: the folder cannot be written.
    """
    folder = draft_folder(path, live.id)
    made = fresh or not folder.exists()
    try:
        if made:
            _write(folder, live)
        golden = golden_file(path, live)
        link = folder / golden.name
        if golden.exists() and not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(Path("..", "..", live.id, golden.name))
    except OSError as error:
        message = f"{folder}: the draft cannot be written ({error.strerror}); make its folder writable for this user"
        raise PolicyError(message) from error
    return folder, made


def _write(folder: Path, live: Policy) -> None:
    """Write a draft so that its folder appears with all its files, or not at all."""
    folder.parent.mkdir(exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{live.id}-", dir=folder.parent))
    try:
        new = staging / "new"
        new.mkdir()
        for name, content in live.files.items():
            (new / name).write_bytes(content)
        (new / _BASE_FILE).write_text(f"{live.sha256}\n", "ascii")
        if folder.exists():
            folder.rename(staging / "old")
        new.rename(folder)
    finally:
        shutil.rmtree(staging)


def rebase(path: Path, live: Policy) -> None:
    """Note that the draft includes what the live version says. Raises PolicyError if there is no draft."""
    folder = draft_folder(path, live.id)
    if not folder.exists():
        raise _missing(folder, live.id)
    try:
        (folder / _BASE_FILE).write_text(f"{live.sha256}\n", "ascii")
    except OSError as error:
        message = f"{folder / _BASE_FILE}: cannot be written ({error.strerror}); make it writable for this user"
        raise PolicyError(message) from error


def read_draft(
    path: Path,
    slug: str,
    *,
    effort: Effort = "low",
    reasoning_tokens_max: int = 512,
    answer: AnswerMode = "structured",
) -> Draft:
    """Read the draft of a policy.

    Args:
        path: the folder of policies.
        slug: the policy's id.
        effort: used where the draft declares none.
        reasoning_tokens_max: likewise, in tokens.
        answer: likewise, how the model is asked.

    Raises:
        PolicyError: there is no draft, or it cannot be read.
    """
    folder = draft_folder(path, slug)
    if not folder.exists():
        raise _missing(folder, slug)
    policy = read_policy_folder(
        folder, slug, effort=effort, reasoning_tokens_max=reasoning_tokens_max, answer=answer
    )
    try:
        base = (folder / _BASE_FILE).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = (
            f"{folder / _BASE_FILE}: cannot be read, so nobody knows which version the draft was made from; if it "
            f"includes the live version, run: stream-guard policies draft {slug} --rebase"
        )
        raise PolicyError(message) from error
    return Draft(folder, policy, base)


def _missing(folder: Path, slug: str) -> PolicyError:
    return PolicyError(f"{folder}: there is no draft; make one: stream-guard policies draft {slug}")
