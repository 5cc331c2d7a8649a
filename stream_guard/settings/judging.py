"""Settings of the engine and of the cascade of tiers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from stream_guard.core.decoding import SAMPLES_MAX, TEMPERATURE_MAX, decoding_fault
from stream_guard.core.vocabulary import HOPS_MAX, Severity, Tier
from stream_guard.settings.section import Section

_MODELS: Final = {"demo": Path(__file__).parents[1] / "cli" / "demo" / "model"}
"""Models that come with this package, by the name that ``engine.model`` gives them."""
_Share = Annotated[float, Field(ge=0, le=1)]


class EngineSettings(Section):
    """The model and the engine. ``extra`` passes any other engine argument to vLLM."""

    kind: Literal["vllm", "scripted"] = "vllm"
    """``vllm`` runs the model. ``scripted`` judges by a fixed rule, without a model, for load tests of the pipeline."""
    scripted_violates: str = Field("[violates]", min_length=1)
    """With ``scripted``: a post whose text contains this word violates, in the policy's first violating category; any
    other post is safe. Its verdicts name ``scripted`` as their model."""
    model: str = Field("openai/gpt-oss-safeguard-20b", min_length=1)
    """The model: a folder, a name on the Hugging Face hub, or ``demo`` for the tiny model in this package."""
    revision: str | None = None
    """The model's revision; pin it to keep the same weights and tokenizer."""
    dtype: str = "auto"
    """vLLM's ``dtype``."""
    max_model_len: int | None = Field(None, ge=64)
    """Longest prompt and answer together, in tokens. By default as long as the model takes (131,072 for
    gpt-oss-safeguard) and the memory for the KV cache allows. A longer post is judged in windows."""
    max_num_seqs: int = Field(256, ge=1)
    """Requests that vLLM runs at the same time."""
    max_num_batched_tokens: int = Field(8_192, ge=64)
    """Tokens that vLLM computes in one step."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of the GPU's memory that vLLM uses."""
    kv_cache_memory_bytes: int | None = Field(None, ge=1 << 20)
    """Size of the KV cache, in bytes; replaces ``gpu_memory_utilization``."""
    load_format: str = "auto"
    """vLLM's ``load_format``; ``dummy`` uses random weights of the model's shape."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further engine arguments, passed to vLLM unchanged."""
    effort: Literal["low", "medium", "high"] = "low"
    """How long the model reasons, unless the policy says otherwise."""
    answer: Literal["structured", "native"] = "structured"
    """How the model is asked, unless the policy says otherwise. ``structured``: for JSON with a rationale, in a format
    that Stream Guard states. ``native``: by the policy alone, in the format that its text states."""
    reasoning_tokens_max: int = Field(512, ge=1)
    """Reasoning budget, in tokens. The model never exceeds it."""
    rationale_tokens_max: int = Field(96, ge=1)
    """Longest rationale, in tokens."""
    constraint: Literal["auto", "always", "answer", "on_retry"] = "auto"
    """When vLLM holds the model's output to the policy's grammar. ``always``: every token. ``answer``: the answer, by a
    second request after the reasoning. ``on_retry``: the first attempt is free. Its answer counts only if the grammar
    allows it; otherwise the post is asked as with ``always``. ``auto``: the fastest one on this kind of machine; the
    log says which, and why."""
    attempts_max: int = Field(2, ge=1, le=5)
    """Attempts under the grammar to get an answer that can be parsed; each has half the reasoning budget of the last.
    """
    speculation: Literal["off", "ngram", "ngram_gpu"] = "off"
    """Whether vLLM proposes tokens ahead and checks several in one step. ``ngram``: what followed the same tokens in
    the prompt or the answer; vLLM then has no asynchronous scheduling. ``ngram_gpu``: the same, proposed on the GPU,
    with asynchronous scheduling. The verdicts are the same; whether it is faster depends on model and card."""
    speculation_tokens: int = Field(4, ge=1, le=32)
    """Most tokens proposed for a post in one step."""
    warm_steps: bool | None = None
    """Whether a step of every length up to ``max_num_batched_tokens`` is run at the start, so that nothing is compiled
    while posts are judged. By default on a GPU alone. The first start takes minutes longer; later ones find the kernels
    in ``TRITON_CACHE_DIR``."""
    window_overlap_tokens: int = Field(128, ge=0, le=4_096)
    """A post that is longer than the model's context is judged in windows. Neighbours share about this many tokens."""
    request_timeout_s: float = Field(60, gt=0)
    """Timeout of one post, in s; without an answer the post is ``undetermined``."""
    start_timeout_s: float = Field(1_800, gt=0)
    """Timeout of the engine's start, in s; after it the service stops."""
    hang_timeout_s: float | None = Field(None, gt=0)
    """An engine that has posts but decides none for this long, in s, is killed and rebuilt. Must exceed
    ``request_timeout_s``; the default is twice that."""
    rebuilds_max: int = Field(10, ge=0)
    """Most rebuilds of the engine within ``rebuild_window_s``, failed ones included; one more stops the service."""
    rebuild_window_s: float = Field(3_600, gt=0)
    """The window for ``rebuilds_max``, in s."""
    rebuild_backoff_s_min: float = Field(1, ge=0)
    """Pause before the first rebuild, in s. It doubles with each rebuild until a post is judged."""
    rebuild_backoff_s_max: float = Field(60, ge=0)
    """Longest pause before a rebuild, in s."""
    deaths_per_post_max: int = Field(2, ge=1)
    """Most deaths or hangs of the engine on one post. At the limit the post becomes a dead letter, if the engine had no
    other post the last time."""
    in_flight_requests_max: int | None = Field(None, ge=1)
    """Most requests in vLLM, running or queued; the default is twice ``max_num_seqs``."""
    in_flight_tokens_max: int | None = Field(None, ge=64)
    """Most prompt tokens in vLLM, running or queued; no limit where unset."""
    prompt_date: str = Field("2025-01-01", pattern=r"^\d{4}-\d{2}-\d{2}$")
    """The date in harmony's system message, fixed, so that prefixes stay cached and a prompt can be rebuilt."""

    @field_validator("model")
    @classmethod
    def _named(cls, model: str) -> str:
        return str(_MODELS.get(model, model))

    @model_validator(mode="after")
    def _ordered(self) -> EngineSettings:
        if self.hang_s <= self.request_timeout_s:
            raise ValueError(
                "hang_timeout_s must exceed request_timeout_s, or one slow post looks like a hung engine"
            )
        if self.rebuild_backoff_s_max < self.rebuild_backoff_s_min:
            raise ValueError("rebuild_backoff_s_max must not be below rebuild_backoff_s_min")
        return self

    @property
    def requests_max(self) -> int:
        """``in_flight_requests_max``, or its default."""
        return self.in_flight_requests_max or 2 * self.max_num_seqs

    @property
    def hang_s(self) -> float:
        """``hang_timeout_s``, or its default."""
        return 2 * self.request_timeout_s if self.hang_timeout_s is None else self.hang_timeout_s


class RungSettings(Section):
    """One rung of the ladder: how long the model reasons, its budget, and how its answers are drawn."""

    effort: Literal["medium", "high"]
    """How long the model reasons on this rung."""
    reasoning_tokens_max: int = Field(ge=1, le=32_768)
    """Reasoning budget on this rung, in tokens. A larger budget of the policy is kept."""
    temperature: float | None = Field(None, ge=0, le=TEMPERATURE_MAX)
    """Temperature on this rung; 0 is greedy. By default the policy's own."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Share of the probability that tokens are drawn from on this rung. By default the policy's own."""
    samples: int | None = Field(None, ge=1, le=SAMPLES_MAX)
    """Answers that vote on the decision on this rung. By default the policy's own."""

    @model_validator(mode="after")
    def _sampled(self) -> RungSettings:
        fault = decoding_fault(self.temperature, self.top_p, self.samples)
        if fault is not None:
            raise ValueError(fault)
        return self


class CascadeSettings(Section):
    """The tiers, when the model is asked again, and what is skipped under pressure."""

    tiers: tuple[Tier, ...] = Field(
        ("duplicates", "rules", "classifier", "safeguard"), min_length=1
    )
    """The tiers in order, unless the policy names its own. ``safeguard`` is the model and comes last."""
    duplicates_entries_max: int = Field(100_000, ge=1)
    """Most answers kept for duplicate posts, about 1 kB each; the least recently used are dropped first."""
    duplicates_ttl_s: float = Field(3_600, gt=0)
    """How long an answer is kept, in s."""
    duplicates_across_tenants: bool = False
    """Whether equal posts of different tenants share an answer. The trail then names another tenant's post."""
    classifier: str | None = Field(None, min_length=1)
    """The classifier of policies that have ``thresholds`` but name no classifier: ``builtin:NAME``, or a folder."""
    classifier_threads: int = Field(1, ge=1, le=64)
    """Threads of the classifier, in addition to the engine's."""
    ladder: tuple[RungSettings, ...] = (
        RungSettings(effort="medium", reasoning_tokens_max=1_024),
        RungSettings(effort="high", reasoning_tokens_max=2_048),
    )
    """Rungs above a policy's own effort, lowest first. With none the model is asked once."""
    uncertain_band: tuple[_Share, _Share] = (0.2, 0.8)
    """The model is asked again, one rung higher, if its confidence is in this range (both ends included)."""
    severe: tuple[Severity, ...] = ("high", "critical")
    """Severe violations: the model is asked again, one rung higher, and pressure skips these policies last."""
    pressure_effort_age_s_max: float | None = Field(60, gt=0)
    """Pressure, level 1: if the oldest post waits longer, in s, the model is asked once, at low effort. Unset: never.
    """
    pressure_effort_lag_records_max: int | None = Field(None, ge=1)
    """The same for the lag, in records."""
    pressure_severe_only_age_s_max: float | None = Field(None, gt=0)
    """Pressure, level 2: if the oldest post waits longer, in s, the model judges severe policies only. Unset: never."""
    pressure_severe_only_lag_records_max: int | None = Field(None, ge=1)
    """The same for the lag, in records."""
    pressure_undetermined_age_s_max: float | None = Field(None, gt=0)
    """Pressure, level 3: if the oldest post waits longer, in s, the model is not asked and the policy's
    ``undetermined`` applies. Unset: never."""
    pressure_undetermined_lag_records_max: int | None = Field(None, ge=1)
    """The same for the lag, in records."""
    pressure_recovery_ratio: float = Field(0.5, gt=0, lt=1)
    """Pressure falls by a level when age and lag are below this share of the level's limits."""
    pressure_hold_s: float = Field(30, ge=0)
    """How long age and lag must stay below that share, in s, for each step down."""
    pressure_interval_s: float = Field(1, gt=0)
    """How often the pressure is measured, in s."""
    deployment: str | None = Field(None, min_length=1, max_length=249)
    """The name of this deployment in escalations; the default is ``kafka.group_id``. Each deployment needs its own."""
    escalation_topic: str | None = Field(None, min_length=1, max_length=249)
    """The topic for posts that another deployment, with a larger model, judges again. It holds the text of posts: limit
    who may read it, and for how long it is kept. Unset: none are."""
    escalation: Literal["provisional", "withhold"] = "provisional"
    """What is published of a post that goes to ``escalation_topic``. ``provisional``: the verdict so far, marked as
    provisional, until the other deployment's verdict supersedes it. ``withhold``: nothing until then."""
    escalation_why: tuple[Literal["uncertain", "severe"], ...] = Field(
        ("uncertain", "severe"), min_length=1
    )
    """Which of the model's answers go to ``escalation_topic``, once the ladder has ended. ``uncertain``: the confidence
    is in ``uncertain_band``, nothing was decided, or the reasoning was cut. ``severe``: a violation that ``severe``
    names."""
    escalation_group: str | None = Field(None, min_length=1)
    """The consumer group of the deployment that reads ``escalation_topic``. With it, this deployment shows how far
    behind that one is. It needs Describe on the group."""
    escalation_deadline_s: float | None = Field(None, gt=0)
    """With ``withhold``: how long the other deployment has, in s. After it the verdict so far is published as
    provisional, and counts until the other verdict supersedes it. Unset: no limit."""
    escalation_hops_max: int = Field(2, ge=1, le=HOPS_MAX)
    """Most deployments that judge a post before its last one. At the limit the verdict so far is final."""
    escalated_topic: str | None = Field(None, min_length=1, max_length=249)
    """The ``escalation_topic`` of another deployment, which this one reads as the larger model. ``kafka.topics`` may
    then be empty."""
    escalated_policy: Literal["own", "same"] = "own"
    """If an escalated post was judged by another version of its policy than this deployment has. ``own``: it is judged
    by this deployment's version, which the verdict names. ``same``: it is not judged again, and the verdict so far is
    final."""

    @model_validator(mode="after")
    def _consistent(self) -> CascadeSettings:
        if len(set(self.tiers)) < len(self.tiers):
            raise ValueError("tiers: a tier is named twice; remove one")
        if "safeguard" in self.tiers[:-1]:
            raise ValueError("tiers: safeguard decides every post that reaches it; put it last")
        efforts = [rung.effort for rung in self.ladder]
        budgets = [rung.reasoning_tokens_max for rung in self.ladder]
        if efforts not in ([], ["medium"], ["high"], ["medium", "high"]):
            raise ValueError("ladder: use each effort at most once, medium before high")
        if budgets != sorted(budgets):
            raise ValueError("ladder: a higher rung needs at least the budget of the one below")
        if self.uncertain_band[0] > self.uncertain_band[1]:
            raise ValueError("uncertain_band: write the lower end first")
        self._check_escalation()
        for unit in ("age_s", "lag_records"):
            levels = ("effort", "severe_only", "undetermined")
            names = [f"pressure_{level}_{unit}_max" for level in levels]
            limits = [(getattr(self, name), name) for name in names if getattr(self, name)]
            for (low, lower), (high, higher) in itertools.pairwise(limits):
                if low >= high:
                    raise ValueError(f"{higher} must be above {lower}")
        return self

    def _check_escalation(self) -> None:
        if self.escalation_topic is None:
            for name in ("escalation_group", "escalation_deadline_s"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} needs escalation_topic; set it")
        elif self.escalation_topic == self.escalated_topic:
            raise ValueError(
                "escalation_topic must not be escalated_topic, or posts go round; use two topics"
            )
        if self.escalation_deadline_s is not None:
            if self.escalation != "withhold":
                raise ValueError(
                    'escalation_deadline_s needs escalation = "withhold": a provisional verdict is published at once'
                )
            if self.escalation_group is None:
                raise ValueError(
                    "escalation_deadline_s needs escalation_group, whose positions say which posts it judged in time"
                )
