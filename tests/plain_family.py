"""A second model family for tests: a prompt of plain text, and a bare 0 or 1 as the whole answer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson
from tokenizers import Tokenizer

from stream_guard.judging.contract import Answer
from stream_guard.judging.families.family import (
    Constraint,
    FamilyKind,
    Prefix,
    Reading,
    Sampling,
    Unconstrained,
    hash_ids,
)
from stream_guard.judging.families.model_files import model_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.contract import ParseStatus
    from stream_guard.judging.families.family import Budget
    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import Post
    from stream_guard.settings import EngineSettings

_TEXT = "Policy:\n{policy}\n\nDoes the text break it? 0 for no, 1 for yes.\n\nText: "


class PlainTemplate:
    """One text, the same at every effort."""

    version = "1"
    sha256 = hashlib.sha256(_TEXT.encode()).hexdigest()

    def render(self, policy: Policy, date: str) -> dict[str, Any]:
        """Return the text before the post."""
        return {"text": f"{date}\n{_TEXT.replace('{policy}', policy.text)}"}


class Plain:
    """No control tokens, no channels, no reasoning."""

    template = PlainTemplate()

    def __init__(self, tokenizer: Tokenizer, date: str) -> None:
        self._tokenizer = tokenizer
        self._date = date
        (zero,), (one,) = self.encode("0"), self.encode("1")
        self.labels = (zero, one)

    def describe(self) -> str:
        return "no control tokens"

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def show(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def prefix(self, policy: Policy, effort: Effort) -> Prefix:
        return self.prefix_of(self.template.render(policy, self._date), effort, policy.id)

    def prefix_of(self, messages: Mapping[str, Any], effort: Effort, policy_id: str) -> Prefix:  # noqa: ARG002 - the port's
        ids = tuple(self.encode(messages["text"]))
        return Prefix(ids, hash_ids(ids))

    def prompt(self, post: Post, prefix: Prefix) -> list[int]:
        return [*prefix.ids, *self.encode(f"{post.text}\nAnswer:")]

    def check_structure(self, policy: Policy, prefix: Prefix) -> None:
        """Pass: plain text has no structure to keep."""

    def sampling(self, policy: Policy, budget: Budget) -> Sampling:  # noqa: ARG002 - the port's
        return Sampling(Constraint("choice", ["0", "1"]), 4)

    def unconstrained(self, policy: Policy, budget: Budget) -> Unconstrained:
        sampling = self.sampling(policy, budget)._replace(constraint=None)
        return Unconstrained(sampling, lambda ids: self.decode(ids) in {"0", "1"})

    def in_parts(self, policy: Policy, budget: Budget) -> None:
        """Return nothing: this family does not reason."""

    def read(self, ids: Sequence[int], policy: Policy, *, complete: bool) -> Reading:  # noqa: ARG002 - the port's
        text = self.decode(ids).strip()
        if not complete or text not in ("0", "1"):
            status: ParseStatus = "malformed" if complete else "truncated"
            return Reading(Answer("undetermined", parse_status=status))
        return Reading(Answer("violates" if text == "1" else "safe"), 0)

    def reasoning(self, ids: Sequence[int]) -> str:  # noqa: ARG002 - the port's
        return ""


def load_plain(settings: EngineSettings) -> Plain:
    """Load it from any model's folder: the tokenizer, without its added tokens."""
    document = orjson.loads(model_file(settings, "tokenizer.json").read_bytes())
    added = document["added_tokens"]
    document["added_tokens"] = []
    for token in added:
        document["model"]["vocab"].pop(token["content"], None)
    return Plain(Tokenizer.from_str(orjson.dumps(document).decode()), settings.prompt_date)


PLAIN = FamilyKind("plain", ("AnyForCausalLM",), PlainTemplate(), load_plain)
