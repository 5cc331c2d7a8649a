"""One entry of the archive of policies: a policy's files, and everything else that its prompts were made of. Pure.

An entry is a JSON document. Its name holds its own digest, and the digest of the policy that verdicts name. It stores
the rendered messages of the prompt, so that a later change of the template cannot change what a replay rebuilds.
Reading an entry verifies both digests.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_guard.core.errors import EvidenceError, PolicyError
from stream_guard.policies.policy import make_policy, policy_sha256
from stream_guard.policies.rules.compile import rules_sha256
from stream_guard.policies.rules.spec import RULES_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.families.family import Template
    from stream_guard.policies.policy import Policy

FORMAT: Final = "stream-guard.policy/1"
_NOT_RULES: Final = frozenset({"policy.md", "policy.yaml", "calibration.json"})


@dataclass(slots=True, frozen=True)
class Judging:
    """What prompts are made of besides the policy.

    Attributes:
        engine: ``vllm``, or what another judge calls itself: ``scripted``.
        model, revision: as the settings name them.
        tokenizer_sha256: hex digest of the model's ``tokenizer.json``; None without a model.
        prompt_date: ``YYYY-MM-DD``, in the prompt.
        family: of the model; None without a model.
    """

    engine: str
    model: str
    revision: str | None
    tokenizer_sha256: str | None
    prompt_date: str
    family: str | None = None


@dataclass(slots=True, frozen=True)
class EntryName:
    """The name of an entry: the policy's digest, and the digest of the entry's own bytes, in hex."""

    policy_sha256: str
    entry_sha256: str

    def __str__(self) -> str:
        return f"{self.policy_sha256}/{self.entry_sha256}"

    @classmethod
    def parse(cls, text: str) -> EntryName | None:
        """Return the name in a key, or in a path without its suffix; None if there is none."""
        policy, slash, entry = text.partition("/")
        hexadecimal = all(
            len(part) == 64 and set(part) <= set("0123456789abcdef")  # noqa: PLR2004 - a SHA-256
            for part in (policy, entry)
        )
        return cls(policy, entry) if slash and hexadecimal else None


@dataclass(slots=True, frozen=True)
class Entry:
    """A policy as it was judged by.

    Attributes:
        name: see :class:`EntryName`.
        policy_id, version, effort, reasoning_tokens_max: of the policy.
        judging: what else prompts were made of.
        template_version, template_sha256: of the template that rendered the messages; empty without a model.
        messages: as the template rendered them; empty without a model.
        files: bytes of the policy's files, by name.
        left_out: digests of rule files that were too large to store, by name.
    """

    name: EntryName
    policy_id: str
    version: str
    effort: Effort
    reasoning_tokens_max: int
    judging: Judging
    template_version: str
    template_sha256: str
    messages: Mapping[str, Any]
    files: Mapping[str, bytes]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def policy(self) -> Policy:
        """Return the policy, rebuilt from its files.

        Raises:
            EvidenceError: rule files were left out, or this version of Stream Guard cannot read the policy.
        """
        if self.left_out:
            message = (
                f"the archive holds {self.policy_id}@{self.version} without {', '.join(sorted(self.left_out))}, which "
                "were too large for it; its prompt can be rebuilt, but its rules cannot be run"
            )
            raise EvidenceError(message)
        rules = {name: held for name, held in self.files.items() if name not in _NOT_RULES}
        try:
            return make_policy(
                self.policy_id,
                self.files["policy.md"],
                effort=self.effort,
                reasoning_tokens_max=self.reasoning_tokens_max,
                answer=self.messages.get("answer", "structured"),
                metadata=self.files.get("policy.yaml"),
                rules=rules or None,
                calibration=self.files.get("calibration.json"),
            )
        except PolicyError as error:
            message = f"the archived policy {self.policy_id}@{self.version} cannot be read by this version: {error}"
            raise EvidenceError(message) from error


def write_entry(
    policy: Policy,
    judging: Judging,
    template: Template | None,
    *,
    rules_bytes_max: int | None = None,
) -> tuple[EntryName, bytes]:
    """Return an entry's name and bytes; the same for the same arguments.

    Args:
        policy: with its files.
        judging: what else its prompts are made of.
        template: renders its prompts; None without a model.
        rules_bytes_max: largest size of all rule files together, in bytes; of larger ones only digests are stored.
            None for no limit.
    """
    rules = {name: held for name, held in policy.files.items() if name not in _NOT_RULES}
    kept, left_out = dict(policy.files), {}
    if rules_bytes_max is not None and sum(map(len, rules.values())) > rules_bytes_max:
        kept = {name: held for name, held in kept.items() if name in (*_NOT_RULES, RULES_FILE)}
        left_out = {
            name: hashlib.sha256(held).hexdigest()
            for name, held in rules.items()
            if name not in kept
        }
    document = {
        "format": FORMAT,
        "policy": {
            "id": policy.id,
            "version": policy.version,
            "sha256": policy.sha256,
            "effort": policy.effort,
            "reasoning_tokens_max": policy.reasoning_tokens_max,
        },
        "judging": {
            "engine": judging.engine,
            "model": judging.model,
            "revision": judging.revision,
            "tokenizer_sha256": judging.tokenizer_sha256,
            "prompt_date": judging.prompt_date,
            "family": judging.family,
        },
        "prompt": None
        if template is None
        else {
            "template_version": template.version,
            "template_sha256": template.sha256,
            **template.render(policy, judging.prompt_date),
        },
        "files": {name: base64.b64encode(held).decode() for name, held in kept.items()},
        "rules_sha256": rules_sha256(rules) if rules else None,
        "left_out": left_out,
    }
    content = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return EntryName(policy.sha256, hashlib.sha256(content).hexdigest()), content


def read_entry(name: EntryName, content: bytes, where: str) -> Entry:
    """Return an entry after verifying that its content matches its name.

    Args:
        name: under which it was found.
        content: its bytes.
        where: file or record, for messages.

    Raises:
        EvidenceError: it was altered, or is not an entry; says which and how that shows.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != name.entry_sha256:
        message = (
            f"{where}: was altered after it was archived: its content has the digest {found[:12]}, but its name says "
            f"{name.entry_sha256[:12]}; restore it from a backup, and find out who writes there"
        )
        raise EvidenceError(message)
    try:
        document = orjson.loads(content)
        entry = _read(name, document)
        digest = _policy_digest(entry, document["rules_sha256"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        message = f"{where}: is not an entry of an archive of policies ({type(error).__name__})"
        raise EvidenceError(message) from error
    if digest != name.policy_sha256:
        message = (
            f"{where}: holds another policy than its name says: its files have the digest {digest[:12]}, "
            f"not {name.policy_sha256[:12]}; somebody wrote it by hand: find out who, and restore it from a backup"
        )
        raise EvidenceError(message)
    return entry


def _read(name: EntryName, document: Any) -> Entry:  # noqa: ANN401 - any JSON
    if document["format"] != FORMAT:
        raise ValueError("another format")
    policy, judging = document["policy"], document["judging"]
    prompt = dict(document["prompt"] or {})
    return Entry(
        name=name,
        policy_id=policy["id"],
        version=policy["version"],
        effort=policy["effort"],
        reasoning_tokens_max=policy["reasoning_tokens_max"],
        judging=Judging(**judging),
        template_version=prompt.pop("template_version", ""),
        template_sha256=prompt.pop("template_sha256", ""),
        messages=prompt,
        files={key: base64.b64decode(held) for key, held in document["files"].items()},
        left_out=dict(document["left_out"]),
    )


def _policy_digest(entry: Entry, claimed: str | None) -> str:
    """Return the digest of the policy in an entry; uses the claimed digest of rule files that were left out."""
    rules = {name: held for name, held in entry.files.items() if name not in _NOT_RULES}
    known = claimed if entry.left_out else rules_sha256(rules) if rules else None
    return policy_sha256(entry.files["policy.md"], entry.files.get("policy.yaml"), known)
