"""Rebuilds a verdict's prompt from the post and the archive, and compares it with the verdict's digests. Pure.

Two prompts are the same only where the digests of their token ids are equal. Missing evidence is reported,
never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from stream_guard.core.errors import EvidenceError, PolicyError, RecordError
from stream_guard.judging.families.family import hash_ids
from stream_guard.judging.windows import fit_post

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_guard.core.kafka_types import Record
    from stream_guard.judging.archive.archive import Kept
    from stream_guard.judging.archive.entry import Entry
    from stream_guard.judging.contract import Answer, Sampled
    from stream_guard.judging.families.family import Family, Prefix
    from stream_guard.records.post import Post, PostParser

Status: TypeAlias = Literal[
    "identical",  # the digest of all token ids is equal
    "prefix_identical",  # the policy's part and the post's text are equal; the verdict has no digest of the whole
    "repeat",  # the answer to an equal post, whose text differs in white space or composition
    "no_prompt",  # no model was asked: a rule or a classifier decided, or no tier decided
    "differs",
    "unproven",  # evidence is missing or altered
]
SUPPORTED: Final[frozenset[Status]] = frozenset(
    {"identical", "prefix_identical", "repeat", "no_prompt"}
)


@dataclass(slots=True)
class Replayed:
    """The result of replaying one verdict.

    Attributes:
        verdict: as published.
        status: see :data:`Status`.
        reason: why the archive does not support the verdict; empty where it does.
        entry: the archived policy; None where it could not be read.
        post: the post, or None.
        ids: token ids of the whole prompt; None where there is no prompt.
        judged: how a second judgement differs, in words. Empty where it agrees, None where none was requested.
    """

    verdict: dict[str, Any]
    status: Status
    reason: str = ""
    entry: Entry | None = None
    post: Post | None = None
    ids: list[int] | None = field(default=None, repr=False)
    judged: tuple[str, ...] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the result as plain data for JSON. It never contains the post's text."""
        verdict, source = self.verdict, self.verdict["source"]
        described = {
            "verdict": verdict["id"],
            "record": f"{source['topic']}/{source['partition']}/{source['offset']}",
            "policy": verdict["policy"]["id"],
            "policy_sha256": verdict["policy"]["sha256"],
            "decision": verdict["decision"],
            "tier": verdict["provenance"]["tier"],
            "status": self.status,
            "reason": self.reason,
            "prompt_tokens": None if self.ids is None else len(self.ids),
            "prompt_ids_sha256": None if self.ids is None else hash_ids(self.ids),
            "archive_entry": None if self.entry is None else str(self.entry.name),
        }
        if self.judged is not None:
            described["judged_again"] = list(self.judged)
        return described


class Rebuilder:
    """Rebuilds prompts.

    Args:
        parser: parses posts, with the settings of the service.
        family: of the configured model; None if no verdict has a prompt.
        tokenizer_sha256: digest of the model's tokenizer, or None.
        overlap_tokens: of the windows of long posts (``engine.window_overlap_tokens``).
    """

    def __init__(
        self,
        parser: PostParser,
        family: Family | None,
        tokenizer_sha256: str | None,
        overlap_tokens: int,
    ) -> None:
        self._overlap_tokens = overlap_tokens
        self._parser = parser
        self._tokenizer_sha256 = tokenizer_sha256
        self._family = family

    def rebuild(
        self, verdict: dict[str, Any], record: Record, entries: Sequence[Entry]
    ) -> Replayed:
        """Rebuild the prompt of a verdict, and compare it.

        Args:
            verdict: as published.
            record: the record that the verdict names.
            entries: archive entries of the policy that the verdict names; not empty.
        """
        replayed = Replayed(verdict, "no_prompt", entry=entries[-1])
        try:
            replayed.post = self._parse(verdict, record)
            wanted = verdict["provenance"]["prompt_sha256"]
            if wanted is not None:
                self._rebuild(replayed, wanted, entries)
        except EvidenceError as error:
            replayed.status, replayed.reason = "unproven", str(error)
        return replayed

    def _parse(self, verdict: dict[str, Any], record: Record) -> Post:
        place = f"{record.topic}/{record.partition}/{record.offset}"
        try:
            post = self._parser.of_topic(record.topic).parse(record.value, record.headers)
        except RecordError as error:
            message = (
                f"{place}: the post cannot be read ({error}); use the service's settings post.*"
            )
            raise EvidenceError(message) from error
        if post.sha256 != verdict["content"]["sha256"]:
            message = (
                f"{place}: the text differs from the judged text (digest {post.sha256[:12]}, verdict "
                f"{verdict['content']['sha256'][:12]}); the topic was created again, or post.text has changed"
            )
            raise EvidenceError(message)
        return post

    def _rebuild(self, replayed: Replayed, wanted: str, entries: Sequence[Entry]) -> None:
        verdict, post = replayed.verdict, replayed.post
        assert post is not None, "_parse() comes first"
        provenance = verdict["provenance"]
        family = self._require_family(entries)
        found: dict[str, Entry] = {}
        for entry in entries:
            try:
                prefix = family.prefix_of(entry.messages, provenance["effort"], entry.policy_id)
            except (KeyError, PolicyError) as error:
                raise EvidenceError(f"archive entry {entry.name}: {error}") from error
            if prefix.sha256 == wanted:
                replayed.entry = entry
                break
            found[prefix.sha256] = entry
        else:
            raise EvidenceError(self._explain_prefix(wanted, found, provenance["effort"]))
        replayed.ids = self._prompt(family, post, prefix, provenance.get("prompt_tokens_max"))
        whole = provenance.get("prompt_ids_sha256")
        if whole is None:
            replayed.status = "prefix_identical"
        elif whole == hash_ids(replayed.ids):
            replayed.status = "identical"
        elif provenance["tier"] == "duplicates":
            replayed.status = "repeat"
        else:
            replayed.status = "differs"
            replayed.reason = (
                f"the prompt has the digest {hash_ids(replayed.ids)[:12]}, the verdict {whole[:12]}; the policy's part "
                "and the text are equal, so the title, the thread or the windows differ: see the settings post.* and "
                "engine.window_overlap_tokens"
            )
            now = family.template.version
            if entry.template_version != now:
                replayed.reason += (
                    f" (template version {entry.template_version} archived, {now} now)"
                )

    def _prompt(
        self, family: Family, post: Post, prefix: Prefix, tokens_max: int | None
    ) -> list[int]:
        """Return a prompt's token ids; of several windows, those of all prompts."""
        if tokens_max is None:
            return family.prompt(post, prefix)
        fitted = fit_post(post, prefix, family, tokens_max, self._overlap_tokens)
        return [token for ids in fitted.prompts for token in ids]

    def _require_family(self, entries: Sequence[Entry]) -> Family:
        wanted = {entry.judging.tokenizer_sha256 for entry in entries}
        if self._family is not None and self._tokenizer_sha256 in wanted:
            return self._family
        judging = entries[-1].judging
        at = f"@{judging.revision}" if judging.revision else ""
        configured, archived = self._tokenizer_sha256 or "none", judging.tokenizer_sha256 or "none"
        message = (
            f"engine.model: its tokenizer ({configured[:12]}) differs from the archived one ({archived[:12]}, of "
            f"{judging.model}{at}); set engine.model and engine.revision to that model"
        )
        raise EvidenceError(message)

    def _explain_prefix(self, wanted: str, found: dict[str, Entry], effort: str) -> str:
        yields = ", ".join(
            f"{entry.name.entry_sha256[:12]} yields {sha256[:12]}"
            for sha256, entry in found.items()
        )
        return (
            f"no archive entry of the policy yields the verdict's prompt ({wanted[:12]}, effort {effort}): {yields}; "
            "an entry was altered or removed"
        )


def read_entries(kept: Iterable[Kept], verdict: dict[str, Any], archive: str) -> list[Entry]:
    """Return the archive's entries of the policy that a verdict names; never empty.

    Raises:
        EvidenceError: no entry exists, or one is altered.
    """
    policy = verdict["policy"]
    # Read every entry: an altered one may be the verdict's.
    entries = [one.read() for one in kept if one.name.policy_sha256 == policy["sha256"]]
    own = [entry for entry in entries if entry.policy_id == policy["id"]]
    if not own:
        message = (
            f"the archive ({archive}) has no policy {policy['id']}@{policy['version']} with the digest "
            f"{policy['sha256'][:12]}; name the archive that the service wrote to (policies.archive)"
        )
        raise EvidenceError(message)
    return own


def compare(
    verdict: dict[str, Any],
    answer: Answer | None,
    error: str | None = None,
    sampling: Sampled | None = None,
) -> tuple[str, ...]:
    """Return how a second answer differs from a verdict, in words; empty where it agrees.

    Args:
        verdict: as published.
        answer: the second answer; None where there is none.
        error: why there is none.
        sampling: how the second answer was drawn. It is named only where the answers differ.
    """
    if answer is None:
        return (f"no second answer: {error}",)
    then = verdict["policy"]
    pairs = (
        ("decision", verdict["decision"], answer.decision),
        ("category", then["category"] or "none", answer.category or "none"),
        ("labels", _listed(then["labels"]), _listed(answer.labels)),
        ("rule_ids", _listed(then["rule_ids"]), _listed(answer.rule_ids)),
    )
    found = [f"{name}: {old} then, {new} now" for name, old, new in pairs if old != new]
    drawn = _drawn(verdict["provenance"].get("sampling"))
    now = _drawn(None if sampling is None else sampling._asdict())
    if found and drawn != now:
        found.append(f"sampling: {drawn} then, {now} now")
    return tuple(found)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words)) or "none"


def _drawn(sampling: Mapping[str, Any] | None) -> str:
    """Return how an answer was drawn, in words."""
    if sampling is None:
        return "greedy"
    temperature, top_p = sampling["temperature"], sampling["top_p"]
    return f"temperature {temperature:g}, top_p {top_p:g}, samples {sampling['samples']}"
