"""What the engine needs to know of a kind of model to use it as a judge: the port that each family implements.

A family turns a policy and a post into a prompt's token ids, says how the answer is constrained, and reads the
completion. Its markers, channels and templates stay in its own folder.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_guard.core.vocabulary import Effort, JudgeUnit
    from stream_guard.judging.contract import Answer
    from stream_guard.policies.policy import Policy
    from stream_guard.records.post import Post
    from stream_guard.settings import EngineSettings

__all__ = [
    "Budget",
    "Constraint",
    "Exchange",
    "Family",
    "FamilyKind",
    "InParts",
    "Prefix",
    "Reading",
    "Reasoning",
    "Sampling",
    "Template",
    "Unconstrained",
    "exchange_of",
    "hash_ids",
]


@dataclass(slots=True, frozen=True)
class Prefix:
    """The part of a prompt that all posts under one policy and effort share; the engine caches it.

    Attributes:
        ids: its token ids; every prompt begins with them.
        sha256: :func:`hash_ids` of them. It covers template, date, effort, policy and tokenizer.
        judge: whether the posts under it are judged alone, or with their threads.
        native: whether the policy is used alone, as its author tuned it.
    """

    ids: tuple[int, ...]
    sha256: str
    judge: JudgeUnit = "post"
    native: bool = False


class Budget(NamedTuple):
    """Token budgets of one completion."""

    reasoning_tokens_max: int
    rationale_tokens_max: int


class Constraint(NamedTuple):
    """What a completion is held to, by one of vLLM's structured outputs.

    Attributes:
        kind: the field of vLLM's ``StructuredOutputsParams``.
        value: of that field: the tag as JSON, the allowed completions, or a pattern.
    """

    kind: Literal["structural_tag", "choice", "regex"]
    value: str | list[str]


class Sampling(NamedTuple):
    """How one attempt is sampled.

    Attributes:
        constraint: None for a completion without one.
        tokens_max: longest completion, in tokens.
        stops: tokens that end the completion, in addition to the model's own.
        labelled: whether the answer's label is in the completion, so that its tokens' probabilities are needed.
        label_after: a token; the label comes behind its last place. Probabilities of tokens before that are not needed.
    """

    constraint: Constraint | None
    tokens_max: int
    stops: tuple[int, ...] = ()
    labelled: bool = True
    label_after: int | None = None


class Reasoning(NamedTuple):
    """How the reasoning in a completion is found and ended.

    Attributes:
        opening: the tokens before it, with which a completion has to begin.
        ends: tokens of which the first one ends it.
        closing: tokens that end it at its budget.
    """

    opening: tuple[int, ...]
    ends: frozenset[int]
    closing: tuple[int, ...]


class Unconstrained(NamedTuple):
    """How an attempt without a constraint is sampled, and which of its completions count.

    Attributes:
        sampling: without a constraint; its length has the same limit.
        allows: whether the constraint would have allowed a completion that ended by itself. Never raises.
        reasoning: what the budget bounds; None where the family does not reason.
    """

    sampling: Sampling
    allows: Callable[[Sequence[int]], bool]
    reasoning: Reasoning | None = None


class InParts(NamedTuple):
    """How an attempt is made by two requests: the reasoning without a constraint, then the answer under one.

    The first request continues the prompt and ``opening``. The second continues these, the reasoning and ``closing``.

    Attributes:
        opening: tokens before the reasoning.
        thinking: of the reasoning. Its length is the budget. None of its stops is part of the reasoning.
        closing: tokens between reasoning and answer.
        answer: of the answer.
    """

    opening: tuple[int, ...]
    thinking: Sampling
    closing: tuple[int, ...]
    answer: Sampling


@dataclass(slots=True, frozen=True)
class Reading:
    """The result of reading a completion.

    Attributes:
        answer: ``undetermined``, with the reason as its parse status, where no answer could be read.
        label_position: position in the completion of the token whose probability is the confidence, or None.
        label_tokens: the two tokens there, for safe and for violating; None for the family's own.
        reasoning_tokens: how many tokens of the completion are reasoning that its budget bounds.
    """

    answer: Answer
    label_position: int | None = None
    label_tokens: tuple[int, int] | None = None
    reasoning_tokens: int = 0


@dataclass(slots=True, frozen=True)
class Exchange:
    """One attempt as people read it; for a terminal alone, since it holds the post and the model's reasoning.

    Attributes:
        request_id: of the request that it belongs to.
        effort: at which the model was asked.
        prompt, completion: as text, with control tokens by their names.
        prompt_tokens, completion_tokens: their lengths in tokens.
        analysis: the reasoning in the completion, without markers; empty if there is none.
    """

    request_id: str
    effort: Effort
    prompt: str
    completion: str
    prompt_tokens: int
    completion_tokens: int
    analysis: str


class Template(Protocol):
    """Renders a policy's part of the prompt as text. Needs no model.

    Attributes:
        version: raised by hand with each change of the template.
        sha256: hex digest of the template.
    """

    @property
    def version(self) -> str:
        """Raised by hand with each change of the template."""

    @property
    def sha256(self) -> str:
        """Hex digest of the template."""

    def render(self, policy: Policy, date: str) -> dict[str, Any]:
        """Return the messages before the post, at every effort, as JSON values; the archive keeps them.

        Args:
            policy: whose part it is.
            date: ``YYYY-MM-DD``, of the prompt.
        """


class Family(Protocol):
    """One model, as its family reads and writes it. All methods may be called from any thread."""

    @property
    def template(self) -> Template:
        """The template of its prompts."""

    @property
    def labels(self) -> tuple[int, int] | None:
        """Ids of the tokens that say "safe" and "violates"; None where either is more than one token."""

    def describe(self) -> str:
        """Return a few words about the tokenizer, for ``stream-guard doctor``."""

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, none of which is a control token."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without control tokens."""

    def show(self, ids: Sequence[int]) -> str:
        """Return the text of token ids with control tokens by their names, for people."""

    def prefix(self, policy: Policy, effort: Effort) -> Prefix:
        """Return the policy's part of the prompt.

        Raises:
            PolicyError: the policy's text yields a control token.
        """

    def prefix_of(self, messages: Mapping[str, Any], effort: Effort, policy_id: str) -> Prefix:
        """Return the policy's part of the prompt, from messages that :meth:`Template.render` made, now or earlier.

        Raises:
            PolicyError: a message yields a control token.
            KeyError: a message is missing.
        """

    def prompt(self, post: Post, prefix: Prefix) -> list[int]:
        """Return the whole prompt's token ids.

        Raises:
            PromptError: the post's text yields a control token.
        """

    def check_structure(self, policy: Policy, prefix: Prefix) -> None:
        """Return if no hostile post can change the structure of the policy's prompt.

        Raises:
            PolicyError: one can; names it.
        """

    def sampling(self, policy: Policy, budget: Budget) -> Sampling:
        """Return how an attempt under a policy is sampled."""

    def unconstrained(self, policy: Policy, budget: Budget) -> Unconstrained | None:
        """Return how the same attempt is made without a constraint; None if this family always needs one."""

    def in_parts(self, policy: Policy, budget: Budget) -> InParts | None:
        """Return how the same attempt is made in two parts; None if this family does not reason."""

    def read(self, ids: Sequence[int], policy: Policy, *, complete: bool) -> Reading:
        """Read the answer from a completion; never raises.

        Args:
            ids: the completion's tokens.
            policy: what the answer may name.
            complete: whether the model ended by itself.
        """

    def reasoning(self, ids: Sequence[int]) -> str:
        """Return the reasoning in a completion, without markers; empty if there is none. Never raises."""


@dataclass(slots=True, frozen=True)
class FamilyKind:
    """A family before its model is read: how it is recognised and loaded.

    Attributes:
        name: in the archive and in messages.
        architectures: the values of ``architectures`` in ``config.json`` that belong to it.
        template: of its prompts.
        load: reads the model's tokenizer. Raises EngineError.
    """

    name: str
    architectures: tuple[str, ...]
    template: Template
    load: Callable[[EngineSettings], Family]


def exchange_of(
    family: Family,
    request_id: str,
    effort: Effort,
    prompt: Sequence[int],
    completion: Sequence[int],
) -> Exchange:
    """Return one attempt as people read it."""
    return Exchange(
        request_id,
        effort,
        family.show(prompt),
        family.show(completion),
        len(prompt),
        len(completion),
        family.reasoning(completion).strip(),
    )


def hash_ids(ids: Sequence[int]) -> str:
    """Return the hex SHA-256 of token ids, each as four bytes, least significant byte first."""
    return hashlib.sha256(array("I", ids).tobytes()).hexdigest()
