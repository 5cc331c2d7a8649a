"""Harmony as a model family: gpt-oss and gpt-oss-safeguard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_guard.judging.families.family import (
    Constraint,
    FamilyKind,
    InParts,
    Reading,
    Reasoning,
    Sampling,
    Unconstrained,
)
from stream_guard.judging.families.harmony.allowed import Allowed
from stream_guard.judging.families.harmony.answer import (
    read_answer,
    violation_position,
    word_position,
)
from stream_guard.judging.families.harmony.grammar import (
    answer_tag,
    completion_tokens_max,
    structural_tag,
)
from stream_guard.judging.families.harmony.prompt import (
    OUTCOMES_OF_VIOLATION,
    HarmonyTemplate,
    PromptBuilder,
)
from stream_guard.judging.families.harmony.reasoning import read_reasoning
from stream_guard.judging.families.harmony.structure import check_structure
from stream_guard.judging.families.harmony.tokenizer import HarmonyTokenizer, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_guard.core.vocabulary import Effort
    from stream_guard.judging.families.family import Budget, Family, Prefix
    from stream_guard.policies.policy import Policy
    from stream_guard.settings import EngineSettings

__all__ = ["HARMONY", "Harmony"]

_TEMPLATE: Final = HarmonyTemplate()


class Harmony:
    """A :class:`stream_guard.judging.families.family.Family`.

    Args:
        tokenizer: of the model.
        date: ``YYYY-MM-DD``, in the system message.

    Attributes:
        tokenizer: of the model.
        labels: ids of "0" and "1", or None.
    """

    template = _TEMPLATE

    def __init__(self, tokenizer: HarmonyTokenizer, date: str) -> None:
        self.tokenizer = tokenizer
        self._control = tokenizer.control
        self._opening = (
            tokenizer.control.channel,
            *tokenizer.encode("analysis"),
            tokenizer.control.message,
        )
        self._builder = PromptBuilder(tokenizer, tokenizer.control, date)
        zero, one = tokenizer.token_id("0"), tokenizer.token_id("1")
        self.labels = None if zero is None or one is None else (zero, one)
        # Called once for each post: the builder's own method saves a call.
        self.prompt = self._builder.build

    def describe(self) -> str:
        """Say how many control tokens the tokenizer has."""
        return f"{len(self._control.every)} control tokens"

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, none of which is a control token."""
        return self.tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without control tokens."""
        return self.tokenizer.decode(ids)

    def show(self, ids: Sequence[int]) -> str:
        """Return the text of token ids with control tokens by their names."""
        return self.tokenizer.show(ids)

    def prefix(self, policy: Policy, effort: Effort) -> Prefix:
        """Return system message, developer message and the head of the user message. Raises PolicyError."""
        return self._builder.prefix(policy, effort)

    def prefix_of(self, messages: Mapping[str, Any], effort: Effort, policy_id: str) -> Prefix:
        """Return the same for rendered messages. Raises PolicyError, KeyError."""
        return self._builder.prefix_of(
            messages["system"][effort],
            messages["developer"],
            policy_id,
            messages.get("judge", "post"),
            native=messages.get("answer") == "native",
        )

    def check_structure(self, policy: Policy, prefix: Prefix) -> None:
        """Return if no hostile post can change the prompt's structure. Raises PolicyError."""
        check_structure(policy, self._builder, prefix, self._control)

    def sampling(self, policy: Policy, budget: Budget) -> Sampling:
        """Return a structural tag of the whole completion, and its longest length."""
        return Sampling(
            Constraint(
                "structural_tag",
                structural_tag(policy.taxonomy, self._control, budget, policy.native),
            ),
            completion_tokens_max(policy.taxonomy, budget, policy.native),
            label_after=self._control.message,
        )

    def unconstrained(self, policy: Policy, budget: Budget) -> Unconstrained:
        """Return the same length without the tag. Only completions that the tag allows count."""
        native = policy.native
        return Unconstrained(
            Sampling(
                None,
                completion_tokens_max(policy.taxonomy, budget, native),
                label_after=self._control.message,
            ),
            Allowed(policy.taxonomy, self._control, self.tokenizer, budget, native),
            Reasoning(self._opening, self._control.every, (self._control.end,)),
        )

    def in_parts(self, policy: Policy, budget: Budget) -> InParts:
        """Return the analysis channel up to its end, and the final channel under a tag of the answer alone."""
        control, encode, native = self._control, self.tokenizer.encode, policy.native
        longest = completion_tokens_max(policy.taxonomy, budget, native)
        tag = answer_tag(policy.taxonomy, budget.rationale_tokens_max, native)
        return InParts(
            self._opening,
            Sampling(
                None,
                budget.reasoning_tokens_max,
                stops=tuple(sorted(control.every)),
                labelled=False,
            ),
            (
                *(control.end, control.start, *encode("assistant")),
                *(control.channel, *encode("final"), control.message),
            ),
            Sampling(Constraint("structural_tag", tag), longest - budget.reasoning_tokens_max),
        )

    def read(self, ids: Sequence[int], policy: Policy, *, complete: bool) -> Reading:
        """Read the answer from the final channel. Never raises."""
        native = policy.native
        found = read_answer(
            ids, policy.taxonomy, self._control, self.tokenizer, complete=complete, native=native
        )
        tokens = self._word_tokens(policy)
        if tokens is not None:
            position = word_position(found, tokens)
        elif self.labels is not None and (native is None or native.kind == "json"):
            position = violation_position(found, self.labels, self.tokenizer)
        else:
            position = None
        return Reading(found.answer, position, tokens, found.reasoning_tokens)

    def _word_tokens(self, policy: Policy) -> tuple[int, int] | None:
        """Return the first tokens of a native policy's two words, for safe and violating, where they differ.

        There is no confidence where a policy has more labels, since the engine reports the chosen token alone.
        """
        native, taxonomy = policy.native, policy.taxonomy
        if (
            native is None
            or native.kind != "words"
            or len(taxonomy.outcomes) > OUTCOMES_OF_VIOLATION
        ):
            return None
        safe, violates = (
            self.tokenizer.encode(word)[0]
            for word in (taxonomy.safe_label, taxonomy.violates_label)
        )
        return None if safe == violates else (safe, violates)

    def reasoning(self, ids: Sequence[int]) -> str:
        """Return the text of the reasoning channels. Never raises."""
        return read_reasoning(ids, self._control, self.tokenizer)


def _load(settings: EngineSettings) -> Family:
    return Harmony(load_tokenizer(settings), settings.prompt_date)


HARMONY: Final = FamilyKind("harmony", ("GptOssForCausalLM",), _TEMPLATE, _load)
