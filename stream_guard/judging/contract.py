"""Defines what a judge is asked and what it answers: plain data, shared by every judge. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import TypeVar

    from stream_guard.core.decoding import Decoding
    from stream_guard.core.errors import RecordError
    from stream_guard.core.vocabulary import Decision, Effort, Severity
    from stream_guard.policies.lanes import Lane
    from stream_guard.policies.policy import Policy, PolicySet
    from stream_guard.records.post import Post
    from stream_guard.telemetry.trace_context import Span

    # A caller that gives no context need not name its type.
    ContextT = TypeVar("ContextT", default=Any)
else:
    from typing import TypeVar  # before Python 3.13 it takes no default

    ContextT = TypeVar("ContextT")

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
        outcome: ``skipped`` if it was left out (see ``Provenance.degraded``).
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
    """The decision, checked against the policy's own labels, categories and rule ids.

    Attributes:
        decision: what the answer decides; ``undetermined`` also for a label that leaves it to people.
        category, rule_ids: of the policy.
        rationale: one or two sentences, or None.
        parse_status: how the answer was read.
        labels: the policy's own words, where the decision does not tell them: one of more than two outcomes, or
            one label of each kind.
        needs_review: whether the answer itself asks for a person.
    """

    decision: Decision
    category: str | None = None
    rule_ids: tuple[str, ...] = ()
    rationale: str | None = None
    parse_status: ParseStatus = "ok"
    labels: tuple[str, ...] = ()
    needs_review: bool = False

    @property
    def is_escalated(self) -> bool:
        """Whether the answer is a label that leaves the decision to people: undetermined, and no failure."""
        return self.decision == "undetermined" and bool(self.labels)


class Votes(NamedTuple):
    """How many samples of one prompt made each decision; ``unread`` are those without an answer."""

    violates: int = 0
    safe: int = 0
    undetermined: int = 0
    unread: int = 0

    def majority(self) -> Decision | None:
        """Return the decision with more than half of the votes; None if there is none. ``unread`` are no votes."""
        half = (self.violates + self.safe + self.undetermined) / 2
        decisions: tuple[Decision, ...] = ("violates", "safe", "undetermined")
        return next((word for word in decisions if getattr(self, word) > half), None)


class Sampled(NamedTuple):
    """How an answer was drawn, where it was not chosen greedily.

    Attributes:
        temperature, top_p, samples: as in :class:`stream_guard.core.decoding.Decoding`.
        votes: of the samples.
    """

    temperature: float
    top_p: float
    samples: int
    votes: Votes

    @property
    def is_tied(self) -> bool:
        """Whether samples were read, and none of their decisions has a majority."""
        return self.votes.unread < sum(self.votes) and self.votes.majority() is None


@dataclass(slots=True)
class Provenance:
    """How the answer came about. Counts are tokens, summed over all attempts.

    ``prompt_sha256`` is the digest of the token ids of the policy's part of the prompt, ``prompt_ids_sha256`` of the
    whole prompt. ``reasoning_cut`` says that the answer's reasoning used its whole budget. ``sampling``
    is None where the answer was chosen greedily, or by no model. ``windows`` counts the overlapping parts in which the
    post was judged, ``context_dropped`` the texts of the thread that the prompt had no room for. ``prompt_tokens_max``
    is that room in tokens, or None where everything fitted. Treat it as immutable; it is not frozen, since freezing
    triples the cost of making one.
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
    reasoning_cut: bool = False
    sampling: Sampled | None = None
    windows: int = 1
    context_dropped: int = 0
    prompt_tokens_max: int | None = None

    def copy(self) -> Provenance:
        """Return a copy with all fields, for the caller to change; faster than ``dataclasses.replace``."""
        kind = type(self)
        values_of = _VALUES_OF.get(kind)
        if values_of is None:
            values_of = _VALUES_OF[kind] = attrgetter(*(one.name for one in fields(kind)))
        return kind(*values_of(self))


_VALUES_OF: Final[dict[type[Provenance], Callable[[Any], tuple[Any, ...]]]] = {}
"""Reads all fields of one kind of provenance."""


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


class Decided(NamedTuple):
    """The person's decision behind an answer.

    Attributes:
        decision_id: of the decision.
        decided_at_ms: when it was made, Unix time in ms.
        action: recommended to enforcement.
        severity: of the category, or None.
        valid_until_ms: when it expires, Unix time in ms, or None.
    """

    decision_id: str
    decided_at_ms: int
    action: str
    severity: Severity | None = None
    valid_until_ms: int | None = None


@dataclass(slots=True, eq=False)
class JudgeRequest(Generic[ContextT]):
    """One post under one policy.

    Attributes:
        id: unique in this process.
        post, policy: what to judge, and by what.
        context: the caller's own object, of any type. The judge returns it untouched.
        trace_headers: W3C headers (``traceparent``) of ``span``, for a judge that makes no span of its own for its
            engine's to hang under; None when the record is not traced.
        effort, reasoning_tokens_max, decoding: in place of the policy's own, on a rung of the ladder; None for the
            policy's.
        run: number of the repetition. Equal requests of one run draw equal samples, as far as the engine allows;
            other runs draw others.
        span: the asker's, open while the request is judged; None when the record is not sampled.
        lane: which shares the engine with others; None where no lanes are named.
        tokens: estimated cost of the request to the engine; 0 where there is no lane.
        delayed: whether its tenant's quota holds it back now.
    """

    id: str
    post: Post
    policy: Policy
    context: ContextT = None  # type: ignore[assignment]  # only callers that read it back give one
    trace_headers: dict[str, str] | None = None
    span: Span | None = None
    effort: Effort | None = None
    reasoning_tokens_max: int | None = None
    decoding: Decoding | None = None
    run: int = 0
    lane: Lane | None = None
    tokens: int = 0
    delayed: bool = False


@dataclass(slots=True, eq=False)
class Judgement(Generic[ContextT]):
    """The outcome of one request: an answer, or the post's own fault.

    Exactly one of ``answer`` and ``error`` is set. Death of the engine is neither: the request is
    then never delivered, and :meth:`Judge.wait_failed` says why. ``thoughts`` are there only where
    they are asked for, one for each attempt on each rung. ``decided`` is there only where a person decided.
    """

    request: JudgeRequest[ContextT]
    answer: Answer | None = None
    error: RecordError | None = None
    provenance: Provenance | None = None
    confidence: float | None = None
    confidence_method: str | None = None
    started_ns: int = 0
    finished_ns: int = 0
    thoughts: tuple[Thought, ...] = field(default=(), repr=False)
    decided: Decided | None = None


class Judge(Protocol):
    """Judges posts. Requests run side by side; outcomes come in any order."""

    async def start(self, policies: PolicySet) -> None:
        """Return when ready to judge by any of these policies without a cold start.

        Raises:
            EngineError: it cannot start; the message names the setting and the remedy.
        """

    async def prepare(self, policies: PolicySet) -> None:
        """Return when ready to judge by these policies as well; those in flight keep theirs.

        Raises:
            PolicyError: a policy cannot be judged by; the judge goes on as before.
            EngineError: the judge itself is at fault.
        """

    def submit(
        self,
        requests: Sequence[JudgeRequest[ContextT]],
        deliver: Callable[[Sequence[Judgement[ContextT]]], None],
    ) -> None:
        """Take requests; each comes back, once, in some call of ``deliver`` on the event loop."""

    def cancel(self, requests: Sequence[JudgeRequest[Any]]) -> None:
        """Stop work on these, if any is left; they are not delivered any more."""

    def in_flight(self) -> int:
        """Requests taken and not yet delivered."""

    async def wait_failed(self) -> BaseException:
        """Return the error, once the judge can judge no more."""

    def describe(self) -> Mapping[str, str]:
        """Model, revision, engine and version, for the start-up line."""

    async def close(self) -> None:
        """Drop what is in flight, and release the engine."""
