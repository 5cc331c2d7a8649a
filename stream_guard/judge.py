"""What a judge is asked, and what it answers: plain data, shared by every judge. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from stream_guard.errors import RecordError
    from stream_guard.policy import Policy
    from stream_guard.post import Post

Decision: TypeAlias = Literal["violates", "safe", "undetermined"]
Effort: TypeAlias = Literal["low", "medium", "high"]
FinishReason: TypeAlias = Literal["stop", "length", "error", "none"]
ParseStatus: TypeAlias = Literal[
    "ok",  # exactly the shape that was asked for
    "repaired",  # read leniently: the meaning was clear, the form was not
    "category_dropped",  # the answer named a category or rule id that the policy does not have
    "malformed",  # no answer could be read, after every retry
    "empty",  # the final channel was missing or empty, after every retry
    "truncated",  # ran into a token limit before an answer, after every retry
    "timeout",  # no answer before the request's deadline
    "not_applicable",  # the tier that decided reads no model output
]


TierOutcome: TypeAlias = Literal["settled", "escalated", "skipped"]


class TierStep(NamedTuple):
    """What one tier did with a post: one line of a verdict's trail.

    Attributes:
        tier: ``duplicates``, ``rules``, ``classifier``, ``safeguard``.
        outcome: ``skipped`` where it was left out (see ``Provenance.degraded``).
        reason: why, machine-readable, without post text.
        duration_us: how long it took, in us.
        effort: of the model, on the ladder's rung; None for the other tiers.
    """

    tier: str
    outcome: TierOutcome
    reason: str
    duration_us: int
    effort: Effort | None = None


@dataclass(slots=True, frozen=True)
class Answer:
    """What was decided, checked against the policy's own categories and rule ids."""

    decision: Decision
    category: str | None = None
    rule_ids: tuple[str, ...] = ()
    rationale: str | None = None
    parse_status: ParseStatus = "ok"


@dataclass(slots=True)
class Provenance:
    """How the answer came about; counts are tokens, summed over attempts where they were spent.

    ``prompt_sha256`` is the digest of token ids of the policy's part of the prompt, ``prompt_ids_sha256`` of all.

    Treated as immutable (not frozen, since freezing triples the cost of making one).
    """

    tier: str
    model: str
    revision: str | None = None
    engine_version: str | None = None
    effort: Effort | None = None
    prompt_sha256: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    finish_reason: FinishReason = "none"
    attempts: int = 1
    degraded: tuple[str, ...] = ()
    trail: tuple[TierStep, ...] = ()
    prompt_ids_sha256: str | None = None


class Thought(NamedTuple):
    """The chain of thought of one attempt; for the reasoning topic alone, never for logs, spans or verdicts.

    Attributes:
        effort: at which the model was asked.
        text: what it wrote outside its answer.
        cut: whether some of it is left out.
    """

    effort: Effort
    text: str
    cut: bool = False


@dataclass(slots=True, eq=False)
class JudgeRequest:
    """One post under one policy.

    Attributes:
        id: unique in this process.
        post, policy: what to judge, and by what.
        trace_headers: W3C headers (``traceparent``) of ``span``, for a judge that makes no span of its own for its
            engine's to hang under; None when the record is not traced.
        context: the asker's own; comes back untouched.
        effort, reasoning_tokens_max: in place of the policy's own, on a rung of the ladder; None for the policy's.
        span: the asker's, open while the request is judged; None when the record is not sampled.
    """

    id: str
    post: Post
    policy: Policy
    trace_headers: dict[str, str] | None = None
    context: object = None
    span: Span | None = None
    effort: Effort | None = None
    reasoning_tokens_max: int | None = None


@dataclass(slots=True, eq=False)
class Judgement:
    """The outcome of one request: an answer, or the post's own fault.

    Exactly one of ``answer`` and ``error`` is set. Death of the engine is neither: the request is
    then never delivered, and :meth:`stream_guard.ports.Judge.wait_failed` says why. ``thoughts`` are there only where
    they are asked for, one for each attempt on each rung.
    """

    request: JudgeRequest
    answer: Answer | None = None
    error: RecordError | None = None
    provenance: Provenance | None = None
    confidence: float | None = None
    confidence_method: str | None = None
    started_ns: int = 0
    finished_ns: int = 0
    thoughts: tuple[Thought, ...] = field(default=(), repr=False)
