"""The engine, and the tiers round it."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stream_guard.core.vocabulary import Severity, Tier
from stream_guard.settings.section import Section

_Share = Annotated[float, Field(ge=0, le=1)]


class EngineSettings(Section):
    """The model and the engine; what is not named here goes to vLLM through ``extra``."""

    kind: Literal["vllm", "scripted"] = "vllm"
    """``scripted`` judges by a fixed rule, without a model: for load tests of the pipeline."""
    model: str = "openai/gpt-oss-safeguard-20b"
    """A folder, or a model's name on a hub."""
    revision: str | None = None
    """The model's revision; pin it to keep the same weights and tokenizer."""
    dtype: str = "auto"
    """vLLM's ``dtype``."""
    max_model_len: int = Field(8_192, ge=64)
    """Longest prompt and answer together, in tokens."""
    max_num_seqs: int = Field(256, ge=1)
    """Requests that vLLM runs side by side."""
    max_num_batched_tokens: int = Field(8_192, ge=64)
    """Tokens that vLLM computes in one step."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of the GPU's memory that vLLM takes."""
    kv_cache_memory_bytes: int | None = Field(None, ge=1 << 20)
    """Size of the KV cache, in bytes, instead of a share of memory."""
    load_format: str = "auto"
    """vLLM's ``load_format``; ``dummy`` makes random weights in the model's shape."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Passed on to vLLM's engine arguments as it is."""
    effort: Literal["low", "medium", "high"] = "low"
    """How long the model reasons, for policies that do not say."""
    reasoning_tokens_max: int = Field(512, ge=1)
    """Reasoning budget, in tokens; exact."""
    rationale_tokens_max: int = Field(96, ge=1)
    """Longest rationale, in tokens."""
    attempts_max: int = Field(2, ge=1, le=5)
    """Tries for an answer that can be read; each with half the budget of the last."""
    request_timeout_s: float = Field(60, gt=0)
    """A post without an answer by then is ``undetermined``."""
    start_timeout_s: float = Field(1_800, gt=0)
    """The engine must be ready by then."""
    hang_timeout_s: float | None = Field(None, gt=0)
    """An engine that decides nothing for so long, while it has posts, hangs and is killed; above
    ``request_timeout_s``, by default twice that."""
    rebuilds_max: int = Field(10, ge=0)
    """Engines rebuilt within ``rebuild_window_s``, failed attempts included; one more stops the service."""
    rebuild_window_s: float = Field(3_600, gt=0)
    """Over how long rebuilds are counted."""
    rebuild_backoff_s_min: float = Field(1, ge=0)
    """Pause before a rebuild; it doubles with each that follows without a post judged in between."""
    rebuild_backoff_s_max: float = Field(60, ge=0)
    """Longest of these pauses."""
    deaths_per_post_max: int = Field(2, ge=1)
    """A post over which the engine has died or hung so often, the last time alone in it, is a dead letter."""
    in_flight_requests_max: int | None = Field(None, ge=1)
    """Requests admitted to vLLM at once; by default twice ``max_num_seqs``."""
    in_flight_tokens_max: int | None = Field(None, ge=64)
    """Prompt tokens admitted to vLLM at once; by default no bound beyond that of requests."""
    prompt_date: str = Field("2025-01-01", pattern=r"^\d{4}-\d{2}-\d{2}$")
    """The date in harmony's system message, pinned so that prefixes stay cached and a prompt can be rebuilt."""

    @model_validator(mode="after")
    def _ordered(self) -> EngineSettings:
        if self.hang_s <= self.request_timeout_s:
            raise ValueError(
                "hang_timeout_s must exceed request_timeout_s, or one slow post would pass for a hanging engine"
            )
        if self.rebuild_backoff_s_max < self.rebuild_backoff_s_min:
            raise ValueError("rebuild_backoff_s_max must not be below rebuild_backoff_s_min")
        return self

    @property
    def hang_s(self) -> float:
        """``hang_timeout_s``, or its default."""
        return 2 * self.request_timeout_s if self.hang_timeout_s is None else self.hang_timeout_s


class RungSettings(Section):
    """One rung of the ladder: how long the model reasons, and its budget."""

    effort: Literal["medium", "high"]
    """Above the lowest, with which no post is asked twice."""
    reasoning_tokens_max: int = Field(ge=1, le=32_768)
    """Reasoning budget on this rung, in tokens; exact. A policy's own is kept where it is larger."""


class CascadeSettings(Section):
    """Which tiers a post passes, when the model is asked again, and what is left out under pressure."""

    tiers: tuple[Tier, ...] = Field(
        ("duplicates", "rules", "classifier", "safeguard"), min_length=1
    )
    """In order, for policies that do not say; ``safeguard`` is the model, and the last."""
    duplicates_entries_max: int = Field(100_000, ge=1)
    """Answers kept for posts that come again, about 1 kB each; the least recently used go first."""
    duplicates_ttl_s: float = Field(3_600, gt=0)
    """How long an answer is kept, in s."""
    classifier: str | None = Field(None, min_length=1)
    """The classifier of policies with ``thresholds`` that name none: ``builtin:NAME``, or a folder."""
    classifier_threads: int = Field(1, ge=1, le=64)
    """Threads that a classifier's run may use, besides the engine's."""
    ladder: tuple[RungSettings, ...] = (
        RungSettings(effort="medium", reasoning_tokens_max=1_024),
        RungSettings(effort="high", reasoning_tokens_max=2_048),
    )
    """Rungs above a policy's own effort, lowest first; empty asks the model once."""
    uncertain_band: tuple[_Share, _Share] = (0.2, 0.8)
    """An answer whose confidence lies in it, ends included, climbs; two equal ends leave out all but that value."""
    severe: tuple[Severity, ...] = ("high", "critical")
    """Severities at which a violation is asked again, one rung higher, and which pressure spares longest."""
    pressure_effort_age_s_max: float | None = Field(60, gt=0)
    """Oldest post at the judge, in s, above which posts are asked once, at low effort; unset never."""
    pressure_effort_lag_records_max: int | None = Field(None, ge=1)
    """Records still to be read, above which the same holds."""
    pressure_severe_only_age_s_max: float | None = Field(None, gt=0)
    """Oldest post, in s, above which the model is asked for policies with a severe category only; unset never."""
    pressure_severe_only_lag_records_max: int | None = Field(None, ge=1)
    """Records still to be read, above which the same holds."""
    pressure_undetermined_age_s_max: float | None = Field(None, gt=0)
    """Oldest post, in s, above which the model is not asked: the policy's ``undetermined`` holds; unset never."""
    pressure_undetermined_lag_records_max: int | None = Field(None, ge=1)
    """Records still to be read, above which the same holds."""
    pressure_recovery_ratio: float = Field(0.5, gt=0, lt=1)
    """A level is left once age and lag are below this share of its limits."""
    pressure_hold_s: float = Field(30, ge=0)
    """For how long they must be, in s, before each step back."""
    pressure_interval_s: float = Field(1, gt=0)
    """How often it is looked at, in s."""

    @model_validator(mode="after")
    def _consistent(self) -> CascadeSettings:
        if len(set(self.tiers)) < len(self.tiers):
            raise ValueError("tiers names one twice; keep one")
        if "safeguard" in self.tiers[:-1]:
            raise ValueError("tiers: safeguard always ends a post's way; put it last")
        efforts = [rung.effort for rung in self.ladder]
        budgets = [rung.reasoning_tokens_max for rung in self.ladder]
        if efforts not in ([], ["medium"], ["high"], ["medium", "high"]):
            raise ValueError("ladder: each effort once, medium before high")
        if budgets != sorted(budgets):
            raise ValueError("ladder: a higher rung needs at least the budget of the one below")
        if self.uncertain_band[0] > self.uncertain_band[1]:
            raise ValueError("uncertain_band is upside down; write the lower end first")
        for unit in ("age_s", "lag_records"):
            levels = ("effort", "severe_only", "undetermined")
            names = [f"pressure_{level}_{unit}_max" for level in levels]
            limits = [(getattr(self, name), name) for name in names if getattr(self, name)]
            for (low, lower), (high, higher) in itertools.pairwise(limits):
                if low >= high:
                    raise ValueError(f"{higher} must be above {lower}")
        return self
