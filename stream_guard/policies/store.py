"""Loads policies from disk: ``<path>/<slug>/policy.md`` and ``<path>/routes.yaml`` become a PolicySet.

:func:`read_policy_files` reads all files, then :func:`build_policies` parses them, so that a set
comes from one consistent reading. A set is complete, or an error is raised.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from stream_guard.core.errors import PolicyError
from stream_guard.core.visible_text import visible_line
from stream_guard.policies.calibration import CALIBRATION_BYTES_MAX
from stream_guard.policies.files import read_policy_file
from stream_guard.policies.lint import lint_policies
from stream_guard.policies.policy import POLICY_BYTES_MAX, Policy, PolicySet, make_policy
from stream_guard.policies.routes_file import read_routes
from stream_guard.policies.routing import Routing
from stream_guard.policies.rules.compile import BANK_BYTES_MAX, BANKS_BYTES_MAX
from stream_guard.policies.rules.spec import RULES_BYTES_MAX, RULES_FILE, named_files
from stream_guard.policies.yaml_document import YAML_BYTES_MAX, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from stream_guard.core.vocabulary import AnswerMode, Effort

__all__ = [
    "POLICIES_MAX",
    "POLICY_FILES",
    "SLUG",
    "PolicyFiles",
    "build_policies",
    "load_policies",
    "load_policy",
    "read_policy_files",
    "read_policy_folder",
    "refuse_errors",
    "replace_policy",
    "with_banks",
]

POLICIES_MAX: Final = 500
SLUG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A policy's id."""
_POLICY_FILE: Final = "policy.md"
_METADATA_FILE: Final = "policy.yaml"
_CALIBRATION_FILE: Final = "calibration.json"
_ROUTES_FILE: Final = "routes.yaml"
POLICY_FILES: Final = (_POLICY_FILE, _METADATA_FILE, _CALIBRATION_FILE)
"""Files that are read in a policy's folder."""


@dataclass(slots=True, frozen=True)
class PolicyFiles:
    """One reading of a policies folder.

    Attributes:
        path: the folder, for messages.
        policies: bytes of each ``policy.md``, by slug, in the order of the slugs.
        routes: bytes of ``routes.yaml``, or None where there is none.
        metadata: bytes of each ``policy.yaml``, by slug.
        names: names of all files in each policy's folder, by slug.
        rules: bytes of each ``rules.yaml`` and of the existing files that it names, by slug and name.
        calibrations: bytes of each ``calibration.json``, by slug.
    """

    path: Path
    policies: Mapping[str, bytes] = field(default_factory=dict)
    routes: bytes | None = None
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rules: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    calibrations: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hex digest of every file's name and bytes."""
        digest = hashlib.sha256()
        contents: list[tuple[str, str, bytes | None]] = [("", _ROUTES_FILE, self.routes)]
        for slug, text in self.policies.items():
            contents += [
                (slug, _POLICY_FILE, text),
                (slug, _METADATA_FILE, self.metadata.get(slug)),
                *((slug, name, content) for name, content in self.rules.get(slug, {}).items()),
                (slug, _CALIBRATION_FILE, self.calibrations.get(slug)),
            ]
        for slug, name, content in contents:
            if content is not None:
                # The length separates a file from the next one.
                digest.update(f"{slug}/{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()


def replace_policy(files: PolicyFiles, slug: str, contents: Mapping[str, bytes]) -> PolicyFiles:
    """Return a reading in which one policy has other files; its names are joined with those in the folder.

    Args:
        files: of one reading.
        slug: the policy's id.
        contents: bytes of its files, by name.
    """

    def changed(old: Mapping[str, bytes], name: str) -> dict[str, bytes]:
        others = {each: content for each, content in old.items() if each != slug}
        return others | ({slug: contents[name]} if name in contents else {})

    rules = {name: content for name, content in contents.items() if name not in POLICY_FILES}
    others = {each: held for each, held in files.rules.items() if each != slug}
    return replace(
        files,
        policies={**files.policies, slug: contents[_POLICY_FILE]},
        metadata=changed(files.metadata, _METADATA_FILE),
        calibrations=changed(files.calibrations, _CALIBRATION_FILE),
        rules=others | ({slug: rules} if rules else {}),
        names={**files.names, slug: files.names.get(slug, frozenset()) | contents.keys()},
    )


def load_policies(
    path: Path,
    *,
    effort: Effort = "low",
    reasoning_tokens_max: int = 512,
    answer: AnswerMode = "structured",
) -> PolicySet:
    """Read and check a folder of policies.

    Without ``routes.yaml``, a single policy is the default, and several policies are rejected.

    Args:
        path: the folder.
        effort: of every policy that declares none.
        reasoning_tokens_max: likewise, in tokens.
        answer: likewise, how the model is asked.

    Raises:
        PolicyError: a file is missing or invalid; the message names file, line and remedy.
    """
    policies = build_policies(
        read_policy_files(path),
        effort=effort,
        reasoning_tokens_max=reasoning_tokens_max,
        answer=answer,
    )
    refuse_errors(policies, path)
    return policies


def load_policy(
    path: Path,
    *,
    effort: Effort = "low",
    reasoning_tokens_max: int = 512,
    answer: AnswerMode = "structured",
) -> Policy:
    """Read and check one policy.

    Args:
        path: its folder, or its ``policy.md``; the folder's name is the policy's id.
        effort: used where the policy declares none.
        reasoning_tokens_max: likewise, in tokens.
        answer: likewise, how the model is asked.

    Raises:
        PolicyError: as :func:`load_policies`.
    """
    folder = (path.parent if path.name == _POLICY_FILE else path).resolve()
    if not (folder / _POLICY_FILE).is_file():
        message = f"{path}: not a policy.md or a folder with one; name a policy, for example policies/SLUG"
        raise PolicyError(message)
    files = _read_slugs(folder.parent, [folder.name], None)
    policies = build_policies(
        files, effort=effort, reasoning_tokens_max=reasoning_tokens_max, answer=answer
    )
    refuse_errors(policies, folder.parent)
    return policies.policies[folder.name]


def refuse_errors(policies: PolicySet, path: Path) -> None:
    """Reject policies in which the linter finds an error.

    Raises:
        PolicyError: names each error's file, line, code and remedy.
    """
    errors = [f for f in lint_policies(policies, folder=str(path)) if f.severity == "error"]
    if errors:
        lines = (f"{f.file}:{f.line}: {f.code}: {f.message}. {f.remedy}" for f in errors)
        raise PolicyError("\n".join(lines))


def read_policy_files(path: Path) -> PolicyFiles:
    """Read a folder of policies; files with other names are ignored.

    Folders that begin with ``.`` or ``_`` are ignored (``..data`` of a ConfigMap, ``.git``).

    Raises:
        PolicyError: the folder or a ``policy.md`` is missing, or a file is unreadable, too large, no regular file or
            outside the folder.
    """
    try:
        entries = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    except FileNotFoundError as error:
        message = f"{path}: no such folder; give the folder that contains <slug>/policy.md (setting policies.path)"
        raise PolicyError(message) from error
    except NotADirectoryError as error:
        message = f"{path}: a file; set policies.path to the folder that contains <slug>/policy.md"
        raise PolicyError(message) from error
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); make it readable for this user"
        raise PolicyError(message) from error
    slugs = [name for name in entries if not name.startswith((".", "_"))]
    if len(slugs) > POLICIES_MAX:
        message = (
            f"{path}: {len(slugs)} policies, over the limit of {POLICIES_MAX}; "
            "set policies.path to one set"
        )
        raise PolicyError(message)
    return _read_slugs(path, slugs, read_policy_file(path / _ROUTES_FILE, path, YAML_BYTES_MAX))


def _read_slugs(path: Path, slugs: Iterable[str], routes: bytes | None) -> PolicyFiles:
    policies: dict[str, bytes] = {}
    metadata: dict[str, bytes] = {}
    calibrations: dict[str, bytes] = {}
    names: dict[str, frozenset[str]] = {}
    rules: dict[str, Mapping[str, bytes]] = {}
    for slug in slugs:
        content = read_policy_file(path / slug / _POLICY_FILE, path, POLICY_BYTES_MAX)
        if content is None:
            message = f"{path / slug}: {_POLICY_FILE} is missing; write it, or remove the folder"
            raise PolicyError(message)
        policies[slug] = content
        declared = read_policy_file(path / slug / _METADATA_FILE, path, YAML_BYTES_MAX)
        if declared is not None:
            metadata[slug] = declared
        if found := _read_rules(path / slug, path):
            rules[slug] = found
        fitted = read_policy_file(path / slug / _CALIBRATION_FILE, path, CALIBRATION_BYTES_MAX)
        if fitted is not None:
            calibrations[slug] = fitted
        names[slug] = frozenset(entry.name for entry in (path / slug).iterdir())
    return PolicyFiles(path, policies, routes, metadata, names, rules, calibrations)


def read_policy_folder(
    folder: Path,
    policy_id: str,
    *,
    effort: Effort = "low",
    reasoning_tokens_max: int = 512,
    answer: AnswerMode = "structured",
) -> Policy:
    """Return the policy in a folder, under another id than the folder's name.

    Raises:
        PolicyError: as :func:`load_policies`, except for routes and findings.
    """
    root = folder.resolve().parent
    content = read_policy_file(folder / _POLICY_FILE, root, POLICY_BYTES_MAX)
    if content is None:
        message = f"{folder}: no {_POLICY_FILE}; write the policy there"
        raise PolicyError(message)
    return make_policy(
        policy_id,
        content,
        effort=effort,
        reasoning_tokens_max=reasoning_tokens_max,
        answer=answer,
        source=str(folder / _POLICY_FILE),
        metadata=read_policy_file(folder / _METADATA_FILE, root, YAML_BYTES_MAX),
        rules=_read_rules(folder, root),
        calibration=read_policy_file(folder / _CALIBRATION_FILE, root, CALIBRATION_BYTES_MAX),
    )


def _read_rules(folder: Path, root: Path) -> dict[str, bytes]:
    return with_banks(folder, root, read_policy_file(folder / RULES_FILE, root, RULES_BYTES_MAX))


def with_banks(folder: Path, root: Path, content: bytes | None) -> dict[str, bytes]:
    """Return the bytes of a ``rules.yaml`` and of the existing files that it names, by name; raises PolicyError."""
    if content is None:
        return {}
    found = {RULES_FILE: content}
    size_bytes = 0
    for name in named_files(content):
        if (bank := read_policy_file(folder / name, root, BANK_BYTES_MAX)) is not None:
            found[name] = bank
            size_bytes += len(bank)
        if size_bytes > BANKS_BYTES_MAX:
            message = (
                f"{folder / RULES_FILE}: names files of more than {BANKS_BYTES_MAX:,} bytes together; "
                "remove files or lines"
            )
            raise PolicyError(message)
    return found


def build_policies(
    files: PolicyFiles,
    *,
    effort: Effort = "low",
    reasoning_tokens_max: int = 512,
    answer: AnswerMode = "structured",
    routes_needed: bool = True,
) -> PolicySet:
    """Parse the files of one reading. Pure.

    Args:
        files: of one reading.
        effort: for policies that state none.
        reasoning_tokens_max: for policies that state none.
        answer: likewise.
        routes_needed: whether several policies without ``routes.yaml`` are an error. Without routes no topic has a
            policy.

    Raises:
        PolicyError: as :func:`load_policies`.
    """
    if not files.policies:
        message = f"{files.path}: no policies; write one as {files.path / 'SLUG' / _POLICY_FILE}"
        raise PolicyError(message)
    _check_ids(files)
    policies = {
        slug: make_policy(
            slug,
            content,
            effort=effort,
            reasoning_tokens_max=reasoning_tokens_max,
            answer=answer,
            source=str(files.path / slug / _POLICY_FILE),
            metadata=files.metadata.get(slug),
            rules=files.rules.get(slug),
            calibration=files.calibrations.get(slug),
        )
        for slug, content in files.policies.items()
    }
    _check_golden_sets(files, policies)
    if files.routes is None:
        several = len(policies) > 1 and not routes_needed
        routing = Routing(default=() if several else _only(files, policies))
        return PolicySet.of(policies, routing, files.sha256)
    document = read_yaml(files.routes, str(files.path / _ROUTES_FILE))
    return PolicySet.of(policies, read_routes(document, policies), files.sha256)


def _check_ids(files: PolicyFiles) -> None:
    """Reject invalid ids, and ids that differ only in case, which some file systems do not distinguish."""
    by_folded: dict[str, str] = {}
    for slug in files.policies:
        if SLUG.fullmatch(slug) is None:
            message = (
                f"{files.path / visible_line(slug)}: the folder's name is the policy's id; it may have up to 100 "
                "Latin letters, digits, '.', '_' and '-': rename the folder"
            )
            raise PolicyError(message)
        folded = unicodedata.normalize("NFKC", slug).casefold()
        if folded in by_folded:
            message = (
                f"{files.path}: the ids {by_folded[folded]!r} and {slug!r} differ only in case; "
                "rename one of the folders"
            )
            raise PolicyError(message)
        by_folded[folded] = slug


def _check_golden_sets(files: PolicyFiles, policies: Mapping[str, Policy]) -> None:
    for slug, policy in policies.items():
        if policy.golden_set and policy.golden_set not in files.names.get(slug, frozenset()):
            source = str(files.path / slug / _METADATA_FILE)
            message = f"no file {policy.golden_set!r} in this folder; add it, or remove the key"
            raise read_yaml(files.metadata[slug], source).error(("golden_set",), message)


def _only(files: PolicyFiles, policies: Mapping[str, Policy]) -> tuple[str, ...]:
    if len(policies) == 1:
        return tuple(policies)
    example = f"default: [{next(iter(policies))}]"
    message = (
        f"{files.path / _ROUTES_FILE}: missing, but there are {len(policies)} policies; add it and "
        f"name the policies of each topic, for example {example!r}"
    )
    raise PolicyError(message)
